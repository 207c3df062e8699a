"""Where people keep credentials in what they write, and how that is shown without them.

The environment of a process is hidden whole; elsewhere a text is hidden whose key says what it is.
"""

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "(hidden)"
ENVIRONMENTS = ("env", "env_vars")
"""Tables of a job in which every value may be a credential."""

TELLTALE = frozenset(
    ("apikey", "auth", "authorization", "bearer", "credential", "credentials", "key", "passwd",
     "password", "secret", "token")
)  # fmt: skip
"""Last words of keys whose text is a credential wherever it stands: api_key, hf_token, apiToken."""

_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")


def hidden(tree: Any, key: str = "") -> Any:
    """What was written, below `key`, without the values that may be credentials."""
    if isinstance(tree, Mapping):
        if key in ENVIRONMENTS:
            return dict.fromkeys(tree, HIDDEN)
        return {name: hidden(value, str(name)) for name, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [hidden(value, key) for value in tree]
    return HIDDEN if isinstance(tree, str) and names_credential(key) else tree


def names_credential(key: str) -> bool:
    """Whether a key says that its text is a credential."""
    words = _WORD.findall(key)
    return bool(words) and words[-1].lower() in TELLTALE
