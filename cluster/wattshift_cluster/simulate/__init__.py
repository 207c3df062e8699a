"""The same `step` on a modelled world: a simulated clock, modelled devices, faults from a seed.

`devices`, `agents`, `compute` and `world` are the model; `feeds` brings prices, demand and caps;
`faults` breaks things on a schedule drawn from the seed; `tally` counts energy, money and watts above
the cap; `run` turns the clock. Everything here is modelled, and every result says so.
"""
