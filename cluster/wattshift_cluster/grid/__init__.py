"""What the grid says and what the site draws: schedules of caps, prices, and the meter.

`schedule` and `prices` read files and feeds, `meter` reads a meter over HTTP, `meter_process` is an
independent meter for a site that has none. An unknown value is None here, never zero.
"""
