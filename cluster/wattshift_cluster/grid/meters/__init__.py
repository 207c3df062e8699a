"""Meters: how a site's power is read, how much of it is believed, and how two figures are held
against each other.

Every kind of meter answers the same three questions (`reading.Meter`). `guard` decides what may be
believed, `compare` holds the site meter against its devices, `build` makes one from the site file.
"""
