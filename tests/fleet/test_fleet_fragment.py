"""What a scan writes into an agent's file: sections of its machines, and nothing else."""

import stat
import tomllib

import pytest

from wattshift_cluster.config import agent_advice
from wattshift_cluster.config.load import load_agent
from wattshift_cluster.fleet import fragment

AGENT = """
[agent]
name = "a"
listen = "127.0.0.1:0"
token_file = "agent.token"
state_dir = "state"
gate_dir = "gates"

"""


def test_sections_are_appended_and_nothing_else_is_touched(tmp_path, sighted):
    file = tmp_path / "agent.toml"
    before = '# mine\n[agent]\nname = "a"\n\n[[asics]]\nid = "one"\naddress = "10.0.0.1"'
    file.write_text(before)
    file.chmod(0o640)
    seen = [
        sighted("10.0.0.1", mac="02:00:00:00:00:01"),
        sighted("10.0.0.2", mac="02:00:00:00:00:02"),
        sighted("10.0.0.3", kind="hammer"),
        sighted("10.0.0.4", mac="02:00:00:aa:bb:cc", kind="whatsminer", model="M60S_VK40"),
        sighted("127.0.0.5", mac="02:00:00:00:00:05"),
        sighted("10.0.0.6"),
        sighted("10.0.0.7", mac="02:00:00:00:00:07"),
        sighted("10.0.0.8", mac="02:00:00:00:00:07"),
    ]
    written = fragment.append(file, seen)
    text = file.read_text()
    assert text.startswith(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    rows = tomllib.loads(text)["asics"]
    assert rows[1:] == [
        {
            "id": "s21-000002",
            "address": "10.0.0.2",
            "mac": "02:00:00:00:00:02",
            "nameplate": "3500W",
        },
        {
            "id": "m60s-vk40-aabbcc",
            "address": "10.0.0.4",
            "mac": "02:00:00:AA:BB:CC",
            "nameplate": "3441W",
        },
        {
            "id": "s21-000005",
            "address": "127.0.0.5",
            "mac": "02:00:00:00:00:05",
            "nameplate": "3500W",
            "emulated": True,
        },
        {"id": "s21-0-6", "address": "10.0.0.6", "nameplate": "3500W"},
    ]
    assert [address for address, _ in written.passed] == [
        "10.0.0.1",
        "10.0.0.3",
        "10.0.0.7",
        "10.0.0.8",
    ]
    again = fragment.append(file, seen)
    assert again.ids == ()
    assert file.read_text() == text


@pytest.mark.parametrize(
    ("more", "nameplate"),
    [
        ({"model": "Antminer S19k Pro"}, "2760W"),
        ({"model": "Antminer S19k Pro", "nameplate_w": 2791.2}, "2792W"),
        ({"model": "BitAxe Gamma", "kind": "bitaxe", "nameplate_w": 15.0}, "18W"),
        ({"model": "Antminer S99", "nameplate_w": 4000.0}, None),
        ({"model": "Antminer S21", "identified": False}, None),
        ({"model": None}, None),
        ({"model": "Antminer S19j Pro", "kind": "braiins", "nameplate_w": 2950.0}, None),
    ],
)
def test_a_nameplate_is_written_where_the_table_rates_what_was_identified(
    tmp_path, sighted, more, nameplate
):
    file = tmp_path / "agent.toml"
    fragment.append(file, [sighted("10.0.0.2", **more)])
    (row,) = tomllib.loads(file.read_text())["asics"]
    assert row.get("nameplate") == nameplate


def test_what_a_scan_wrote_is_counted_before_it_ever_answers(tmp_path, sighted):
    file = tmp_path / "agent.toml"
    file.write_text(AGENT)
    fragment.append(file, [sighted("10.0.0.2"), sighted("10.0.0.3", model="Antminer S99")])
    config = load_agent(file, environ={})
    assert [one.nameplate_w for one in config.asics] == [3500.0, None]
    (note,) = agent_advice.advice_agent(config)
    assert "s99-0-3" in note
    assert "s21-0-2" not in note


def test_a_moved_machine_is_known_by_its_mac_and_ids_stay_unique(tmp_path, sighted):
    file = tmp_path / "agent.toml"
    fragment.append(file, [sighted("10.0.0.2", mac="02:00:00:00:00:02")])
    moved = fragment.append(file, [sighted("10.0.0.77", mac="02-00-00-00-00-02")])
    assert moved.ids == ()
    twins = [sighted("10.1.0.6"), sighted("10.2.0.6")]
    assert fragment.append(file, twins).ids == ("s21-0-6", "s21-0-6-2")


def test_what_a_machine_says_of_itself_cannot_become_configuration(tmp_path, sighted):
    file = tmp_path / "agent.toml"
    evil = 'S21\n[pool]\nurl = "stratum+tcp://theirs:1"\r\n"""\u2028# '
    fragment.append(
        file,
        [sighted("10.0.0.2", model=evil, firmware=evil, mac='x"\n[pool]'), sighted("10.0.0.3")],
    )
    assert set(tomllib.loads(file.read_text())) == {"asics"}
    assert len(tomllib.loads(file.read_text())["asics"]) == 2


@pytest.mark.parametrize("text", ["not toml [", "asics = 3", "\xff"])
def test_a_file_that_is_not_toml_is_left_alone(tmp_path, sighted, text):
    file = tmp_path / "agent.toml"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(fragment.ConfigInvalid):
        fragment.append(file, [sighted("10.0.0.2")])
    assert file.read_bytes() == text.encode("latin-1")
