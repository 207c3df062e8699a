"""Etchash (Ethereum Classic): 64 random pages of a table that lives for an epoch.

algorithm              what is hashed, how it is checked, who can hash it
reference  compiled    the same apart from any kernel; its inner loops, by numba
epochs  light          which table belongs to a block; the cache that its rows are made from
job                    what a kernel is given
cuda  cpu  ceiling     on a GPU; without a table, on a CPU; what a GPU's memory would allow
etchash.cuh            Keccak, rows, the parts of a hash
build.cu  etchash.cu  search.cpp     the launches, a GPU's and a CPU's
"""
