"""JSON as we send it: compact, and without NaN, which JSON does not know: it becomes null."""

import json
import math
from typing import Any


def finite(value: Any) -> Any:
    """Return `value` with every NaN and infinity inside it replaced by None (unknown)."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return value


def encode(value: Any) -> bytes:
    """Return `value` as compact JSON."""
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
    except ValueError:
        return json.dumps(finite(value), separators=(",", ":"), allow_nan=False).encode()
