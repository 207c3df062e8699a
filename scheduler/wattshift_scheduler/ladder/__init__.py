"""The ladder: what every watt is worth on every device, and who gets which (docs/allocation.md).

    envelopes ─▶ rungs, ranking ─▶ ladder ─▶ walk ─▶ repair ─▶ allocate
    (points)     (value per watt)  (in order)  (up the tree)  (whole rungs)

envelopes       which points are worth stopping at
rungs ranking   what rungs rank by; the columns of a ladder while they are made
makes graded    devices that are alike, and what one of each make ranks by, told to all
ladder          every step of every device, in order
walk repair     the way up under the feeder tree, and exchanges of whole rungs where a feeder binds
allocate        both, for a fleet, a tree and what each feeder may give
cycles turns    when a price is worth a sleep and a wake: by itself, and by the look-ahead plan
"""
