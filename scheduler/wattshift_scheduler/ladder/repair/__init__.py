"""Whole rungs within a rung of the best: small exchanges where a feeder binds.

near          which devices are looked at for a feeder: all of a few, of many those near its cut
offers        what those could run at instead, as tables of one row per feeder
combinations  every combination of a few devices' points at once: which fits, and pays
exchanges     the best of them at each feeder
repaired      the turns up the tree in which they are made
"""
