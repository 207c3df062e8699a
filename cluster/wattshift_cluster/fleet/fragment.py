"""Sections for agent.toml, one per machine that a sweep found; what is there is never changed.

A machine that the file already names, by MAC or by address, is left alone. What machines say of
themselves goes into comments, stripped of all that could end the line; of a model that our table
rates its nameplate is a key.
"""

import math
import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wattshift_cluster.asic.kinds import KINDS
from wattshift_cluster.asic.models import ABILITIES, rating
from wattshift_cluster.errors import ConfigInvalid, Fault, WattshiftError
from wattshift_cluster.fleet.inventory import mac_of
from wattshift_cluster.fleet.scan import Sighting

FILE_LIMIT = 16 * 1024 * 1024
_NAME_LIMIT = 40

OWN_RANGE = frozenset({"braiins"})
"""Firmware that tells its range of watts to whoever logs in. A nameplate in the file would stand in
for the top of that range, and a scan does not log in."""


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a sweep's machines.

    Attributes:
        ids: of the sections that were added.
        passed: addresses that were passed over, each with the reason.
    """

    ids: tuple[str, ...]
    passed: tuple[tuple[str, str], ...]


def append(file: Path, sightings: Sequence[Sighting]) -> Written:
    """Add a section for each machine with a driver; the file is made where there is none.

    Raises:
        ConfigInvalid: the file is there and is not TOML.
        WattshiftError: it cannot be read or written.
    """
    try:
        before = _text(file)
        sections, written = _sections(sightings, _asics(file, before))
        if not sections:
            return written
        gap = "" if not before else "\n" if before.endswith("\n") else "\n\n"
        added = gap + "\n".join(sections)
        tomllib.loads(before + added)
        with file.open("a", encoding="utf-8") as opened:
            opened.write(added)
    except OSError as error:
        raise WattshiftError(f"{file}: {error.strerror or error}") from error
    return written


def _text(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            raw = opened.read(FILE_LIMIT + 1)
    except FileNotFoundError:
        return ""
    if len(raw) > FILE_LIMIT:
        raise ConfigInvalid([Fault(str(file), "", None, f"larger than {FILE_LIMIT} bytes")])
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise ConfigInvalid([Fault(str(file), "", None, "not UTF-8")]) from None


def _asics(file: Path, text: str) -> list[dict[str, Any]]:
    try:
        found = tomllib.loads(text).get("asics", [])
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigInvalid([Fault(str(file), "", None, f"not TOML: {error}")]) from None
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise ConfigInvalid([Fault(str(file), "asics", None, "not a list of tables")])
    return found


def _sections(
    sightings: Sequence[Sighting], there: Iterable[dict[str, Any]]
) -> tuple[list[str], Written]:
    rows = list(there)
    ids = {str(row.get("id")) for row in rows}
    addresses = {str(row.get("address")) for row in rows}
    macs = {mac_of(str(row.get("mac"))) for row in rows} - {None}
    seen = Counter(mac_of(one.mac) for one in sightings)
    sections: list[str] = []
    added: list[str] = []
    passed: list[tuple[str, str]] = []
    for one in sightings:
        mac = mac_of(one.mac)
        if one.kind not in KINDS:
            passed.append((one.address, f"no driver: {one.control}"))
        elif mac is not None and seen[mac] > 1:
            passed.append((one.address, f"its MAC {mac} was seen {seen[mac]} times"))
        elif mac in macs or one.address in addresses:
            passed.append((one.address, "already there"))
        else:
            name = _free(_name(one, mac), ids)
            ids.add(name)
            added.append(name)
            sections.append(_section(name, one, mac))
    return sections, Written(tuple(added), tuple(passed))


def _section(name: str, one: Sighting, mac: str | None) -> str:
    assert one.kind is not None
    told = ", ".join(text for text in (one.model, one.firmware or one.kind) if text)
    lines = ["[[asics]]", f"# {_plain(told)}", f'id = "{name}"', f'address = "{one.address}"']
    if mac is not None:
        lines.append(f'mac = "{mac}"')
    if (nameplate_w := _nameplate_w(one)) is not None:
        lines.append(f'nameplate = "{nameplate_w}W"')
    if one.address.startswith("127."):
        lines.append("emulated = true")
    elif ABILITIES[one.kind].needs_password:
        lines.append("# its commands want a password: name its password_file here")
    return "\n".join(lines) + "\n"


def _nameplate_w(one: Sighting) -> int | None:
    """The most that a machine draws, W, rounded up, so that it is counted before it first answers
    its agent; None where the scan did not identify it or our table does not rate its model.

    A firmware that says more than the table is believed.
    """
    rated = rating(one.model) if one.identified and one.model else None
    if rated is None or one.kind in OWN_RANGE:
        return None
    return math.ceil(max(rated.watts_w, one.nameplate_w or 0.0))


def _name(one: Sighting, mac: str | None) -> str:
    """The model and what tells two of them apart: the end of the MAC, else of the address."""
    model = re.sub(r"^(antminer|whatsminer|bitmain) ", "", (one.model or one.kind or "").lower())
    slug = re.sub(r"[^a-z0-9]+", "-", model)[:_NAME_LIMIT].strip("-") or "asic"
    end = mac.replace(":", "")[-6:].lower() if mac else "-".join(one.address.split(".")[-2:])
    return f"{slug}-{end}"


def _free(name: str, taken: set[str]) -> str:
    number, free = 2, name
    while free in taken:
        free, number = f"{name}-{number}", number + 1
    return free


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)[:200]
