"""The ASICs of one LAN segment, and the outlets that they are plugged in.

machine  standing                one of them: leases become commands, obeyed when watts show it
contact  surprises  words        who answers and what it says; what that upsets; how it is told
whereabouts  neighbours          a machine that has moved, found again by its hardware address
trail  claims                    which machine is meant, and who else claims to be it
wish  gate  writing  others      what to command, when it may wake, one at a time; other masters
sweep  lanes  rhythm             the turns that all take; how much goes on at once, and how often
lessons  lesson_desk             what its watts and its meters teach of it
profile  profile_looks           a walk through its points, measured
income                           what the site's proxy says of its shares
desk  profile_desk  keeper       an operator's orders; what outlives this process
fences  fencing  supply          outlets switched, and when; what they say of a machine
"""
