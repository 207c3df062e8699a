"""The benchmark runner: what is printed where, bars held and missed, and what cannot run."""

import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_SPEC = importlib.util.spec_from_file_location("bench_runner", ROOT / "benchmarks" / "run.py")
assert _SPEC is not None
assert _SPEC.loader is not None
runner = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = runner  # dataclasses look their module up
_SPEC.loader.exec_module(runner)
Bar, BARS, available, read_bars = runner.Bar, runner.BARS, runner.available, runner.read_bars
RATIO = Bar("ratio", "why", least=4.0)


def bench(folder: Path, name: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(folder / "benchmarks" / "run.py"), name, "-o", "json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A benchmarks folder with the real runner and modules of this test."""
    here = tmp_path / "benchmarks"
    here.mkdir()
    for name in ("run.py", "cannot.py"):
        (here / name).write_text((ROOT / "benchmarks" / name).read_text())
    (here / "bars.toml").write_text('[two-words]\nratio = { least = 4, reason = "since four" }\n')
    (here / "two_words.py").write_text(
        "import ctypes, os\n"
        "def run():\n"
        "    print('talk')\n"
        "    os.write(1, b'shout')\n"
        "    ctypes.CDLL(None).printf(b'native')\n"
        "    return {'ratio': 3.0}\n"
    )
    (here / "part.py").write_text("def run_not():\n    pass\n")
    (here / "fine.py").write_text("def run():\n    return {'a': [1, None]}\n")
    (here / "nowhere.py").write_text(
        "from benchmarks.cannot import CannotRunHere\n"
        "def run():\n    raise CannotRunHere('no GPU')\n"
    )
    return tmp_path


def test_the_last_line_is_the_figures_and_a_missed_bar_fails(folder: Path) -> None:
    done = bench(folder, "two-words")
    assert done.returncode == 1
    assert done.stdout.splitlines() == ['{"ratio": 3.0}']
    assert all(word in done.stderr for word in ("talk", "shout", "native"))
    assert "at least 4 (since four)" in done.stderr


def test_without_bars_it_only_reports(folder: Path) -> None:
    done = bench(folder, "fine")
    assert (done.returncode, json.loads(done.stdout)) == (0, {"a": [1, None]})


def test_what_cannot_run_here_says_why(folder: Path) -> None:
    done = bench(folder, "nowhere")
    assert (done.returncode, done.stdout) == (3, "")
    assert "no GPU" in done.stderr


def test_an_unknown_benchmark_is_a_usage_error(folder: Path) -> None:
    done = bench(folder, "none")
    assert done.returncode == 2
    assert "fine" in done.stderr


def test_a_part_of_benchmarks_is_none(folder: Path) -> None:
    assert bench(folder, "part").returncode == 2
    assert not {"run", "cannot", "rig", "plots", "on-gpu"} & set(available())
    assert {"gate", "interference", "response"} <= set(available())


def test_a_bar_of_one_backend_is_asked_of_that_backend_alone(folder: Path) -> None:
    bars = '[two-words]\n"ratio@cuda" = { least = 4, reason = "only a GPU does" }\n'
    (folder / "benchmarks" / "bars.toml").write_text(bars)
    body = "def run():\n    return {'backend': 'BACKEND', 'ratio': 3.0}\n"
    module = folder / "benchmarks" / "two_words.py"
    for backend, code in (("numba", 0), ("cuda", 1)):
        module.write_text(body.replace("BACKEND", backend))
        assert bench(folder, "two-words").returncode == code


@pytest.mark.parametrize("value", [None, "9", math.nan, True])
def test_an_unknown_figure_misses_its_bar(value: object) -> None:
    assert RATIO.missed_by({"ratio": value}) is not None
    assert RATIO.missed_by({}) is not None


def test_bars_are_inclusive() -> None:
    assert RATIO.missed_by({"ratio": 4.0}) is None
    assert Bar("x", "why", most=1.0).missed_by({"x": 1}) is None
    assert Bar("x", "why", most=1.0).missed_by({"x": 1.01}) is not None


def test_a_dot_leads_into_a_table_of_figures() -> None:
    bar = Bar("worst.plain.spills", "why", most=0)
    assert bar.missed_by({"worst": {"plain": {"spills": 0}}}) is None
    assert bar.missed_by({"worst": {"plain": {"spills": 8}}}) is not None
    assert bar.missed_by({"worst": {"plain": 0}}) is not None
    assert bar.missed_by({"worst.plain.spills": 0}) is not None


def test_every_bar_has_a_benchmark_and_a_reason() -> None:
    bars = read_bars(BARS)
    assert set(bars) <= set(available())
    for name, rows in bars.items():
        for bar in rows:
            assert (bar.least is None) != (bar.most is None), (name, bar.figure)
            assert len(bar.reason) > 10
