"""What is in force in this second, worked out from the state for all who decide.

effective        the cap and the target that are acted on, out of all that was said
budget           the watts that each feeder may give away
shortfalls       where even the least is too much, and which figures tell it
acting waiting   how a look-ahead plan that stands acts: prices and reservations, rests of batch
carbon           what the operator's own price on carbon adds to that of energy
"""
