"""kHeavyHash, Kaspa's proof of work: Keccak, a matrix of the block's own, and Keccak again.

algorithm              what is hashed, how it is checked, who can hash it
reference  keccak      the same in plain Python, which everything is held against
job  source            what a kernel is given; its text
cuda  cpu              on a GPU; in vectors of eight, on a CPU
kheavyhash.cuh         the arithmetic; kheavyhash.cu and kheavyhash.cpp search with it
"""
