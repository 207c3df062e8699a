"""Caps for practice: never beside a real event, scored from the site meter.

source          the calendar of drills as a source of signals
results         how each went, and the list that is kept
"""
