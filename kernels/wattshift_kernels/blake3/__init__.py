"""BLAKE3 twice over a header, Alephium's proof of work.

algorithm              what is hashed, how it is checked, who can hash it
reference              the same in plain Python, which everything is held against
job  source            what a kernel is given; its text
cuda  cpu              on a GPU; in vectors of sixteen, on a CPU
blake3.cuh             the arithmetic; blake3.cu and blake3.cpp search with it
"""
