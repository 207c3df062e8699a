"""Mining protocol: a Stratum V1 client that mines real shares, and a pool that checks them.

job  extranonce      what is hashed for Bitcoin, and whose part of it
nonces               the same for coins whose header is finished when it reaches us
splitting            a job among workers, so that nobody hashes a header twice
pools  standing      pools in the owner's order; which of them to mine for
client  courier      one pool account across its sessions; its shares, from found to told
jobs  checker        what may be submitted for; where slow references run
session  login  feed one connection; what we say first; what a pool of Bitcoin says
dialect  dialects/   what differs between coins in that: their words, and what they mean
shares  refusals     what became of every share that was found; what a pool means by no
audit                whether a pool credits what it accepted
redirect  tls        where a pool may send us; whose certificate is believed
lines  endpoint  backoff   the wire, addresses, waiting
pool/  proxy/        a pool on loopback; a site's ASICs behind one connection to a real one

A share is a nonce whose hash, read as its algorithm has it, is at or below the target of its job.
None is sent that the algorithm's own reference does not confirm.
"""
