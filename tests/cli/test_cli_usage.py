"""Help, usage errors, start-up time, doctor, config and signals, in real processes."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import Result

from wattshift_cluster.cli.main import COMMANDS, main

Command = Callable[..., Result]
SITE = """
[site]
name = "yard"
state_dir = "state"
[[feeders]]
name = "root"
limit = "14kW"
[api]
listen = "127.0.0.1:{port}"
"""


def every_command() -> Iterator[tuple[str, ...]]:
    """Yield the words of every command and subcommand, hidden ones too."""
    for name in COMMANDS:
        yield (name,)
        command = main.get_command(click.Context(main), name)
        if isinstance(command, click.Group):
            yield from ((name, inner) for inner in command.commands)


ALL = list(every_command())


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_help_of_every_command(wattshift: Command, words: tuple[str, ...]) -> None:
    result = wattshift(*words, "-h")
    assert result.exit_code == 0, result.output
    head, _, options = result.stdout.partition("Options:")
    visible = " ".join(word for word in words if word != "file")
    assert f"  wattshift {visible}" in head, "an example comes before the options"
    assert options


def test_the_promised_commands_exist() -> None:
    promised = (
        "up demo agent submit jobs job status top explain cap event token doctor config simulate"
        " version fleet busy emulate commission pool economics load node purge"
        " report verify plan"
    )
    assert set(promised.split()) == set(COMMANDS)
    assert {("job", action) for action in ("show", "pause", "resume", "cancel", "logs")} <= set(ALL)


@pytest.mark.parametrize(
    "args",
    [
        ["nothing"],
        ["status", "-o", "xml"],
        ["cap", "set", "10parsecs"],
        ["cap", "set", "-5W"],
        ["cap", "set", "8kW", "--for", "1h", "--until", "2h"],
        ["submit", "batsh"],
        ["submit", "batch", "--name", "x"],
        ["jobs", "--state", "asleep"],
        ["demo", "--seconds", "soon"],
        ["plan", "--hours", "nan"],
        ["top", "--interval", "nan"],
        ["simulate", "site.toml", "--days", "nan"],
        ["load", "http://127.0.0.1:1", "--rate", "nan"],
    ],
    ids=" ".join,
)
def test_usage_errors_end_with_2(wattshift: Command, args: list[str]) -> None:
    result = wattshift(*args)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert "Error" in result.stderr


def test_a_slip_is_answered_with_a_suggestion(wattshift: Command) -> None:
    assert "status" in wattshift("statsu").stderr


def test_a_dry_run_needs_no_controller(wattshift: Command) -> None:
    result = wattshift("submit", "mining", "--devices", "*", "--dry-run", "-o", "json")
    assert json.loads(result.stdout)["devices"] == ["*"]


def test_help_loads_no_subcommand_and_is_quick() -> None:
    code = (
        "import sys\nfrom wattshift_cluster.cli.main import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print(*sorted(m for m in sys.modules if m.startswith('wattshift_cluster.cli')"
        " or m in ('httpx2', 'rich', 'pydantic', 'numpy', 'ray')), file=sys.stderr)"
    )
    started_s = time.monotonic()
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    took_s = time.monotonic() - started_s
    assert run.stderr.split() == ["wattshift_cluster.cli", "wattshift_cluster.cli.main"]
    assert took_s < 3, "0.1 s on an idle machine"


def test_the_controller_is_found_by_its_runtime_file(
    wattshift: Command, served: Any, tmp_path: Path
) -> None:
    from wattshift_cluster import client

    token_file = tmp_path / "admin.token"
    token_file.write_text(served.secrets["admin"] + "\n")
    path = client.write_runtime(served.url, token_file, tmp_path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert wattshift("status").exit_code == 0
    other = wattshift("status", "--url", served.url.replace("127.0.0.1", "localhost"))
    assert other.exit_code == 6, "the token goes only to the address that the file names"
    path.chmod(0o644)
    assert "not private" in wattshift("status").stderr
    path.chmod(0o600)
    client.remove_runtime("http://127.0.0.1:9")
    assert path.exists()
    client.remove_runtime(served.url)
    assert not path.exists()
    assert wattshift("status", "--url", "http://127.0.0.1:1").exit_code == 5


@pytest.mark.parametrize("command", [["status", "--watch"], ["jobs", "--watch"]], ids=" ".join)
def test_watching_streams_lines_until_ctrl_c(served: Any, command: list[str]) -> None:
    env = {**os.environ, "WATTSHIFT_URL": served.url, "WATTSHIFT_TOKEN": served.secrets["viewer"]}
    code = "from wattshift_cluster.cli.main import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", code, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        os.set_blocking(process.stdout.fileno(), False)
        event = "site" if command[0] == "status" else "job"
        line, deadline_s = "", time.monotonic() + 20
        while not line.endswith("\n"):
            assert time.monotonic() < deadline_s, process.stderr.read()
            served.port.publish(event, {"state": "running", "n": 7})
            time.sleep(0.1)
            line += process.stdout.readline() or ""
        assert json.loads(line)["n"] == 7
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert process.stderr.read() == "wattshift: interrupted\n"


def test_a_question_that_nobody_answers_names_the_way_without_it(wattshift: Command) -> None:
    unasked = wattshift("node", "drain", "gpu-1")
    assert unasked.exit_code == 130
    assert "not confirmed, nothing was done; --yes does not ask" in unasked.stderr


def site_file(folder: Path, port: int = 0, more: str = "") -> Path:
    path = folder / "site.toml"
    path.write_text(SITE.format(port=port or 18999) + more)
    return path


def test_config_check_show_and_schema(
    wattshift: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = site_file(tmp_path)
    assert wattshift("config", "check", path).stdout.endswith("valid\n")
    monkeypatch.setenv("WATTSHIFT_SITE__LEASE_TTL", "20s")
    rows = json.loads(wattshift("config", "show", path, "-o", "json").stdout)
    sources = {row["path"]: row["source"] for row in rows}
    assert sources["site.name"] == "file"
    assert sources["site.lease_ttl"] == "environment"
    assert sources["site.tick"] == "default"
    for kind in ("site", "agent", "job"):
        assert "$defs" in json.loads(wattshift("config", "schema", kind).stdout)
    path.write_text(path.read_text().replace("14kW", "-14kW") + "colour = 3\n")
    wrong = wattshift("config", "check", path)
    assert (wrong.exit_code, wrong.stdout) == (3, "")
    assert wrong.stderr.count("site.toml: ") == 2
    assert wattshift("config", "check", tmp_path / "none.toml").exit_code == 3


def test_doctor_on_a_sound_machine(wattshift: Command, tmp_path: Path) -> None:
    result = wattshift("doctor", "--quick", site_file(tmp_path), "-o", "json")
    found = {row["check"]: row for row in json.loads(result.stdout)}
    assert {"python", "ray", "driver", "kernels", "shm", "disk", "ports", "config"} <= set(found)
    assert result.exit_code == 0, result.stdout
    assert found["kernels"]["level"] == "ok"
    assert found["controller"]["level"] == "warn"
    assert found["controller"]["mend"] == "wattshift up site.toml"


def test_doctor_says_which_port_is_taken(wattshift: Command, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        text = wattshift("doctor", "--quick", site_file(tmp_path, port)).stdout
    assert f"in use: api 127.0.0.1:{port}" in text
    assert "mend: ss -ltnp" in text


def test_doctor_fails_on_a_wrong_site_file(wattshift: Command, tmp_path: Path) -> None:
    result = wattshift("doctor", "--quick", site_file(tmp_path, more="[sitt]\n"))
    assert result.exit_code == 1
    assert f"mend: wattshift config check {tmp_path}" in result.stdout


def test_doctor_knows_a_running_controller(wattshift: Command, reach: Any, tmp_path: Path) -> None:
    port = int(reach.url.rsplit(":", 1)[1])
    result = wattshift("doctor", "--quick", site_file(tmp_path, port), "-o", "json")
    found = {row["check"]: row for row in json.loads(result.stdout)}
    assert "runs yard-7" in found["controller"]["text"]
    assert found["clock"]["level"] == "ok"
    assert "in use by the running site" in found["ports"]["text"]


def test_version(wattshift: Command) -> None:
    assert json.loads(wattshift("version", "-o", "json").stdout)["python"].startswith("3.")


@pytest.mark.parametrize("command", [["up"], ["agent"], ["simulate"]], ids=" ".join)
def test_a_missing_file_starts_nothing(wattshift: Command, command: list[str]) -> None:
    result = wattshift(*command, "/nowhere/site.toml")
    assert (result.exit_code, result.stdout) == (3, "")
    assert "/nowhere/site.toml: cannot be read" in result.stderr


def test_simulate_prints_and_writes_rows(wattshift: Command, tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    args = ("--days", "0.02", "--seed", "4", "--rows", rows, "-o", "json")
    result = wattshift("simulate", site_file(tmp_path), *args)
    assert result.exit_code == 0, result.output
    view = json.loads(result.stdout)
    assert (view["seed"], view["breaches"], view["quality"]) == (4, [], "modelled")
    assert rows.read_text().startswith("at_s,cap_w,total_w")
