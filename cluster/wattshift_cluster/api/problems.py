"""Errors over HTTP: RFC 9457 problem details, one table from error kind to status.

Every answer that is not a success has the media type `application/problem+json` and the members
type, title, status, detail and instance; a validation problem adds `errors`, one entry per fault.
`type` is a URN that ends in a slug; the client turns the slug back into the exception.
"""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from wattshift_cluster.errors import (
    ConfigInvalid,
    Fault,
    NotFound,
    Refused,
    TryLater,
    Unreachable,
    WattshiftError,
)

TYPE_PREFIX = "urn:wattshift:problem:"
MEDIA_TYPE = "application/problem+json"

# Error kind, slug, status. The first kind that matches wins, so subclasses come first.
KINDS: tuple[tuple[type[WattshiftError], str, int], ...] = (
    (ConfigInvalid, "invalid", 422),
    (NotFound, "not-found", 404),
    (Refused, "refused", 409),
    (TryLater, "try-later", 503),
    (Unreachable, "unreachable", 502),
)

SLUGS = {
    400: "malformed",
    401: "unauthorized",
    403: "forbidden",
    404: "not-found",
    405: "method-not-allowed",
    409: "conflict",
    412: "precondition-failed",
    413: "too-large",
    415: "unsupported-media-type",
    422: "invalid",
    503: "try-later",
}
RETRY_AFTER_S = 2


class Problem(Exception):
    """An answer that is not a success, raised inside a route.

    Attributes:
        status: HTTP status.
        detail: one sentence for a person.
        slug: end of the problem's type; by default the one of the status.
        errors: one entry per fault, each with path, message and value.
        headers: extra response headers.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        slug: str | None = None,
        errors: Sequence[dict[str, Any]] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.slug = slug or SLUGS.get(status, "error")
        self.errors = errors
        self.headers = headers or {}


def respond(request: Request, problem: Problem) -> Response:
    """Render a problem as the response to `request`."""
    body: dict[str, Any] = {
        "type": TYPE_PREFIX + problem.slug,
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
        "instance": request.url.path,
    }
    if problem.errors is not None:
        body["errors"] = list(problem.errors)
    headers = dict(problem.headers)
    if problem.status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers.setdefault("Retry-After", str(RETRY_AFTER_S))
    return JSONResponse(body, status_code=problem.status, headers=headers, media_type=MEDIA_TYPE)


def of_error(error: WattshiftError) -> Problem:
    """Return the problem that stands for one of our own errors."""
    for kind, slug, status in KINDS:
        if isinstance(error, kind):
            errors = fault_entries(error) if isinstance(error, ConfigInvalid) else None
            return Problem(status, str(error), slug=slug, errors=errors)
    return Problem(500, "the controller failed; its log says why", slug="internal")


def fault_entries(error: ConfigInvalid) -> list[dict[str, Any]]:
    """Return one entry per fault of a refused configuration."""
    return [
        {"path": fault.path, "message": fault.message, "value": fault.value}
        if isinstance(fault, Fault)
        else {"path": "", "message": fault, "value": None}
        for fault in error.faults
    ]


def install(app: FastAPI) -> None:
    """Make every error of `app` leave as a problem."""

    async def on_problem(request: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)
        return respond(request, error)

    async def on_own_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, WattshiftError)
        return respond(request, of_error(error))

    async def on_http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        headers = dict(error.headers or {})
        return respond(request, Problem(error.status_code, str(error.detail), headers=headers))

    async def on_validation(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return respond(request, of_validation(error))

    async def on_bug(request: Request, error: Exception) -> Response:
        return respond(request, of_error(WattshiftError()))

    app.add_exception_handler(Problem, on_problem)
    app.add_exception_handler(WattshiftError, on_own_error)
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(RequestValidationError, on_validation)
    app.add_exception_handler(Exception, on_bug)


def of_validation(error: RequestValidationError) -> Problem:
    """Return the problem for a query, path or body that FastAPI refused."""
    entries = [
        {
            "path": ".".join(str(part) for part in fault["loc"]),
            "message": fault["msg"],
            "value": plain(fault.get("input")),
        }
        for fault in error.errors()
    ]
    if any(fault["type"] == "json_invalid" for fault in error.errors()):
        return Problem(400, "the body is not valid JSON", errors=entries)
    return Problem(422, f"{len(entries)} fault(s) in the request", errors=entries)


def plain(value: Any) -> Any:
    """Return a value as JSON can hold it, cut to a length that belongs in an error."""
    if value is None or isinstance(value, bool | int | float):
        return value if not isinstance(value, float) or value == value else None
    return str(value)[:200]
