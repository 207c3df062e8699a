"""Mining protocol: a Stratum V1 client that mines real shares and a loopback pool that checks them.

`job` holds what is hashed, `client` speaks to a pool, `pool` is one. Only SHA-256d here: a share is
a header whose double SHA-256, read as a little-endian number, is at or below its target.
"""
