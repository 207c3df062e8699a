"""Whole fleets: the mix, the addresses, shards, the truth port's switches, the command line."""

import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from collections import Counter
from contextlib import contextmanager

import pytest
from tests.ports import own_address, own_net

from wattshift_cluster.config.load import load_agent
from wattshift_cluster.emulate import process
from wattshift_cluster.emulate.fleet_file import (
    EmulatorConfig,
    agent_fragment,
    fleet,
    from_flag,
    from_text,
    mix_of,
)

WATTSHIFT = (
    sys.executable,
    "-c",
    "from wattshift_cluster.cli.main import COMMANDS, main\n"
    "COMMANDS.setdefault('emulate', ('emulate', 'emulate', ''))\n"
    "main()",
    "emulate",
    "asic",
)


def net():
    """A /24 of this test's own."""
    return f"{own_net()}.0/24"


@contextmanager
def running(*words):
    child = subprocess.Popen(
        [*WATTSHIFT, "--truth", "127.0.0.1:0", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield child, json.loads(child.stdout.readline())
    finally:
        if child.poll() is None:
            child.terminate()
        child.communicate(timeout=20)


def get(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)


def post(url, body):
    return get(urllib.request.Request(url, data=json.dumps(body).encode(), method="POST"))


def failed(*words, prefix=()):
    return subprocess.run(
        [*prefix, *WATTSHIFT, "--truth", "127.0.0.1:0", *words],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def drawn(seed, count=50):
    mix = mix_of("luxos:40,whatsminer:30")
    return fleet(count, mix, "127.30.0.0/23", seed=seed, start="full", feeders=3)


def test_a_fleet_has_its_mix_and_addresses_that_clients_take_for_hosts():
    machines = drawn(1, 300)
    assert Counter(machine.kind for machine in machines) == {"luxos": 171, "whatsminer": 129}
    addresses = [machine.address for machine in machines]
    assert addresses[0] == "127.30.0.1"
    assert addresses[253:255] == ["127.30.0.254", "127.30.1.1"]
    assert Counter(machine.feeder for machine in machines) == dict.fromkeys(
        ("feeder-1", "feeder-2", "feeder-3"), 100
    )
    assert len({machine.seed for machine in machines}) == 300
    assert EmulatorConfig.of(machines)


def test_the_same_seed_gives_the_same_fleet():
    assert drawn(5) == drawn(5)
    assert [m.kind for m in drawn(5)] != [m.kind for m in drawn(6)]


@pytest.mark.parametrize(
    ("text", "said"),
    [("luxos:0", "share"), ("abacus:1", "no such kind"), ("luxos:1,luxos:2", "once"), ("", "kind")],
)
def test_a_wrong_mix_is_said(text, said):
    with pytest.raises(ValueError, match=said):
        mix_of(text)


def test_a_net_too_small_or_not_on_loopback_is_said():
    with pytest.raises(ValueError, match="room for 254"):
        fleet(255, {"luxos": 1.0}, "127.30.0.0/24", seed=1, start="full")
    with pytest.raises(ValueError, match="127"):
        fleet(1, {"luxos": 1.0}, "10.0.0.0/24", seed=1, start="full")


def test_shards_hold_every_machine_once_and_passwords_reach_only_the_child():
    rows = [machine.model_dump(exclude_none=True) for machine in drawn(1, 10)]
    rows[0]["password"] = "opensesame"
    config = EmulatorConfig.of(from_text(json.dumps({"machines": rows}).encode()))
    assert "opensesame" not in repr(config)
    parts = config.shards(4)
    assert Counter(m.id for part in parts for m in part.machines) == Counter(r["id"] for r in rows)
    child = EmulatorConfig.of(from_text(parts[0].to_json().encode()))
    assert child == parts[0]
    assert child.machines[0].password.get_secret_value() == "opensesame"
    with pytest.raises(ValueError, match="password") as wrong:
        from_text(json.dumps({"machines": [rows[1] | {"password": {"a": "hunter2"}}]}).encode())
    assert "hunter2" not in str(wrong.value)


def test_a_fragment_is_what_an_agent_reads(tmp_path):
    machines = drawn(1, 3)
    fragment = agent_fragment(machines)
    hung = [one.model_copy(update={"feeder": "row\n2"}) for one in machines]
    assert agent_fragment(hung).splitlines()[0] == '[[asics]]  # feeder "row\\n2"'
    assert tomllib.loads(agent_fragment(hung)) == tomllib.loads(fragment)
    assert tomllib.loads(fragment)["asics"][2] == {
        "id": machines[2].id,
        "address": machines[2].address,
        "emulated": True,
    }
    (tmp_path / "t").write_text("x" * 32)
    (tmp_path / "agent.toml").write_text(
        '[agent]\nname = "a"\nlisten = "127.0.0.1:7000"\nstate_dir = "s"\ntoken_file = "t"\n'
        'gate_dir = "g"\n' + fragment
    )
    agent = load_agent(tmp_path / "agent.toml")
    assert [asic.address for asic in agent.asics] == [machine.address for machine in machines]


def test_one_fleet_from_the_command_line_with_all_its_switches(tmp_path):
    file = tmp_path / "asics.toml"
    flags = ("--fleet", "40", "--mix", "luxos:1,whatsminer:1", "--net", net(), "--feeders", "2")
    with running(*flags, "--write", str(file)) as (child, ready):
        url = f"http://{ready['truth']}"
        assert ready["machines"] == 40
        assert len(tomllib.loads(file.read_text())["asics"]) == 40
        totals = get(f"{url}/v1/totals")
        assert {name: row["machines"] for name, row in totals["feeders"].items()} == {
            "feeder-1": 20,
            "feeder-2": 20,
        }
        assert totals["watts_w"] == pytest.approx(20 * 2794 + 20 * 3441 * 0.992, rel=0.02)
        assert sum(row["watts_w"] for row in totals["feeders"].values()) == pytest.approx(
            totals["watts_w"]
        )

        struck = post(f"{url}/v1/faults", {"share": 0.1, "seed": 3, "fault": "mute"})["ids"]
        assert len(struck) == 4
        rows = get(f"{url}/v1/truth")["machines"]
        assert {row["id"] for row in rows if row["fault"] == "mute"} == set(struck)
        post(f"{url}/v1/faults", {"ids": struck, "fault": "none"})
        assert {row["fault"] for row in get(f"{url}/v1/truth")["machines"]} == {"none"}

        assert post(f"{url}/v1/outlets", {"id": "asic-01", "on": False})["on"] is False
        rows = {row["id"]: row for row in get(f"{url}/v1/truth")["machines"]}
        assert rows["asic-01"]["watts_w"] == 0.0
        assert (rows["asic-01"]["outlet"], rows["asic-01"]["phase"]) == (False, "off")
        assert (rows["asic-02"]["outlet"], rows["asic-02"]["feeder"]) == (True, "feeder-2")
        assert post(f"{url}/v1/outlets", {"id": "asic-01", "on": True})["on"] is True
        post(f"{url}/v1/ambient", {"ids": ["asic-02"], "ambient_c": 50.0})
        rows = {row["id"]: row for row in get(f"{url}/v1/truth")["machines"]}
        assert rows["asic-02"]["hashrate_h_per_s"] == 0.0

        for path, body, status in (
            ("faults", {"ids": ["asic-01", "nobody"], "fault": "mute"}, 404),
            ("faults", {"fault": "mute"}, 400),
            ("faults", {"id": "asic-01", "ids": [], "fault": "mute"}, 400),
            ("faults", {"id": "asic-01", "fault": "slow", "seconds": "long"}, 400),
            ("faults", {"id": "asic-01", "fault": "slow", "seconds": 1e9}, 400),
            ("faults", {"id": "asic-01", "fault": "mute", "maybe": 1}, 400),
            ("faults", {"id": "asic-01", "fault": "other_identity", "as": "nobody"}, 404),
            ("faults", {"share": 2, "fault": "mute"}, 400),
            ("outlets", {"id": "asic-01", "on": "yes"}, 400),
            ("ambient", {"id": "asic-01"}, 400),
        ):
            with pytest.raises(urllib.error.HTTPError) as refused:
                post(f"{url}/v1/{path}", body)
            assert refused.value.code == status, body
            refused.value.close()
        assert {row["fault"] for row in get(f"{url}/v1/truth")["machines"]} == {"none"}
        child.send_signal(signal.SIGINT)
        assert child.wait(10) == 0


def gone(where):
    host, port = where.rsplit(":", 1)
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
        except OSError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["told", "killed"])
def test_shards_come_up_together_and_end_together(how):
    flags = ("--fleet", "8", "--mix", "luxos", "--net", net(), "--shards", "2")
    with running(*flags) as (child, ready):
        assert (ready["machines"], len(ready["truths"])) == (8, 2)
        seen = [
            row for where in ready["truths"] for row in get(f"http://{where}/v1/truth")["machines"]
        ]
        assert len({row["address"] for row in seen}) == 8
        for row in seen:
            socket.create_connection((row["address"], 4028), timeout=5).close()
        child.send_signal(how)
        assert child.wait(15) == (0 if how is signal.SIGTERM else -signal.SIGKILL)
        assert all(gone(where) for where in ready["truths"])


def test_a_shard_that_cannot_listen_ends_all():
    net = own_net()
    host = f"{net}.2"
    with socket.create_server((host, 4028)):
        done = failed("--fleet", "4", "--mix", "luxos", "--net", f"{net}.0/24", "--shards", "2")
    assert done.returncode == 1
    assert f"cannot listen on {host}" in done.stderr
    assert done.stdout == ""


def test_too_few_open_files_are_said_with_the_remedy():
    if shutil.which("prlimit") is None:
        pytest.skip("no prlimit here to lower the limit of open files with")
    flags = ("--fleet", "100", "--mix", "luxos", "--net", net())
    done = failed(*flags, prefix=("prlimit", "--nofile=512:512"))
    assert done.returncode == 1
    assert "need 612 open files, the hard limit is 512" in done.stderr
    assert "--shards" in done.stderr
    assert done.stdout == ""


def test_a_forbidden_port_is_said_with_the_command_that_mends_it():
    denied = OSError(errno.EACCES, "Permission denied")
    assert "sudo sysctl net.ipv4.ip_unprivileged_port_start=80" in process.refusal(denied, "x")
    setpriv = shutil.which("setpriv")
    with open("/proc/sys/net/ipv4/ip_unprivileged_port_start") as file:
        if int(file.read()) <= 80 or setpriv is None:
            pytest.skip("everybody may bind port 80 here, or there is no setpriv")
    drop = ("setpriv", "--bounding-set=-net_bind_service", "--inh-caps=-net_bind_service")
    done = failed(
        "--machine",
        f"antminer@{own_address()}",
        prefix=drop if os.getuid() == 0 else (),
    )
    assert done.returncode == 1
    assert "sudo sysctl net.ipv4.ip_unprivileged_port_start=80" in done.stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((), 2, "give --fleet"),
        (("--fleet", "0"), 2, "--fleet"),
        (("--fleet", "3", "--mix", "abacus"), 3, "no such kind"),
        (("--fleet", "3", "--net", "10.0.0.0/8"), 3, "127.0.0.0/8"),
        (("--machine", "luxos@127.30.0.1,x"), 3, "seed"),
        (("--machine", "luxos@127.30.0.1,1,full,more"), 3, "wanted KIND@ADDRESS"),
        (("--fleet", "3", "--truth", "0.0.0.0:1"), 3, "127.a.b.c"),
        (("--config", "/nonexistent.json"), 3, "nonexistent"),
    ],
)
def test_a_wrong_command_line_starts_nothing(words, code, said):
    from click.testing import CliRunner

    from wattshift_cluster.cli import main as cli

    cli.COMMANDS.setdefault("emulate", ("emulate", "emulate", ""))
    done = CliRunner().invoke(cli.main, ["emulate", "asic", *words])
    assert done.exit_code == code, done.output
    assert said in done.stderr


def test_a_flag_takes_defaults():
    machine = from_flag("luxos@127.30.0.1", 3)
    assert (machine.id, machine.seed, machine.start) == ("asic-3", 3, "sleep")
    assert from_flag("luxos@127.30.0.1,9,full", 3).start == "full"
