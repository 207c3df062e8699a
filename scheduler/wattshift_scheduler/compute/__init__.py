"""What runs on the compute nodes, within which watts: from a service's demand to commands.

    demand ─▶ ground, board ─▶ shedding ─▶ filling ─▶ verdicts ─▶ raises ─▶ act
    (units)   (what is there)   (who leaves)  (who gets)  (why)   (which watts)  (commands)

demand                        how many units a service wants, before it misses its promise
ground board cards tenants    what there is to divide: nodes, feeders, GPUs, shares and quotas
seats                         the jobs of one division, and what kin among them have learnt
ranking feasible              who is next; what can never run
placement                     the division itself, in which the following take part
    shedding preemption       what leaves, and who gives way to whom
    filling                   who gets what is free
    verdicts                  how every job stands, by which rule, and when it would run
raises                        by how much each node's watts may rise now
act rooms relief              commands, in the order that keeps watts safe; confirmed watts by node;
                              watts that power limits give back
news                          what the compute side tells, folded into the state
"""
