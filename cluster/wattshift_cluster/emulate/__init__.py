"""Emulated ASIC miners that speak real firmware protocols on loopback addresses, and their PDUs.

machine  motion  timing  traits  specs   the physics (stepped by simulations too) and its tables
firmware  kinds  wires  http             what a firmware is; the kinds; how requests are framed
luxos  whatsminer  whatsminer_v2  antminer  braiins  vnish  bitaxe      the wire languages
listener  faults  door  spoil  frames    the sockets of one machine, and how they misbehave
truth  rows  chosen                      what a meter may ask, and the switches
process  fleet_file  shards              the program, for one machine or ten thousand
outlets/                                 PDUs and contactors
nvml/                                    an NVML library for GPUs that are not there
"""
