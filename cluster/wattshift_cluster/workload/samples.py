"""Callables for a first batch job: a list of items in, a list of outputs of that length out."""

import time
from collections.abc import Sequence
from functools import cache
from typing import Any

from wattshift_cluster.inference import minilm


@cache
def _model() -> minilm.MiniLM:
    return minilm.load()


def embed_text(items: Sequence[Any]) -> list[dict[str, Any]]:
    """Embed texts with MiniLM, one at a time: a short text takes some 15 ms of one core.

    Args:
        items: each {"text": text} or a text.
    """
    vectors = (_model().encode([_text(item)])[0] for item in items)
    return [{"embedding": [round(float(x), 5) for x in vector]} for vector in vectors]


def _text(item: Any) -> str:
    text = item.get("text") if isinstance(item, dict) else item
    if not isinstance(text, str):
        raise TypeError('an item is a text or {"text": text}')
    return text


def length(items: Sequence[Any]) -> list[int]:
    """Length of each item's text, after 10 ms of waiting: work without load."""
    lengths = []
    for item in items:
        time.sleep(0.01)
        lengths.append(len(_text(item)))
    return lengths
