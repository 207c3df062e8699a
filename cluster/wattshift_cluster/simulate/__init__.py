"""The same `step` on a modelled world: a simulated clock, modelled devices, faults from a seed.

`devices`, `agents`, `compute` and `world` are the model; `fleet` and `feeds` bring the site and
what the grid does; `faults` breaks things on a schedule drawn from the seed; `tally` counts energy,
money and watts above the cap; `run` turns the clock. All of it is modelled; every result says so.
"""
