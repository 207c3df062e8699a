"""An independent site meter for a site that has none with an interface; a program of its own.

process         the program: reads, adds up, answers over HTTP
draws           what it adds up: emulated machines, this host's CPU, its GPUs
"""
