"""Parse source in a process where tests have run: whatever they left behind must not disturb it."""

import ast

TRIES = 5


def parsed(source: str) -> ast.Module:
    """The tree of `source`. Raises SyntaxError.

    Python 3.11 parses source to print a traceback, too, and counts the depth of nested parsers
    wrongly. If something is collected while this one works and its end prints a traceback, it
    raises SystemError, which says nothing of the source: it is tried again.
    """
    for _ in range(TRIES - 1):
        try:
            return ast.parse(source)
        except SystemError:
            continue
    return ast.parse(source)
