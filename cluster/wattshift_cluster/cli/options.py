"""Options that several commands share: quantities with units, and which controller to reach."""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import click

from wattshift_cluster.config.quantities import parse_seconds, parse_usd, parse_watts

F = TypeVar("F", bound=Callable[..., Any])


class Quantity(click.ParamType[float]):
    """A number with a unit, as people write it; the value is in the base unit."""

    def __init__(self, name: str, parse: Callable[[object], float], least: float) -> None:
        self.name = name
        self._parse = parse
        self._least = least

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the quantity, or fail with what would be allowed."""
        try:
            amount = self._parse(value)
        except ValueError as wrong:
            self.fail(f"{value!r}: {wrong}", param, ctx)
        if amount < self._least:
            self.fail(f"{value!r}: must be at least {self._least:g}", param, ctx)
        return amount


class Number(click.FloatRange):
    """A plain number between bounds. Not a number is refused: it lies within bounds of any kind."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number, or fail with the range that is allowed."""
        amount: float = super().convert(value, param, ctx)
        if not math.isfinite(amount):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return amount


WATTS = Quantity("WATTS", parse_watts, 0.0)
DURATION = Quantity("DURATION", parse_seconds, 0.0)
USD = Quantity("USD", parse_usd, 0.0)


def controller_options(command: F) -> F:
    """Add `--url` and `--token` to a command."""
    url = click.option("--url", help="Controller to reach (or WATTSHIFT_URL).", metavar="URL")
    token = click.option("--token", help="Token to show (or WATTSHIFT_TOKEN).", metavar="SECRET")
    return url(token(command))
