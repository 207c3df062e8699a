"""The look-ahead plan: what the next day's prices, peaks, deadlines and caps ask of this hour.

    words ─▶ machines, demands ─▶ guessing ─▶ openings ─▶ model ─▶ highs ─▶ read ─▶ words
    (Ahead)   (what there is)     (prices)    (what is open)                        (Plan)

words limits checks           what a plan is made from and says; feeders below the connection, holds
                              for promises; which figures can be at all
classes points                devices by kind, and the points of each kind
binding splitting             which feeders below the connection can be full; kinds split by those
machines demands deadlines    what each machine would do at given prices; what is asked of each
                              interval; when each batch must be at work
guessing coarse               prices to begin with: the last plan's, or those of longer intervals
openings model mining sheet   which decisions are open; the program of those, its machines' part,
                              and its columns of numbers
bounds                        limits below the connection, and holds, as rows of it
solve highs                   program by program until nothing is left out; the one door to a solver
read unsure telling           from what was solved to a plan, what awake is worth where prices are
                              not known, and what people are told

It never commands. What it hands to the control loop are prices and reservations (`words.Standing`),
and without it the ladder goes on alone. How a plan that stands acts on a decision is told in
`in_force.acting` and `waiting`, and in `ladder.turns`.
"""
