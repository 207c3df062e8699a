"""Proof-of-work hashing for wattshift: CUDA and CPU, behind one interface. Knows no cluster.

`registry.choose()` hands out the fastest hasher that gives every known answer here.
"""
