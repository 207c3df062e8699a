"""SHA-256d, Bitcoin's proof of work: one text for GPU and CPU, many variants of it.

algorithm  reference   what is hashed and how it is checked; the slow search by hashlib
variants  source       which variants there are, each with its reason; the rounds written out
words  midstate  precompute     functions of words; what the host does once per work
cuda                   on a GPU: the variants that are right here, and the fastest of them
cpu  lanes  vectors    on a CPU: by numba; by the host's compiler, from the device's rounds
sha256d.cuh            the steps on either pipe; sha256d.cu is the launch
"""
