"""Mining programs of other makers on this host's GPUs, for coins whose kernels we do not have.

miners               what each program is called with, how it pauses, what it tells: data
commands  orders     a command line that cannot pay anybody else; how it reaches the wrapper
wrapper  hold        the process that reads the gate and holds the program; what to do to it next
prison  jail         one run after another; the process that the program and its children end with
talk                 what is asked of a program over HTTP
build  device        from the owner's file; the device that the controller sees
belief               whether its watts bear out a pause

Such a program has no launches of a millisecond. It is stopped within a fraction of a second by a
signal, or it says over HTTP that it paused and is believed only when the card's watts fell. So its
device counts as *unfenced*: its ceiling falls by measured watts alone, and inference never overlaps
it. It does fall by itself all the same: the wrapper obeys the gate's expiry, and the program ends
with the wrapper.
"""
