"""The loopback pool: real protocol, every share checked in full, and it pays nobody.

process  server        the program; a pool of Bitcoin's
listening              of every pool: sockets, jobs and their renewal
link  sessions         one miner's connection; what the pool remembers of it afterwards
template               synthetic blocks
verdict  stats         what is credited; what was counted
vardiff                how hard shares are
settings               limits
coins/                 pools of the other coins
"""
