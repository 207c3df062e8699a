"""Curves: prices, carbon and loads over time, as others publish them.

steps    what is known at which time, and how a newer curve takes an older one's place
times    a time as a table writes it, also by the clock on a wall
rows     a table of rows, CSV or JSON, turned into a curve
readers  a file or a server that is asked for one
source   one of them, asked now and then: staleness, back-off, what is said
"""
