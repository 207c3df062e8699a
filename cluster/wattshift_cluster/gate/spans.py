"""How long one is busy: a span as a context manager, and as a decorator of all that can be called.

A generator is busy from its first step to its last, however it ends: exhausted, closed early, by an
exception, or collected. So a streamed answer counts until its last token.
"""

from collections.abc import AsyncIterator, Callable, Generator
from contextlib import AbstractContextManager, aclosing
from functools import wraps
from typing import Any, Protocol, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


class Marks(Protocol):
    """What a span is of: a ClientGate."""

    def enter(self) -> int:
        """Begin; the answer is given to `leave`."""

    def leave(self, generation: int) -> None:
        """End."""


class Span:
    """One stretch of being busy. It may be entered again, also while it lasts."""

    __slots__ = ("_depth", "_gate", "_generation")

    def __init__(self, gate: Marks) -> None:
        """Prepare; `with` begins it."""
        self._gate = gate
        self._generation = -1
        self._depth = 0

    def __enter__(self) -> None:
        self._generation = self._gate.enter()
        self._depth += 1

    def __exit__(self, *_: object) -> None:
        if self._depth:  # one exit too many must not end another request's span
            self._depth -= 1
            self._gate.leave(self._generation)

    def __call__(self, function: F) -> F:
        """`function`, busy while it runs; each call is a span of its own."""
        gate = self._gate
        return busy_while(function, lambda: Span(gate))


def busy_while(function: F, span: Callable[[], AbstractContextManager[Any]]) -> F:
    """`function` within a span of its own at each call; it stays of the same kind.

    Args:
        function: plain, a coroutine function, or a generator function of either kind.
        span: makes the span; called when the call begins, a generator's at its first step.
    """
    import inspect  # heavy, and a plain `with` needs none of it

    wrapper: Any
    if inspect.isasyncgenfunction(function):

        @wraps(function)
        async def wrapper(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            with span():
                async with aclosing(function(*args, **kwargs)) as inner:
                    sent = None
                    while True:
                        try:
                            item = await inner.asend(sent)
                        except StopAsyncIteration:
                            return
                        sent = yield item

    elif inspect.isgeneratorfunction(function):

        @wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            with span():
                answer: Any = yield from function(*args, **kwargs)
                return answer

    elif inspect.iscoroutinefunction(function):

        @wraps(function)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            with span():
                return await function(*args, **kwargs)

    else:

        @wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with span():
                return function(*args, **kwargs)

    result: F = wrapper
    return result
