"""The pure decision core of wattshift: no I/O, no clock, no randomness.

`step(state, events, now_s) -> (state, commands, decisions)` is all that the rest of the house
calls. The same function runs the live site, the tests and the simulator.

Reading order: `site` and `fleet` (what exists), `events` and `commands` (what comes in and goes
out), `signals`, `values`, `ladder` (what every watt is worth and where it goes), `leases` (what has
been promised and what can therefore be drawn), `jobs` and `compute` (what runs on Ray), `promises`
(what the grid may call for), `state`, `in_force`, `turn` and `step` (how it all turns once a
second), `plan` (what the next day has to say in it). Imports run downward through these rooms.
"""
