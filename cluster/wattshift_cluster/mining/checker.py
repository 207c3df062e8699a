"""One thread for what takes too long in an event loop: hashing shares again by a slow reference.

It is one, and not a thread for each share: what they need in common (the small table of an etchash
epoch) is then made once, and however many shares wait, the event loop shares the interpreter with a
single other thread.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

R = TypeVar("R")

_thread = ThreadPoolExecutor(1, thread_name_prefix="shares")


async def aside(call: Callable[..., R], *arguments: object) -> R:
    """What `call` returns or raises, called in that thread when its turn comes."""
    return await asyncio.get_running_loop().run_in_executor(_thread, call, *arguments)
