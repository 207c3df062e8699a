"""Etchash (Ethereum Classic): 64 random pages of a table that lives for an epoch."""
