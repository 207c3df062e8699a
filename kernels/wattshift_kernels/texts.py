"""The kernels' texts: one file of a room with the headers that it includes written in.

A header lies in the room itself, or beside this module where several rooms share it.
"""

import re
from importlib import resources

_INCLUDE = re.compile(r'^#include "(.*)"$', re.MULTILINE)


def text(room: str, name: str) -> str:
    """One text. Raises FileNotFoundError when it or a header of it is missing.

    Args:
        room: an algorithm's folder.
        name: of the file in there.
    """
    shared = resources.files("wattshift_kernels")

    def written(file: str) -> str:
        own = shared / room / file
        found = (own if own.is_file() else shared / file).read_text("utf-8")
        return _INCLUDE.sub(lambda header: written(header[1]), found)

    return written(name)
