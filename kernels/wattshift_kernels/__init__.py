"""Proof-of-work hashing for wattshift: CUDA and CPU, behind one interface."""
