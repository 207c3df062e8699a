"""Commands with many options: their help shows them in groups, each under a heading of its own."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])
REST = "Options"


class SectionOption(click.Option):
    """An option that stands under a heading of the help."""

    def __init__(self, *args: Any, section: str = REST, **named: Any) -> None:
        super().__init__(*args, **named)
        self.section = section


class SectionCommand(click.Command):
    """A command whose help groups its options by section, in the order in which they came."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one list per section, the general options last."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx) if isinstance(param, click.Option) else None
            if record is not None:
                heading = param.section if isinstance(param, SectionOption) else REST
                sections.setdefault(heading, []).append(record)
        rest = sections.pop(REST, [])
        for heading, records in [*sections.items(), (REST, rest)]:
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)


def section(heading: str) -> Callable[..., Callable[[F], F]]:
    """Return a maker of options under `heading`, used as `click.option` is."""

    def option(*declared: str, **named: Any) -> Callable[[F], F]:
        return click.option(*declared, cls=SectionOption, section=heading, **named)

    return option
