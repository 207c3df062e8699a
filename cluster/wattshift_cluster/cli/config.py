"""`wattshift config`: check, show or describe a site, agent or proxy file."""

import json
import tomllib
from pathlib import Path
from typing import Any

import click

from wattshift_cluster.api.jobspec import job_schema
from wattshift_cluster.cli.output import emit, grid, output_option, talk
from wattshift_cluster.config.advice import advice
from wattshift_cluster.config.agent import AgentConfig, agent_schema
from wattshift_cluster.config.agent_advice import advice_agent
from wattshift_cluster.config.load import (
    MAX_FILE_BYTES,
    Traced,
    trace_agent,
    trace_proxy,
    trace_site,
)
from wattshift_cluster.config.proxy import proxy_schema
from wattshift_cluster.config.site import SiteConfig, site_schema

FILE = click.Path(dir_okay=False, path_type=Path)
SCHEMAS = {"site": site_schema, "agent": agent_schema, "proxy": proxy_schema, "job": job_schema}


@click.group()
def config() -> None:
    """Check, show or describe site, agent and proxy files.

    \b
      wattshift config check site.toml
      wattshift config show site.toml
      wattshift config schema site > site.schema.json
    """


def trace(path: Path) -> Traced[Any]:
    """Return the valid file, as the kind that its tables say. Raises ConfigInvalid."""
    try:
        with path.open("rb") as file:
            sections = tomllib.loads(file.read(MAX_FILE_BYTES).decode()).keys()
    except (OSError, ValueError, RecursionError):
        sections = {}.keys()  # the loader says what is wrong, with its place
    if "agent" in sections:
        return trace_agent(path)
    return trace_proxy(path) if "proxy" in sections else trace_site(path)


@config.command()
@click.argument("path", metavar="FILE", type=FILE)
@output_option
def check(path: Path, output: str) -> None:
    """Check a file; exit 3 with one line per fault. What is only odd is noted on stderr.

    \b
      wattshift config check site.toml
    """
    traced = trace(path)
    told = _advice(traced.config)
    view = {"file": str(path), "valid": True, "settings": len(traced.settings), "advice": told}
    emit(view, output, lambda one: f"{one['file']}: valid")
    for sentence in told:
        talk(f"note: {sentence}")


def _advice(found: object) -> list[str]:
    """What is odd. Raises ConfigInvalid where a table that a site file names has faults."""
    if isinstance(found, SiteConfig):
        from wattshift_cluster.controller.named_files import check_files

        check_files(found)
        return advice(found)
    return advice_agent(found) if isinstance(found, AgentConfig) else []


@config.command()
@click.argument("path", metavar="FILE", type=FILE)
@output_option
def show(path: Path, output: str) -> None:
    """Show every value in force and where it came from: flag, environment, file or default.

    \b
      wattshift config show site.toml
    """
    found = [
        {"path": s.path, "value": s.value, "source": s.origin.source, "from": s.origin.detail}
        for s in trace(path).settings
    ]
    emit(found, output, settings_text)


def settings_text(found: list[dict[str, Any]]) -> str:
    """Return settings for people."""
    rows = [
        (s["path"], "none" if s["value"] is None else str(s["value"]), s["source"], s["from"])
        for s in found
    ]
    return grid(("SETTING", "VALUE", "SOURCE", "FROM"), rows)


@config.command()
@click.argument("kind", type=click.Choice(list(SCHEMAS)), default="site")
@output_option
def schema(kind: str, output: str) -> None:
    """Print the JSON Schema of a site, agent, proxy or job file.

    \b
      wattshift config schema site > site.schema.json
    """
    emit(SCHEMAS[kind](), output, lambda one: json.dumps(one, indent=2))
