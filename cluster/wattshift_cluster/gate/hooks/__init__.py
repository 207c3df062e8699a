"""Hooks that make known kinds of servers mark the gate: ASGI, Ray Serve, vLLM.

They import none of these, and do nothing but say so where WATTSHIFT_GATE_DIR is not set.
"""
