"""`wattshift config check` notes what is valid and still lacks what its owner meant."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

Command = Callable[..., Result]
SITE = """
[site]
name = "yard"
state_dir = "state"
[[feeders]]
name = "root"
limit = "14kW"
"""
REF = """
[[agents]]
name = "{0}"
address = "127.0.0.1:{1}"
token_file = "{0}.token"
feeder = "root"
{2}
"""
AGENT = """
[agent]
name = "{0}"
listen = "127.0.0.1:7499"
token_file = "{0}.token"
state_dir = "{0}"
gate_dir = "gates"
[hashing]
devices = "none"
"""
NO_DEVICE = "the agent has no device: hashing.devices is none and there is no [[asics]]"


RATED = 'nameplate = "3.5kW"'


def agent(folder: Path, name: str, *asics: str, more: str = RATED) -> Path:
    rows = "".join(
        f'[[asics]]\nid = "{one}"\naddress = "127.20.0.{at}"\n{more}\n'
        for at, one in enumerate(asics, 1)
    )
    path = folder / f"{name}.toml"
    path.write_text(AGENT.format(name) + rows)
    return path


def ref(name: str, port: int = 7499, more: str = "") -> str:
    return REF.format(name, port, more or f'config = "{name}.toml"')


@pytest.fixture
def notes(wattshift: Command, tmp_path: Path) -> Callable[[str], list[str]]:
    """What is noted of a valid site file with these agents."""

    def checked(agents: str) -> list[str]:
        (tmp_path / "site.toml").write_text(SITE + agents)
        result = wattshift("config", "check", tmp_path / "site.toml")
        assert result.exit_code == 0, result.stderr
        return [line.removeprefix("note: ") for line in result.stderr.splitlines()]

    return checked


def test_a_site_that_can_never_have_a_device_is_noted(
    notes: Callable[[str], list[str]], tmp_path: Path
) -> None:
    only_metered = "the site has no [[agents]] and no [compute]: it meters, and commands nothing"
    assert notes("") == [only_metered]
    elsewhere = ref("rack", more='devices = ["*"]')
    assert notes(elsewhere) == [], "its devices join when that agent is reached"
    agent(tmp_path, "rack")
    assert notes(ref("rack")) == [f"agent rack: {NO_DEVICE}"]
    agent(tmp_path, "rack", "rig-1")
    assert notes(ref("rack")) == []


def test_machines_that_count_nothing_until_they_answer_are_noted(
    notes: Callable[[str], list[str]], tmp_path: Path
) -> None:
    agent(tmp_path, "rack", "rig-1", "rig-2", more="")
    (note,) = notes(ref("rack"))
    assert note.startswith("agent rack: without a nameplate: rig-1, rig-2: until it has answered")
    assert "counts nothing" in note
    assert 'set nameplate, as "3500W"' in note
    agent(tmp_path, "rack", *(f"rig-{i}" for i in range(8)), more="protected = true")
    (note,) = notes(ref("rack"))
    assert "rig-4 and 3 more: until" in note
    agent(tmp_path, "rack", "rig-1", more="emulated = true")
    assert notes(ref("rack")) == [], "an emulated one draws nothing"


def test_an_agent_file_is_noted_by_itself(wattshift: Command, tmp_path: Path) -> None:
    empty = wattshift("config", "check", agent(tmp_path, "rack"), "-o", "json")
    assert (empty.exit_code, json.loads(empty.stdout)["advice"]) == (0, [NO_DEVICE])
    assert wattshift("config", "check", agent(tmp_path, "rack", "rig-1")).stderr == ""


def test_one_id_at_two_agents_is_noted_where_both_are_leased(
    notes: Callable[[str], list[str]], tmp_path: Path
) -> None:
    agent(tmp_path, "a", "rig-1", "rig-2")
    agent(tmp_path, "b", "rig-2", "rig-3")
    told = "agent b: rig-2 is a device of agent a, too: one is refused"
    assert notes(ref("a") + ref("b", 7500)) == [told]
    others = 'config = "b.toml"\ndevices = ["rig-3"]'
    assert notes(ref("a") + ref("b", 7500, others)) == []


def test_a_faulty_agent_file_is_noted_before_it_stops_up(
    notes: Callable[[str], list[str]], tmp_path: Path
) -> None:
    path = agent(tmp_path, "a", "rig 1")
    words = f"its file has faults; see wattshift config check {path}"
    assert notes(ref("a")) == [f"agent a: {words}"]
    path.unlink()
    assert notes(ref("a")) == [f"agent a: {words}"]
