"""The one way a benchmark says that this machine cannot run it."""

from __future__ import annotations


class CannotRunHere(Exception):
    """The machine lacks what the benchmark measures; the text says what."""
