"""What the grid was promised: what the site can give, what it owes, what is held up for that (I8).

sheddable     what each device could give back now, and how fast it is gone
obligations   what has been promised, and what must be drawn for it now
flexibility   what is left to offer within each deadline, every watt once
holding       mining held up for promises, and its answer kept; held_words: how it is told
filling       promise by promise; goals: who can be raised, the cheapest first, given: by how much
holdable      what each device could do for a promise, and at which loss
shortages     a promise that could not be kept now, by how much, and why
"""
