"""The walk up the ladder under the feeder tree, in the two halves of which one is kept.

below    every feeder under the root, from the leaves up: which rungs, or parts of them, fit there
filled   what that leaves to be decided at the root, kept from one decision to the next
capped   what the root's room leaves of it: a new cap is a search in sums kept in order
"""
