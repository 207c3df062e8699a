"""The ASICs of one LAN segment, and the outlets that they are plugged in.

machine             one of them: leases become commands, obeyed when watts show it
contact  words      who answers and what it says; how the controller is told
wish  gate  others  what to command, when it may wake, who else commands it
sweep  lanes        the turns that all machines take; how much goes on at once
desk  keeper        an operator's orders; what outlives this process
fences  fencing     outlets switched off and on, and when
supply              what an outlet says of the machine behind it
"""
