"""Proof-of-work hashing for wattshift: CUDA and CPU, behind one interface. Knows no cluster.

hasher  algorithms  header     the interface; what can be hashed; a Bitcoin header
registry  selftest  verify     which hasher runs here, and that nothing it says is believed
gpu  kernel  launches  slot    any kernel on a GPU: launches in flight, stop word, ring of hits
texts  compiling  placed       a kernel's text; its variants, compiled; one text on either pipe
tables                         a table of gigabytes, built in slices, freed on demand
autotune  rivals               the fastest of several that are right, found by real work and kept
native  native_search  at_once     the device source by the host's compiler; any search on a CPU
nvrtc  sass  passes            machine code without a GPU, counted by pipe
sha256d/  autolykos2/  etchash/  kheavyhash/  blake3/     one algorithm each

`registry.choose()` hands out the fastest hasher that gives every known answer here.
"""
