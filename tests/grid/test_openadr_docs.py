"""docs/openadr.md says what the code does: its tables are the code's, its files are valid, and its
commands are there. That they also show what the page says is played in full at night."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click
import pytest
from tests.ports import free_port

from wattshift_cluster.cli.main import main
from wattshift_cluster.config.site import SiteConfig
from wattshift_cluster.grid.openadr.meanings import MEANINGS
from wattshift_cluster.grid.openadr.readings import ANSWERS
from wattshift_cluster.grid.vtn.script import read_script

PAGE = (Path(__file__).parents[2] / "docs" / "openadr.md").read_text()
HOST = "127.71.8.1"
ENV = dict(os.environ)
ROW = re.compile(r"\| `(\w+)` \| (\w+) \| (.+) \|")


def table(first_column: str) -> Mapping[str, tuple[str, str]]:
    """The rows of the table whose first column is called so."""
    _, below = PAGE.split(f"| {first_column} |", 1)
    rows = below.split("\n\n", 1)[0].splitlines()[2:]
    found = [ROW.fullmatch(row) for row in rows]
    assert all(found), rows
    return {one[1]: (one[2], one[3]) for one in found if one is not None}


def fenced(language: str) -> list[str]:
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return [body for told, body in blocks if told == language]


def test_the_page_tells_what_each_payload_becomes() -> None:
    assert table("payload type") == {
        name: (str(one.becomes), one.why) for name, one in MEANINGS.items()
    }


def test_the_page_tells_what_each_report_is_answered_with() -> None:
    assert table("report type") == {
        name: (str(one.told), one.why or ", ".join(one.units) or "-")
        for name, one in ANSWERS.items()
    }


def test_the_site_file_and_the_script_of_the_dry_run_are_valid(tmp_path: Path) -> None:
    sites = [text for text in fenced("toml") if "[site]" in text]
    scripts = fenced("yaml")
    assert (len(sites), len(scripts)) == (1, 1)
    file = tmp_path / "cut.yaml"
    file.write_text(scripts[0])
    steps = read_script(file)
    assert [step.event["eventName"] for step in steps if step.event is not None] == ["cut"]
    site = SiteConfig.model_validate(tomllib.loads(sites[0]))
    assert site.openadr[0].webhook is not None


def test_every_section_that_is_shown_is_taken() -> None:
    bare = {
        "site": {"name": "x", "state_dir": "state"},
        "feeders": [{"name": "main", "limit": "30MW"}],
    }
    for text in fenced("toml"):
        SiteConfig.model_validate({**bare, **tomllib.loads(text)})


def lines_of(block: str) -> list[list[str]]:
    """The command lines of a block, without their comments."""
    found = [shlex.split(line, comments=True) for line in block.splitlines()]
    return [line for line in found if line]


def found_in(line: list[str]) -> tuple[click.Command, click.Context, list[str]]:
    """The command that a line calls, its parent's context, and what is left of the line."""
    program, *rest = line
    command: click.Command = main
    context = click.Context(main, info_name=program, **main.context_settings)
    while isinstance(command, click.Group) and rest:
        inner = command.get_command(context, rest[0])
        assert inner is not None, f"{' '.join(line)}: there is no {rest[0]}"
        command, rest = inner, rest[1:]
    return command, context, rest


def test_every_command_of_the_page_is_there_with_its_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("site.toml").touch()
    shown = [line for block in fenced("") for line in lines_of(block)]
    ours = [line for line in shown if line[0] == "wattshift"]
    assert {line[1] for line in ours} == {"emulate", "config", "up", "status", "explain", "cap"}
    assert [line for line in shown if line[0] != "wattshift"] == [["mosquitto", "-p", "1883"]]
    for line in ours:
        command, context, rest = found_in(line)
        command.make_context(line[-1], rest, parent=context)
    named = re.findall(r"`(wattshift [a-z ]+)`", PAGE)
    assert named
    for text in named:
        found_in(text.split())


STEP_S = 120.0


@contextmanager
def running(folder: Path, line: list[str], ready: str) -> Iterator[None]:
    """A command in the background, as in a terminal of its own, until Ctrl-C."""
    log = folder / f"{line[1]}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(ours(line), cwd=folder, env=ENV, stdout=out, stderr=out)
    try:
        until(lambda: ready in log.read_text(), f"{line}: {ready}")
        yield
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=STEP_S) in (0, 130), log.read_text()


def ours(line: list[str]) -> list[str]:
    return [sys.executable, "-m", "wattshift_cluster.cli", *line[1:]]


def until(holds: Callable[[], bool], what: str) -> None:
    ends_s = time.monotonic() + STEP_S
    while not holds():
        assert time.monotonic() < ends_s, f"not in {STEP_S} s: {what}"
        time.sleep(0.2)


@pytest.mark.nightly
@pytest.mark.timeout(300)
@pytest.mark.parametrize("by", ["webhook", "mqtt"])
def test_the_dry_run_shows_what_the_page_says(tmp_path: Path, by: str) -> None:
    """Every command of the page, in its order and by its script; the ports alone are others."""
    broker = shutil.which("mosquitto", path="/usr/sbin:/usr/bin")
    if by == "mqtt" and broker is None:
        pytest.skip("no mosquitto broker is installed")
    ENV["XDG_RUNTIME_DIR"] = str(tmp_path)
    at = {name: f"{HOST}:{free_port()}" for name in ("vtn", "hook", "api")}
    (tmp_path / "cut.yaml").write_text(fenced("yaml")[0])
    (site,) = (text for text in fenced("toml") if "[site]" in text)
    if by == "mqtt":
        site = site.split("[openadr.webhook]")[0].rstrip() + "\nmqtt = true\n"
    site = site.replace("127.0.0.1:8480", at["vtn"]).replace("127.0.0.1:8490", at["hook"])
    (tmp_path / "site.toml").write_text(f'{site}\n[api]\nlisten = "{at["api"]}"\n')
    (vtn,), (check, up), told, (_, with_broker) = (lines_of(b) for b in fenced(""))
    with ExitStack() as ending:
        if by == "mqtt":
            assert broker is not None
            port = free_port()
            (tmp_path / "broker.conf").write_text(
                f"listener {port} {HOST}\nallow_anonymous true\nuser root\n"
            )
            made = subprocess.Popen(
                [broker, "-c", str(tmp_path / "broker.conf")], stderr=subprocess.DEVNULL
            )
            ending.callback(made.wait, timeout=STEP_S)
            ending.callback(made.kill)
            vtn = [*with_broker[:-1], f"mqtt://{HOST}:{port}"]
        ending.enter_context(running(tmp_path, [*vtn, "--listen", at["vtn"]], '"ready": true'))

        def shows(line: list[str], words: str) -> None:
            def says() -> bool:
                done = subprocess.run(
                    ours(line), check=False, cwd=tmp_path, env=ENV, capture_output=True, timeout=99
                )
                return words in " ".join(done.stdout.decode().split())

            until(says, f"{' '.join(line)}: {words}")

        shows(check, "valid")
        ending.enter_context(running(tmp_path, up, "is up"))
        first, known, held, back, lost = told
        shows(first, "20.00 kW (grid-utility")
        shows(known, "curtailment: cut")
        shows(held, "9.00 kW")
        shows(first, "9.00 kW (grid-utility")
        shows(back, "20.00 kW (grid-utility")
        shows(lost, "grid-utility is not heard")
