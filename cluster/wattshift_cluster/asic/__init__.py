"""ASIC miners: what an agent may ask of one machine, and the drivers that do it.

`driver` is the contract, `models` the table of nameplates and firmware abilities, `connect`
finds a machine and returns the driver that fits it. Nothing here ever reads or writes a machine's
pools.
"""
