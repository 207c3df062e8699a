"""The Ray bridge: the one process that speaks to Ray, so that the controller need not.

bridge         the process      answers   what it takes, refuses and answers over the wire
engine         the threads that do the slow work with Ray, and tell what came of it
fence          one controller at a time
telling        the words of a report       bulletin   its version, and waiting for the next one

cluster/       Ray itself: nodes, their watts, what draws without asking
serving/       services: Ray Serve applications
batch/         batch jobs: datasets in chunks

specs          what a command may ask for, of either     fault_words  a user's error, in his words
samples        callables for a first batch job

Only the modules that drive Ray import it, and only inside functions.
"""
