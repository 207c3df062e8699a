"""The look-ahead plan: what the next day's prices, peaks, deadlines and caps ask of this hour.

It never commands. What it hands to the control loop are prices and reservations (`words.Standing`),
and without it the ladder goes on alone. HiGHS is imported in `highs` alone, when a plan is made.
"""
