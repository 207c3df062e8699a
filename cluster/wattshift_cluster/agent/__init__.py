"""One host's devices: what they are, the leases they hold, and the safe point they fall to.

service    the process: answers the controller, watches expiry, ends at the safe points
protocol   what goes over the wire        leases     which leases are taken
device     what every device can do       epochs     the fencing token on disk
hashing    a GPU or CPU behind the gate   asics      a miner behind its driver
child      the worker's process           worker     the process that hashes
desk       the pool session               gpu        NVML readings
consent    the owner's word               cloud      whose machine this is
"""
