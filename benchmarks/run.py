"""Run one benchmark and hold its figures to their bars: `./dev bench NAME [-o json]`.

A benchmark is a module `benchmarks/NAME.py` (dashes become underscores) with `run() -> dict`; the
other modules there are parts of benchmarks. It raises `CannotRunHere` where the machine lacks what
it needs. The last line of stdout is one JSON object; everything else goes to stderr. Exit codes: 0
all bars held, 1 a bar missed, 2 no such benchmark, 3 it cannot run here.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
import re
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
BARS = FOLDER / "bars.toml"
HAS_RUN = re.compile(r"^def run\(", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Bar:
    """What one figure must hold: at least `least`, at most `most`; and why that much.

    Dots in `figure` lead into tables within the figures.

    `backend` limits it to figures of that backend; None holds for all.
    """

    figure: str
    reason: str
    least: float | None = None
    most: float | None = None
    backend: str | None = None

    def concerns(self, figures: Mapping[str, object]) -> bool:
        """Whether these figures are held to this bar."""
        return self.backend is None or figures.get("backend") == self.backend

    def missed_by(self, figures: Mapping[str, object]) -> str | None:
        """Why `figures` miss this bar; None when they hold it. An unknown figure misses it."""
        value = _at(figures, self.figure)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
            return f"{self.figure} is unknown"
        if self.least is not None and value < self.least:
            return f"{self.figure} = {value:.4g}, bar: at least {self.least:g} ({self.reason})"
        if self.most is not None and value > self.most:
            return f"{self.figure} = {value:.4g}, bar: at most {self.most:g} ({self.reason})"
        return None


def main(arguments: Sequence[str]) -> int:
    """The command; see the module's docstring for its exit codes."""
    parser = argparse.ArgumentParser(prog="./dev bench", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("name", choices=available())
    parser.add_argument("-o", "--output", choices=("json", "table"), default="table")
    options = parser.parse_args(arguments)

    from benchmarks.cannot import CannotRunHere

    bars: Sequence[Bar] = read_bars(BARS).get(options.name, ())
    module = importlib.import_module(f"benchmarks.{options.name.replace('-', '_')}")
    # Native libraries write to descriptor 1 behind Python's back: it is stderr from here on, and
    # the figures go to a copy of the real one.
    sys.stdout.flush()
    result = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        figures: dict[str, object] = module.run()
    except CannotRunHere as why:
        print(f"bench {options.name}: cannot run here: {why}", file=sys.stderr)
        return 3
    bars = [bar for bar in bars if bar.concerns(figures)]
    missed = [text for bar in bars if (text := bar.missed_by(figures)) is not None]
    report(options.name, figures, bars, missed, table=options.output == "table")
    result.write(json.dumps(figures) + "\n")
    result.close()
    return 1 if missed else 0


def available() -> list[str]:
    """The names of all benchmarks: of the modules here that have a `run`."""
    modules = (path for path in FOLDER.glob("*.py") if HAS_RUN.search(path.read_text("utf-8")))
    return sorted(path.stem.replace("_", "-") for path in modules)


def read_bars(path: Path) -> dict[str, tuple[Bar, ...]]:
    """The bars of every benchmark, by its name. A key is `figure`, or `figure@backend`."""
    with path.open("rb") as file:
        tables = tomllib.load(file)
    return {
        name: tuple(_bar(key, **bar) for key, bar in figures.items())
        for name, figures in tables.items()
    }


def _bar(key: str, **fields: Any) -> Bar:
    figure, _, backend = key.partition("@")
    return Bar(figure, backend=backend or None, **fields)


def _at(figures: Mapping[str, object], path: str) -> object:
    found: object = figures
    for key in path.split("."):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def report(
    name: str,
    figures: Mapping[str, object],
    bars: Sequence[Bar],
    missed: Sequence[str],
    *,
    table: bool,
) -> None:
    """What a person wants to read, on stderr."""
    if table:
        for key, value in figures.items():
            text = f"{value:.4g}" if isinstance(value, float) else str(value)
            print(f"  {key:<28} {text}", file=sys.stderr)
    for text in missed:
        print(f"bench {name}: bar missed: {text}", file=sys.stderr)
    print(f"bench {name}: {len(bars) - len(missed)} of {len(bars)} bars held", file=sys.stderr)


if __name__ == "__main__":
    sys.path[0] = str(FOLDER.parent)
    sys.exit(main(sys.argv[1:]))
