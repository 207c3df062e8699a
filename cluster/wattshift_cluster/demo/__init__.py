"""A whole site on one machine: `up` starts one from its file, `demo` starts one and judges it.

children  start, watch and end processes           up        a site file's processes
stage     the demo's site: files, ports, tokens    scenario  what happens when
recorder  what independent witnesses saw           verdict   was the promise kept
report    table and pictures                       run       all of it, in order
"""
