"""What to tell a user of an error in his own code: its last words, and where it happened."""

import re
import traceback

WORDS_MAX = 600
PLACE = re.compile(
    r'^\s*File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<name>\S+)', re.MULTILINE
)
NOT_HIS = ("/ray/", "/concurrent/", "importlib", "<frozen", "/wattshift_cluster/workload/")
WRAPPED = re.compile(r"^(?:\x1b\[[0-9;]*m|[\s|])*")


def told(fault: BaseException) -> str:
    """An exception's type, message and the user's own line."""
    return last_words("".join(traceback.format_exception(fault)))


def last_words(text: str) -> str:
    """The last line of a traceback's text, with the deepest place in code that is not Ray's.

    Serve's messages hold a traceback within a traceback; the innermost error comes last.
    """
    lines = [WRAPPED.sub("", line).rstrip() for line in text.strip().splitlines()]
    last = next((line for line in reversed(lines) if line and set(line) - set("^~ ")), "")
    places = [m for m in PLACE.finditer(text) if not any(word in m["file"] for word in NOT_HIS)]
    where = ""
    if places:
        place = places[-1]
        where = f" ({place['file']}, line {place['line']}, in {place['name']})"
    return f"{last[: WORDS_MAX - len(where)]}{where}"[:WORDS_MAX]
