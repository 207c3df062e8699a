"""Power against time, for the eye: what a benchmark saw, kept as JSON and drawn as PNG.

Where WATTSHIFT_PLOT_DIR names a folder, a benchmark keeps its series there. They are drawn at once
where matplotlib is installed, and later from a folder brought from elsewhere:

    python benchmarks/plots.py FOLDER
"""

import importlib.util
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

FOLDER_VARIABLE = "WATTSHIFT_PLOT_DIR"
COLOURS = ("#0b5fa5", "#c2571a", "#3b7d3b", "#8a8a8a")
DARK, RED = "#444444", "#a02020"
SIZE_IN = (8.0, 4.2)
HEADROOM = 1.12
"""Above the highest line, for the words."""

DOTS_PER_IN = 130
FEW_SAMPLES = 120
"""Up to so many samples each gets a dot: a reader sees how often the meter looked."""


@dataclass(frozen=True, slots=True)
class Line:
    """One series; `at_s` from the picture's time 0, `watts_w` None where it was not known.

    Attributes:
        label: what a reader is told it is.
        held: drawn as steps, as a meter that holds its value; False for straight lines.
    """

    label: str
    at_s: Sequence[float]
    watts_w: Sequence[float | None]
    held: bool = True


@dataclass(frozen=True, slots=True)
class Picture:
    """One drawing.

    Attributes:
        name: of its files, without suffix; "yield", "step" and "steady" are known by that.
        title: what is shown, and on what device.
        quality: "measured", "emulated" or "modelled"; it stands in the title.
        lines: the series.
        levels_w: horizontal lines by their label, W.
        moments_s: vertical lines by their label, s.
    """

    name: str
    title: str
    quality: str
    lines: Sequence[Line]
    levels_w: Mapping[str, float] = field(default_factory=dict)
    moments_s: Mapping[str, float] = field(default_factory=dict)


def wanted() -> Path | None:
    """The folder that pictures go to; None where nobody asked for any."""
    folder = os.environ.get(FOLDER_VARIABLE)
    return Path(folder) if folder else None


def keep(pictures: Sequence[Picture]) -> list[str]:
    """Write the series, and draw them where that is possible; the files' names.

    Nothing is written where nobody asked for pictures.
    """
    folder = wanted()
    if folder is None:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    drawable = importlib.util.find_spec("matplotlib") is not None
    made = []
    for picture in pictures:
        data = folder / f"{picture.name}.json"
        data.write_text(json.dumps(asdict(picture)) + "\n", encoding="utf-8")
        made.append(data.name)
        if drawable:
            made.append(draw(picture, folder).name)
    return made


def read(path: Path) -> Picture:
    """A picture that was kept. Raises: OSError, ValueError, KeyError, TypeError."""
    fields = json.loads(path.read_text(encoding="utf-8"))
    lines = [Line(**line) for line in fields.pop("lines")]
    return Picture(**fields, lines=lines)


def draw(picture: Picture, folder: Path) -> Path:
    """Draw one picture; where it lies."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=SIZE_IN, layout="constrained")
    for line, colour in zip(picture.lines, COLOURS, strict=False):
        watts_w = [float("nan") if value is None else value for value in line.watts_w]
        marker = "." if len(line.at_s) <= FEW_SAMPLES else ""
        style = "steps-post" if line.held else "default"
        axes.plot(
            line.at_s, watts_w, color=colour, lw=1.4, marker=marker, label=line.label, ds=style
        )
    for label, level_w in picture.levels_w.items():
        axes.axhline(level_w, color=DARK, lw=0.9, ls="--")
        _note(axes, f"{label}: {level_w:.0f} W", (1.0, level_w), ("axes fraction", "data"), DARK)
    for label, at_s in picture.moments_s.items():
        axes.axvline(at_s, color=RED, lw=0.9, ls=":")
        _note(axes, label, (at_s, 1.0), ("data", "axes fraction"), RED)
    axes.set_title(f"{picture.title} ({picture.quality})", fontsize=10.5)
    axes.set_xlabel("time, s")
    axes.set_ylabel("power, W")
    axes.set_ylim(bottom=0, top=axes.get_ylim()[1] * HEADROOM)
    axes.grid(alpha=0.25)
    axes.legend(loc="best", fontsize=8.5, framealpha=0.9)
    path = folder / f"{picture.name}.png"
    figure.savefig(path, dpi=DOTS_PER_IN)
    pyplot.close(figure)
    return path


def _note(
    axes: Any, text: str, at: tuple[float, float], units: tuple[str, str], colour: str
) -> None:
    """A word beside its line: inside the picture, whichever edge it stands at."""
    at_right = units[0] == "axes fraction"
    axes.annotate(
        text,
        at,
        xycoords=units,
        xytext=(-4, 4) if at_right else (4, -11),
        textcoords="offset points",
        ha="right" if at_right else "left",
        color=colour,
        fontsize=8.5,
    )


def main(arguments: Sequence[str]) -> int:
    """Draw every picture whose series lie in a folder."""
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    folder = Path(arguments[0])
    for data in sorted(folder.glob("*.json")):
        print(draw(read(data), folder))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
