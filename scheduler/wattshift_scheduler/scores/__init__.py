"""How well a site did what the grid asked, in the grid's own figures. Pure columns, no state.

m12         PJM's legacy Manual 12 performance score of regulation
base_point  deviation from a base point, time to a share of an instruction, ramps
fast        fast reserves: time to begin and to full response; the droop that is asked for
caps        how a cap was kept: overshoot, its integral, time above, time to the cap
spectrum    the share of the energy in the band in which loads disturb the grid
delivery    payment factors, shed accuracy, peaks that were hit

Samples that are not known are NaN. What they touch is NaN too, or counts at its worst where the
score is one that a site is paid by; each function says which.
"""
