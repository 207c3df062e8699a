"""What the grid was promised: what the site can give, what it owes, what is held up for that (I8).

sheddable     what each device could give back now, and how fast it is gone
obligations   what has been promised, and what must be drawn for it now
flexibility   what is left to offer within each deadline, every watt once
holding       mining held up for promises; holdable: what it would cost, held_words: how it is told
shortages     a promise that could not be kept now, by how much, and why
"""
