"""The Stratum proxy of a site: thousands of miners behind one connection to their pool.

process  server            the program; the upstream, the jobs, who is let in
link  pace                 one miner's connection, and its difficulty
jobs  prefixes             what may still be submitted; whose part of the extranonce
accounts  page             what each device found; status and metrics
settings  sockets          limits; room for thousands of connections

The pool account is the owner's and stands in the configuration alone: what a miner calls itself
names it in the accounts here, and never reaches the pool.
"""
