"""What runs on the compute nodes, within which watts: from a service's demand to commands.

    demand ─▶ ground, board ─▶ shedding ─▶ filling ─▶ verdicts ─▶ raises ─▶ act
    (units)   (what is there)   (who leaves)  (who gets)  (why)   (which watts)  (commands)

demand                        how many units a service wants, before it misses its promise
ground board cards tenants    what there is to divide: nodes, feeders, GPUs, shares and quotas
seats seating                 the jobs of one division, with what they hold, and what kin among them
                              have learnt
ranking feasible              who is next; what can never run
placement                     the division itself, in which the following take part
    resting                   what leaves because the plan has cheaper hours for it
    shedding                  what leaves because it no longer fits
    preemption pools          who gives way to whom, and what they hold
    due                       what must be at work now to make its deadline, and who has the time
    filling                   who gets what is free
    verdicts expected         how every job stands, by which rule, and when it would run
vacancy                       which cards' tables make room first, and who waits for that
raises                        by how much each node's watts may rise now
act rooms relief              commands, in the order that keeps watts safe; confirmed watts by node;
                              watts that power limits give back
lateness                      which batch is sure to miss its deadline
news pacing forgetting        what the compute side tells, and an operator of a lost node, folded
                              into the state
"""
