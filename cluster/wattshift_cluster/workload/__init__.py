"""The Ray bridge: the one process that speaks to Ray, so that the controller need not.

bridge         the process: answers the controller over the wire, from a report that is always ready
engine         the thread that does the slow work with Ray, and tells what came of it
ray_link       a connection to a Ray cluster: nodes, health
power_keeper   the node's `power_w`, kept at what was asked
local_ray      starting and ending a Ray of our own       ray_host   the process that holds it
ray_trial      whether Ray can be started here, by doing so
services       Ray Serve applications and their replicas
batch          batch jobs and their state                 batch_worker   the actor that works
chunks         what a batch job has done, as files: committed once, found again after any crash
specs          what a command may ask for
samples        callables for a first batch job

Only the modules that drive Ray import it, and only inside functions.
"""
