"""What can go wrong between the site and its VTN: not there, not allowed, or not understood."""

from wattshift_cluster.errors import Unreachable, WattshiftError


class VtnUnreachable(Unreachable):
    """The network, the deadline or the server itself failed; asking again later may work.

    Attributes:
        status: HTTP status of the answer (5xx, 408 or 429); None where there was none.
        retry_after_s: how long the server asks to be left alone, s; None if it does not say.
    """

    def __init__(
        self, reason: str, status: int | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(reason)
        self.status = status
        self.retry_after_s = retry_after_s


class VtnRefused(WattshiftError):
    """The VTN heard the request and said no (3xx, 4xx); the same request will fail again.

    Attributes:
        status: HTTP status.
        title: the server's words, cut to a line; "" where it had none.
    """

    def __init__(self, doing: str, status: int, title: str = "") -> None:
        super().__init__(f"{doing}: HTTP {status}" + (f" ({title})" if title else ""))
        self.status = status
        self.title = title


class VtnNonsense(WattshiftError):
    """An answer that the protocol does not allow: no JSON, the wrong shape, or beyond a bound."""
