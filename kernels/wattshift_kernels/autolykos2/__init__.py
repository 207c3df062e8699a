"""Autolykos v2 (Ergo): 32 random rows of a table that is made anew for every block height.

algorithm              what is hashed, how it is checked, who can hash it
reference              the same by hashlib, which everything is held against
job                    what a kernel is given
cuda  cpu  ceiling     on a GPU; without a table, on a CPU; what a GPU's memory would allow
autolykos2.cuh         the steps, over blake2b.cuh; half.cuh reads a row with two threads
build.cu  autolykos2.cu  ceiling.cu  search.cpp     the launches, a GPU's and a CPU's
"""
