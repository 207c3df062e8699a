"""Mining protocol: a Stratum V1 client that mines real shares, and a pool that checks them.

job  extranonce      what is hashed, and whose part of it
splitting            a job among workers, so that nobody hashes a header twice
pools  standing      pools in the owner's order; which of them to mine for
client  courier      one pool account across its sessions; its shares, from found to told
jobs                 what may be submitted for
session  login  feed one connection; what we say first; what the pool says
shares  refusals     what became of every share that was found; what a pool means by no
audit                whether a pool credits what it accepted
redirect  tls        where a pool may send us; whose certificate is believed
lines  endpoint  backoff   the wire, addresses, waiting
pool/  proxy/        a pool on loopback; a site's ASICs behind one connection to a real one

Only SHA-256d here: a share is a header whose double SHA-256, read as a little-endian number, is at
or below its target.
"""
