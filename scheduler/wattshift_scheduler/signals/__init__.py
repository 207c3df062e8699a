"""What the grid, the operator and the market ask, and what follows: caps, targets, prices.

words       caps, targets, overrides and grid events as their sources state them
memory      what is remembered of all that
standing    overrides put in, mere forecasts set aside
minutes     watts over time, by the minute of the UTC clock
windows     what a cap on a mean leaves for the rest of its demand interval
arbitrate   which cap holds now
ramps       how fast what is acted on may change
targets     which target holds, below the cap
trim        how the meter closes the loop on it
notice      no raise between an event's notice and its start
telling     why, in words
overhead    what is drawn beside the devices, learnt
peaks       when a grid's peak will come, out of a forecast
billed      the demand that a month is billed for

What changes the memory is `turn.news`; all of it, in one direction, is `in_force.effective`.
"""
