"""Files nested deeper than a parser follows are faults of theirs, in every place that reads one."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wattshift_cluster.agent.consent import ConsentMissing, Surroundings, read_consent
from wattshift_cluster.cli.config import trace
from wattshift_cluster.config.settlement import settlement_at
from wattshift_cluster.errors import ConfigInvalid
from wattshift_cluster.fleet.fragment import append
from wattshift_cluster.grid.schedule import parse_schedule
from wattshift_cluster.grid.vtn.clients_file import read_clients
from wattshift_cluster.grid.vtn.script import read_script

DEEP = "[" * 20_000 + "]" * 20_000


def _schedule(path: Path) -> Any:
    return parse_schedule(path.read_text(), "schedule.toml")


READERS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "config": (trace, "a = "),
    "settlement": (settlement_at, "a = "),
    "schedule": (_schedule, "a = "),
    "clients": (read_clients, "a = "),
    "script": (read_script, ""),
    "asics": (lambda path: append(path, []), "a = "),
}


@pytest.mark.parametrize("reader", READERS)
def test_what_is_nested_without_end_is_a_fault_of_its_file(tmp_path: Path, reader: str) -> None:
    read, before = READERS[reader]
    path = tmp_path / "file.toml"
    path.write_text(f"{before}{DEEP}\n")
    with pytest.raises(ConfigInvalid):
        read(path)


def test_a_consent_that_no_parser_follows_is_none(tmp_path: Path) -> None:
    path = tmp_path / "consent.toml"
    path.write_text(f"owner = {DEEP}\n")
    path.chmod(0o644)
    with pytest.raises(ConsentMissing, match="is not TOML"):
        read_consent(path, Surroundings(os.geteuid(), os.geteuid(), tmp_path / "dmi"))
