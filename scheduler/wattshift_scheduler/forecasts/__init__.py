"""What comes next, with quantiles: prices, demand, sun, and bursts of inference.

forecast   a band of a series, from what is usual at that time of day or from what was last seen
usual      what is usual at each time of day, and how far the past lay beside it
follows    what follows what was posted before: real-time prices follow day-ahead ones
chain      how a price moves on from where it lies
market     what energy will cost, out of all that; the same for a live site and for the bench
reserve    what is kept ready for bursts of inference; till then it mines
"""
