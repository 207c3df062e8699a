"""Authenticated JSON lines over TCP: how the controller talks to agents and to the Ray bridge.

lines      one object per line, its size limit, the handshake's proofs
server     answers requests, one at a time per connection
link       asks; connects again by itself
token      the shared secret and its file
epochs     the highest epoch of a controller ever heard, on disk
"""
