"""Peaks that cost a whole year or month, as caps foreseen with a chance.

coincident      the grid's own peak (4CP, 12CP), from a forecast of its load
demand_charge   the site's own highest interval of a month
periods         months, hours and days on which a peak counts
kept_highest    what was reached, over a restart
"""
