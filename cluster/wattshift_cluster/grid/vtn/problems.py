"""A request that is refused: what the VTN answers, as a problem (RFC 9457)."""

from http import HTTPStatus
from typing import Any


class Problem(Exception):
    """The answer to a request that is not fulfilled.

    Attributes:
        status: HTTP status.
        detail: what is wrong, for people; holds nothing secret.
        error: the word of RFC 6749 for it, at the token endpoint alone.
    """

    def __init__(self, status: HTTPStatus, detail: str, error: str | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.error = error

    def body(self) -> dict[str, Any]:
        """What is sent."""
        said: dict[str, Any] = {
            "type": "about:blank",
            "title": self.status.phrase,
            "status": self.status.value,
            "detail": self.detail,
        }
        return said if self.error is None else {"error": self.error, **said}


def bad(detail: str) -> Problem:
    """400."""
    return Problem(HTTPStatus.BAD_REQUEST, detail)


def forbidden(detail: str) -> Problem:
    """403."""
    return Problem(HTTPStatus.FORBIDDEN, detail)


def not_found() -> Problem:
    """404, for what is not there and for what must not be known to be there."""
    return Problem(HTTPStatus.NOT_FOUND, "there is no such object")


def conflict(detail: str) -> Problem:
    """409."""
    return Problem(HTTPStatus.CONFLICT, detail)
