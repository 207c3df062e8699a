"""OpenADR 2.0b, the older protocol, through the extra `openadr2` (openleadr).

source          the same source of signals as `grid.openadr`, with an older server
events          its events in the shape of those of 3.1
"""
