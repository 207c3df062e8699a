"""One host's devices: what they are, the leases they hold, and the safe point they fall to.

service  protocol  leases            the process; what goes over the wire; which leases are taken
build  device  specs                 from agent.toml to devices; what every device can do
hashing                              a GPU or CPU behind its gate, made of
    meters  steering  throttle           what it draws; from a lease to intensity; backing off
    assignments  desk  pool_audit        work and shares; the pools; whether they credit them
    child  voice                         the worker's process, and how it speaks
    table                                what a memory-hard algorithm keeps in its card
worker  launches  tray  pace         the process that hashes
gpu/  gpus  limit_desk               NVML: readings and power limits
power/                               the learnt power curve and what is made of it
observe/  neighbourhood              who else uses a device without marking its gate
frequency  shedding                  what this host sheds by itself when the grid's frequency falls
external/                            a foreign mining program on a card
asics/                               ASICs, their turns, their operator, and the outlets behind them
consent  cloud                       the owner's word; whose machine this is
"""
