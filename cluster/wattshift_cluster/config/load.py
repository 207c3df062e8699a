"""Read a site's, an agent's or a proxy's file: all of it valid, or every fault at once."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from wattshift_cluster.config import checks, layers
from wattshift_cluster.config.agent import AgentConfig
from wattshift_cluster.config.credentials import HIDDEN
from wattshift_cluster.config.draft import section_of, unknown_key
from wattshift_cluster.config.fields import Section
from wattshift_cluster.config.layers import Origin, shown
from wattshift_cluster.config.proxy import ProxyConfig
from wattshift_cluster.config.site import SiteConfig
from wattshift_cluster.errors import ConfigInvalid, Fault

MAX_FILE_BYTES = 1 << 20
KINDS: tuple[type[Section], ...] = (SiteConfig, AgentConfig, ProxyConfig)
C = TypeVar("C", bound=Section)

SECRET = ("password",)
"""Values that are never shown; of files with secrets only their path is known here."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One effective value: its path in the file, the value, and the layer that gave it."""

    path: str
    value: object
    origin: Origin


@dataclass(frozen=True, slots=True)
class Traced(Generic[C]):
    """A valid configuration together with where each of its values came from."""

    config: C
    settings: tuple[Setting, ...]


def load_site(
    path: Path | str,
    *,
    flags: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
) -> SiteConfig:
    """The site file at `path`. Raises ConfigInvalid with every fault in it.

    Args:
        flags: values by dotted path (`site.tick`), which win over everything.
        environ: the environment; the process's own when None.
    """
    return trace_site(path, flags=flags, environ=environ).config


def load_agent(
    path: Path | str,
    *,
    flags: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
) -> AgentConfig:
    """The agent file at `path`. Raises ConfigInvalid with every fault in it."""
    return trace_agent(path, flags=flags, environ=environ).config


def trace_site(
    path: Path | str,
    *,
    flags: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Traced[SiteConfig]:
    """Like `load_site`, and where each value came from."""
    return _load(Path(path), SiteConfig, checks.check_site, flags, environ)


def trace_agent(
    path: Path | str,
    *,
    flags: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Traced[AgentConfig]:
    """Like `load_agent`, and where each value came from."""
    return _load(Path(path), AgentConfig, checks.check_agent, flags, environ)


def trace_proxy(
    path: Path | str | None,
    *,
    flags: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Traced[ProxyConfig]:
    """The proxy file at `path`, and where each value came from; None: all of it stands in `flags`.

    Raises ConfigInvalid with every fault in it.
    """
    file = None if path is None else Path(path)
    return _load(file, ProxyConfig, checks.check_proxy, flags, environ)


def _load(
    path: Path | None,
    model: type[C],
    check: Callable[[checks.Draft], list[checks.Finding]],
    flags: Mapping[str, object] | None,
    environ: Mapping[str, str] | None,
) -> Traced[C]:
    in_file = {} if path is None else _read(path)
    path = Path("command line") if path is None else path
    sections = set(model.model_fields)
    foreign = {name for kind in KINDS for name in kind.model_fields} - sections
    from_env, faults = layers.environment_overrides(
        os.environ if environ is None else environ, sections, foreign
    )
    layered = layers.lay(in_file, [*from_env, *layers.flag_overrides(flags or {})])
    faults += layered.faults

    context = {"folder": path.absolute().parent}
    draft, wrong = _draft(layered.raw, model, context)
    faults += [_fault(path, layered.origins, *finding) for finding in [*wrong, *check(draft)]]
    if faults:
        raise ConfigInvalid(faults)
    config = model.model_validate(layered.raw, context=context, by_alias=True, by_name=False)
    return Traced(config, tuple(_settings(config, in_file, layered.origins, path)))


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigInvalid(
            [Fault(str(path), "", None, f"cannot be read: {error.strerror}")]
        ) from None
    if len(content) > MAX_FILE_BYTES:
        raise ConfigInvalid([Fault(str(path), "", None, "is larger than 1 MiB")])
    try:
        return tomllib.loads(content.decode())
    except UnicodeDecodeError:
        raise ConfigInvalid([Fault(str(path), "", None, "is not UTF-8 text")]) from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigInvalid([Fault(str(path), "", None, f"is not TOML: {error}")]) from None


def _draft(
    raw: dict[str, Any], model: type[Section], context: dict[str, Path]
) -> tuple[checks.Draft, list[checks.Finding]]:
    """Validate each section by itself, so that the good ones can still be checked together."""
    valid: dict[str, Section] = {}
    wrong: list[checks.Finding] = [
        (key, raw[key], unknown_key(model, (key,))) for key in raw if key not in model.model_fields
    ]
    for key, field in model.model_fields.items():
        section, many = section_of(field.annotation)
        if key not in raw:
            if field.is_required():
                wrong.append((key, None, f"missing; a file needs {_header(key, many)}"))
            continue
        rows = raw[key] if many else [raw[key]]
        if not isinstance(rows, list):
            wrong.append((key, rows, f"must be a list of tables, written {_header(key, many)}"))
            continue
        for at, row in enumerate(rows):
            path = f"{key}[{at}]" if many else key
            if not isinstance(row, dict):
                wrong.append((path, row, f"must be a table, written {_header(key, many)}"))
                continue
            try:
                valid[path] = section.model_validate(
                    row, context=context, by_alias=True, by_name=False
                )
            except ValidationError as error:
                wrong += _findings(error, path, section)
    return checks.Draft(raw, valid), wrong


def _header(key: str, many: bool) -> str:
    return f"[[{key}]]" if many else f"[{key}]"


def _findings(
    error: ValidationError, path: str, section: type[Section]
) -> Iterator[checks.Finding]:
    found = error.errors(include_url=False, include_context=False)
    broken = {one["loc"][0] for one in found if len(one["loc"]) > 1}
    for one in found:
        if one["type"] == "too_short" and one["loc"] and one["loc"][0] in broken:
            continue  # too short only without the item that is at fault itself
        where = path
        for part in one["loc"]:
            where += f"[{part}]" if isinstance(part, int) else f".{part}"
        if one["type"] == "extra_forbidden":
            yield where, one["input"], unknown_key(section, one["loc"])
        elif one["type"] == "missing":
            yield where, None, "missing"
        else:
            text = one["msg"].removeprefix("Value error, ").replace("Tuple should", "List should")
            yield where, one["input"], text


def _fault(
    file: Path, origins: Mapping[str, Origin], path: str, value: object, message: str
) -> Fault:
    origin = origins.get(path)
    if origin is None:
        return Fault(str(file), path, shown(value), message)
    kind = "environment" if origin.source == "environment" else "command line"
    return Fault(kind, f"{origin.detail} ({path})", shown(value), message)


def _settings(
    config: Section, in_file: Mapping[str, Any], origins: Mapping[str, Origin], path: Path
) -> Iterator[Setting]:
    written = {leaf for leaf, _ in layers.leaves(in_file)}
    effective = config.model_dump(mode="json", by_alias=True)
    for leaf, value in layers.leaves(effective):
        default = Origin("file", str(path)) if leaf in written else Origin("default", "built in")
        shown = HIDDEN if value is not None and leaf.rpartition(".")[2] in SECRET else value
        yield Setting(leaf, shown, origins.get(leaf, default))
