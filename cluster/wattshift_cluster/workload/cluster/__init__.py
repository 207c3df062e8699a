"""Ray itself: its nodes, their watts, what draws without asking, and a Ray of our own.

ray_link       a connection to a Ray cluster: nodes, health, drain     ray_token  its token
nodes          what nodes there are, by the site's names for them
node_desk      all of a cluster's nodes at once, for the engine
node_power     the watts of every node     power_keeper  one node's, kept at what was asked
unasked        what draws watts without asking     meters  who looks, on which node
local_ray      starting and ending a Ray of our own    ray_host  the process that holds it
session        all processes of that Ray, ended together
ray_trial      whether Ray can be started here, by doing so
versions       which releases of Ray are known, and what each of them can do
purge          taking away what is left when nobody else is
"""
