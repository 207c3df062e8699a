"""Which coin an address at a pool is of, where it says so itself.

Pools take addresses and account names, so what is not known here is nothing wrong. But an address
of another coin at a pool is a slip: the work would be paid to nobody.

Forms: BIP 173 and Base58Check (Bitcoin), 20 bytes of hexadecimal (Ethereum Classic), a prefix and
Bech32's letters (Kaspa), 38 bytes of Base58 beginning with 9 (Ergo, main net, one key), and 33
bytes of Base58 beginning with 1 (Alephium, one key).
"""

import re

_BASE58 = "[1-9A-HJ-NP-Za-km-z]"
_FORMS = {
    "sha256d": ("Bitcoin", f"bc1[02-9ac-hj-np-z]{{11,71}}|[13]{_BASE58}{{25,34}}"),
    "etchash": ("Ethereum Classic", "0x[0-9a-fA-F]{40}"),
    "kheavyhash": ("Kaspa", "kaspa:[02-9ac-hj-np-z]{61,63}"),
    "autolykos2": ("Ergo", f"9{_BASE58}{{50}}"),
    "blake3": ("Alephium", f"1{_BASE58}{{43,45}}"),
}


def coin_of(user: str) -> tuple[str, str] | None:
    """Algorithm and coin of the address in a pool's user name; None where there is none.

    Args:
        user: an address or an account, with a worker's name behind a dot, or before one.
    """
    for part in user.split("."):
        for algorithm, (coin, form) in _FORMS.items():
            if re.fullmatch(form, part):
                return algorithm, coin
    return None
