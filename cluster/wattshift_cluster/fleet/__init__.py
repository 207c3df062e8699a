"""Many machines: finding them, knowing them again, and shedding them so that it can be trusted.

scan  ranges                            who is there
inventory  inventory_file  fragment     known again by hardware address; what an agent.toml gets
curtail                                 one command's life, until watts confirm it
safety  locks  memory                   rest, turns to wake, heat; a person's word; what lasts
learn                                   watts and times from meters
commission  pulses  recording           pulsing each machine against its feeder's meter, through
    site_port                               this door
"""
