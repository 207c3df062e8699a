"""The user's Python callable: found, built once per worker, and called with a list of items.

It may be a function, a class (built once, without arguments, then called), an instance with
`__call__`, or an async one of these. It gets a list of items and returns as many outputs.
"""

import asyncio
import importlib
import inspect
import sys
from collections.abc import Coroutine, Iterable, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, Protocol

from wattshift_cluster.workload.batch.formats import InputInvalid
from wattshift_cluster.workload.batch.rows import wrong_of


class WrongOutputs(Exception):
    """What came back is not one output per item."""


class Work(Protocol):
    """What is done with the items of a chunk."""

    def __call__(self, items: Sequence[Any]) -> list[Any]:
        """One output per item. Raises whatever goes wrong."""
        ...

    def interrupt(self) -> None:
        """End a call that is under way, where that is possible; from any thread, for good."""
        ...

    def close(self) -> None:
        """Give back what it holds."""
        ...


class Called:
    """A callable of the user's, as work."""

    def __init__(self, target: Any) -> None:
        self._target: Any = target() if inspect.isclass(target) else target
        self._loop: asyncio.Runner | None = None

    def __call__(self, items: Sequence[Any]) -> list[Any]:
        """One output per item. Raises: WrongOutputs; whatever the callable raises."""
        result = self._target(list(items))
        if inspect.iscoroutine(result):
            self._loop = self._loop or asyncio.Runner()
            result = self._loop.run(_awaited(result))
        if isinstance(result, str | bytes | dict) or not isinstance(result, Iterable):
            raise WrongOutputs(
                f"it returned {type(result).__name__}; allowed: a list with one output per item"
            )
        outputs = list(islice(result, len(items) + 1))
        if len(outputs) != len(items):
            more = "more than " if len(outputs) > len(items) else ""
            count = min(len(outputs), len(items))
            raise WrongOutputs(f"it made {more}{count} outputs of {len(items)} items")
        return outputs

    def interrupt(self) -> None:
        """Nothing: a thread cannot be ended from outside."""

    def close(self) -> None:
        """End the event loop, if there is one."""
        if self._loop is not None:
            self._loop.close()


async def _awaited(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return await coroutine


def look_in(folders: Sequence[str]) -> None:
    """Have modules looked for in these folders first, in their order."""
    for folder in reversed(folders):
        with suppress(ValueError):
            sys.path.remove(folder)
        sys.path.insert(0, folder)


def imported(path: str, node: str | None = None) -> Any:
    """The object at "package.module:name".

    Args:
        path: where it is.
        node: the node this is, for the error.

    Raises:
        InputInvalid: there is none, or its module cannot be imported.
    """
    module, _, name = path.partition(":")
    where = f" on node {node}" if node else ""
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as fault:
        raise InputInvalid(
            f"{path}: No module named {fault.name!r}{where};"
            " install it there or name its folder with python_path"
        ) from fault
    except AttributeError as fault:
        raise InputInvalid(f"{path}: {fault}") from fault
    except (Exception, SystemExit) as fault:  # whatever a module of the user's does
        raise InputInvalid(f"{path}: its module fails{where}: {wrong_of(fault)}") from fault


def called(path: str, node: str | None = None) -> Called:
    """The callable at "package.module:name", built.

    Raises:
        InputInvalid: there is none, or it is not callable.
        Exception: whatever the constructor raises.
    """
    target = imported(path, node)
    if not callable(target):
        raise InputInvalid(f"{path} is a {type(target).__name__}, which cannot be called")
    return Called(target)
