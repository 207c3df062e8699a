"""How the pools of each coin speak. Facts from public sources, named in each module.

table                  all of them, by algorithm
bitcoin                sha256d: Stratum V1 with BIP 310
nonce_feed             what the others share: a prefix of the nonce, a difficulty, jobs
ergo                   autolykos2
ethereum_classic       etchash: EthereumStratum/1.0.0, and the older form without a name
kaspa                  kheavyhash
alephium               blake3
seeds                  the epoch of an Ethash coin, by the seed that its pools name
"""
