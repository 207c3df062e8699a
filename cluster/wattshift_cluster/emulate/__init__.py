"""Emulated ASIC miners that speak real firmware protocols on loopback addresses.

`machine` is the physics (and is stepped by simulations too), `luxos` and `whatsminer` are the wire
languages, `listener` the sockets with their faults, `truth` what a meter may ask, `process` the
program.
"""
