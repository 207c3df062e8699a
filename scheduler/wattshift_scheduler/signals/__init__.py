"""What the grid, the operator and the market ask, and what follows: caps, targets, prices.

words       caps, targets, overrides and grid events as their sources state them
arbitrate   which of them holds now
"""
