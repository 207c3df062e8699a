"""Ray Serve: one line above a deployment's class makes its replicas mark the gate.

    @serve.deployment
    @busy_replica                                # or @busy_replica(methods=("generate", "embed"))
    class Model: ...

A replica is busy while it is constructed (a model loads) and while it answers; a streamed answer
counts until its last item, be it a generator or a response with a `body_iterator`. The gate is
found in the replica, by WATTSHIFT_GATE_DIR; Ray is not imported here.

The class also gets the method `wattshift_stats`, by which the bridge learns what its answers take.
"""

from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import aclosing
from functools import wraps
from typing import Any, TypeVar, overload

from wattshift_cluster.gate.environment import busy_here
from wattshift_cluster.gate.hooks.recorder import Answer, recorder_here
from wattshift_cluster.gate.readiness import ready
from wattshift_cluster.gate.spans import busy_while

C = TypeVar("C", bound=type)


@overload
def busy_replica(cls: C, /) -> C: ...


@overload
def busy_replica(*, methods: Collection[str]) -> Callable[[C], C]: ...


def busy_replica(
    cls: C | None = None, /, *, methods: Collection[str] = ("__call__",)
) -> C | Callable[[C], C]:
    """Make a deployment's class mark the gate while it loads and answers.

    Args:
        cls: the class; `serve.deployment` goes around the result.
        methods: those that answer, `__call__` unless named. A class under `serve.ingress` has its
            routes in an ASGI application: give that the BusyMiddleware instead.
    """

    def marked(target: C) -> C:
        wrap(target, tuple(methods))
        return target

    return marked if cls is None else marked(cls)


def wrap(target: type, methods: Collection[str]) -> None:
    """Replace a class's constructor and `methods` by those that mark the gate."""
    wrappers = {**dict.fromkeys(methods, answering), "__init__": loading}
    for name, wrapper in wrappers.items():
        setattr(target, name, wrapper(getattr(target, name)))
    if not hasattr(target, "wattshift_stats"):
        target.wattshift_stats = wattshift_stats  # type: ignore[attr-defined]


def wattshift_stats(self: object) -> dict[str, Any]:
    """What this replica's answers took (see Recorder); a method of every class that is marked."""
    return recorder_here().stats()


def answering(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method that is busy until its answer's last item."""
    import inspect

    if inspect.isasyncgenfunction(method) or inspect.isgeneratorfunction(method):
        return busy_while(noted(method), busy_here)
    if inspect.iscoroutinefunction(method):

        @wraps(method)
        async def asked(*args: Any, **kwargs: Any) -> Any:
            with busy_here(), recorder_here().answer() as answer:
                return streamed(await method(*args, **kwargs), answer)

        return asked

    @wraps(method)
    def called(*args: Any, **kwargs: Any) -> Any:
        with busy_here(), recorder_here().answer() as answer:
            return streamed(method(*args, **kwargs), answer)

    return called


def noted(method: Callable[..., Any]) -> Callable[..., Any]:
    """A generator function whose items are noted as they go out."""
    import inspect

    if inspect.isasyncgenfunction(method):

        @wraps(method)
        async def items(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            with recorder_here().answer() as answer:
                async with aclosing(method(*args, **kwargs)) as inner:
                    async for item in inner:
                        answer.part()
                        yield item

        return items

    @wraps(method)
    def plain(*args: Any, **kwargs: Any) -> Iterator[Any]:
        with recorder_here().answer() as answer:
            for item in method(*args, **kwargs):
                answer.part()
                yield item

    return plain


def loading(constructor: Callable[..., Any]) -> Callable[..., Any]:
    """A constructor that is busy until it ends, and says then that the replica is ready."""
    import inspect

    if inspect.iscoroutinefunction(constructor):

        @wraps(constructor)
        async def later(*args: Any, **kwargs: Any) -> None:
            with busy_here():
                await constructor(*args, **kwargs)
            ready()

        return later

    @wraps(constructor)
    def now(*args: Any, **kwargs: Any) -> None:
        with busy_here():
            constructor(*args, **kwargs)
        ready()

    return now


def streamed(value: Any, answer: Answer) -> Any:
    """What a method returned; if it is sent in parts, it is busy until the last."""
    if hasattr(value, "__anext__"):
        answer.kept = True
        return parts(value, answer)
    body = getattr(value, "body_iterator", None)
    if hasattr(body, "__aiter__"):
        answer.kept = True
        value.body_iterator = parts(body, answer)
    return value


async def parts(body: Any, answer: Answer) -> AsyncIterator[Any]:
    """The items of `body`, busy until there are no more or nobody asks for them."""
    with busy_here():
        given = False
        try:
            async for item in body:
                answer.part()
                yield item
            given = True
        finally:
            answer.end(given)
            close = getattr(body, "aclose", None)
            if close is not None:
                await close()
