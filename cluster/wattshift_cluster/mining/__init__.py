"""Mining protocol: a Stratum V1 client that mines real shares, and a pool that checks them.

job  extranonce      what is hashed, and whose part of it
client  session      a pool account; one connection to its pool
shares               what became of every share that was found
lines  endpoint  backoff   the wire, addresses, waiting
pool/                a pool on loopback

Only SHA-256d here: a share is a header whose double SHA-256, read as a little-endian number, is at
or below its target.
"""
