"""Autolykos v2 (Ergo): 32 random rows of a table that is made anew for every block height."""
