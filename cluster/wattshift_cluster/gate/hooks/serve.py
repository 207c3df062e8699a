"""Ray Serve: one line above a deployment's class makes its replicas mark the gate.

    @serve.deployment
    @busy_replica                                # or @busy_replica(methods=("generate", "embed"))
    class Model: ...

A replica is busy while it is constructed (a model loads) and while it answers; a streamed answer
counts until its last item, be it a generator or a response with a `body_iterator`. The gate is
found in the replica, by WATTSHIFT_GATE_DIR; Ray is not imported here.
"""

from collections.abc import AsyncIterator, Callable, Collection
from functools import wraps
from typing import Any, TypeVar, overload

from wattshift_cluster.gate.environment import busy_here
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


def answering(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method that is busy until its answer's last item."""
    import inspect

    if inspect.isasyncgenfunction(method) or inspect.isgeneratorfunction(method):
        return busy_while(method, busy_here)
    if inspect.iscoroutinefunction(method):

        @wraps(method)
        async def asked(*args: Any, **kwargs: Any) -> Any:
            with busy_here():
                return streamed(await method(*args, **kwargs))

        return asked

    @wraps(method)
    def called(*args: Any, **kwargs: Any) -> Any:
        with busy_here():
            return streamed(method(*args, **kwargs))

    return called


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


def streamed(answer: Any) -> Any:
    """An answer whose body, if it is sent in parts, is busy until the last."""
    if hasattr(answer, "__anext__"):
        return parts(answer)
    body = getattr(answer, "body_iterator", None)
    if hasattr(body, "__aiter__"):
        answer.body_iterator = parts(body)
    return answer


async def parts(body: Any) -> AsyncIterator[Any]:
    """The items of `body`, busy until there are no more or nobody asks for them."""
    with busy_here():
        try:
            async for item in body:
                yield item
        finally:
            close = getattr(body, "aclose", None)
            if close is not None:
                await close()
