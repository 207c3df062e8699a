"""What energy costs and what it emits, as others publish it.

prices          a file, an HTTP feed, a fixed price, or the first that knows
published       prices of markets through the extra `market`; thread: where its libraries may block
carbon          WattTime, Electricity Maps; carbon_history: a file of the past
sources         from `[market]` to the sources of signals
"""
