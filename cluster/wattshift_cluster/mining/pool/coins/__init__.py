"""Loopback pools of the other coins: they speak as real ones do, check every share, and pay nobody.

server  link           the pool; one miner's connection
tongue                 what a coin's pool says and hears
ergo  ethereum_classic  kaspa  alephium     one coin each
judge                  what is credited

What they say and hear is written apart from the client's dialects, so that one mistake is not made
on both sides.
"""
