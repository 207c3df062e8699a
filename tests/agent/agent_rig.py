"""The file of an agent with one hashing CPU, a port for it, and leases for its device."""

from typing import Any

CONFIG = """
[agent]
name = "host"
listen = "127.0.0.1:{port}"
token_file = "token"
state_dir = "state"
gate_dir = "gates"
host = "host"
[hashing]
devices = "cpu"
cpu_w = "100W"
nice = 0
[pool]
url = "stratum+tcp://{pool}"
user = "demo.host"
plaintext = true
"""
DEVICE = "host-cpu0"


def lease(sequence: int, watts_w: float, until_boot_s: float, **more: Any) -> dict[str, Any]:
    """A lease to hash, as the controller of the first epoch words it."""
    words = {"device": DEVICE, "epoch": 1, "sequence": sequence, "mode": "hash"}
    return {**words, "watts_w": watts_w, "valid_until_boot_s": until_boot_s, **more}
