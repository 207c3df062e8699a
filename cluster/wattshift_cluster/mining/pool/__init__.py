"""The loopback pool: real protocol, every share checked in full, and it pays nobody.

process  server        the program; sockets, jobs and their renewal
link                   one miner's connection
template               synthetic blocks
verdict  stats         what is credited; what was counted
settings               limits
"""
