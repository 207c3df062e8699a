"""The service around `step`: it feeds events in, carries commands out, and writes down why.

sessions (agents, compute bridge, meter, grid feeds) ─▶ events ─▶ service ─▶ step
                 ▲                                                   │
                 └───────────────── commands ◀───────────────────────┤
                                                 journal, views ◀────┘
"""
