"""`wattshift plan`: the table, the picture and the page, and what is said where there is none."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import Result

import wattshift_cluster.api
from wattshift_cluster.cli.plan_page import PRICE_TOP, price_scale
from wattshift_cluster.cli.plan_page import picture as svg_picture
from wattshift_cluster.cli.plan_rows import HOUR_S, shown
from wattshift_cluster.cli.plan_text import headline, next_words, picture, spark, table
from wattshift_cluster.errors import WattshiftError

Command = Callable[..., Result]
PAGE = Path(wattshift_cluster.api.__file__).parent / "page"


@pytest.fixture
def fake(reach: Any) -> Any:
    """How plans look here."""
    return sys.modules["fakeplan"]


def test_a_plan_in_every_form(wattshift: Command, reach: Any) -> None:
    view = json.loads(wattshift("plan", "-o", "json").stdout)
    assert len(view["rows"]) == 48, "twelve hours, unless asked"
    assert len(json.loads(wattshift("plan", "--all", "-o", "json").stdout)["rows"]) == 144
    text = wattshift("plan", "--hours", "24").stdout
    assert "current, optimal, at most 0.04 % below the best" in text
    assert "cap 800 kW: openadr dr-17" in text
    assert len([line for line in text.splitlines() if line.startswith("Mon ")]) == 24
    assert "Mon 06:15" in wattshift("plan", "--all").stdout
    assert "rows:\n- starts_at:" in wattshift("plan", "-o", "yaml").stdout


@pytest.mark.parametrize(
    ("state", "code", "words"),
    [("waiting", 75, "no plan yet"), ("failed", 75, "no plan yet"), ("off", 4, "no plan")],
)
def test_no_plan_is_said_and_ends_with_its_code(
    wattshift: Command, reach: Any, fake: Any, state: str, code: int, words: str
) -> None:
    reach.port.planned = fake.blank(state, "the sun has not risen")
    told = wattshift("plan")
    assert told.exit_code == code
    assert told.stderr == f"wattshift: {words}: the sun has not risen\n"
    assert told.stdout == ""
    as_json = wattshift("plan", "-o", "json")
    assert (as_json.exit_code, json.loads(as_json.stdout)["state"]) == (code, state)


def test_a_late_plan_is_shown_and_said(wattshift: Command, reach: Any, fake: Any) -> None:
    late = {"state": "late", "reason": "the last plan is 20 min old: the ladder alone decides"}
    reach.port.planned = fake.view(6.0) | late | {"unmet": ["night would be 2 h late"]}
    told = wattshift("plan")
    assert told.exit_code == 0
    assert "the ladder alone decides" in told.stdout
    assert "not met  night would be 2 h late" in told.stdout
    reach.port.planned = fake.view(0.0) | late
    assert wattshift("plan").exit_code == 75, "nothing of it lies ahead any more"


def test_a_batch_is_shown_with_what_a_mwh_of_it_is_worth(fake: Any) -> None:
    def told(*planned: dict[str, Any]) -> list[str]:
        rows = headline(fake.view() | {"batches": list(planned)})
        return [text for name, text in rows if name == "batch"]

    night = fake.view()["batches"][0]
    due = night | {"deadline_at": "2030-01-07T06:00:00.250Z"}
    owed = night | {"usd_per_mwh": None, "left_wh": 12.5}
    assert told(night, due, owed) == [
        "night needs 480.00 kWh; worth 42.50 USD/MWh now",
        "night needs 480.00 kWh by 2030-01-07T06:00:00Z; worth 42.50 USD/MWh now",
        "night needs 12.50 Wh",
    ]
    assert told() == []
    assert told(*[night] * 10)[8:] == ["and 2 more"]


def test_what_arithmetic_leaves_is_no_gap(fake: Any) -> None:
    def gap(share: float | None) -> str:
        return dict(headline(fake.view() | {"gap": share}))["plan"].partition(";")[0]

    assert gap(1.4e-16) == "current, optimal, at most 0.01 % below the best"
    assert gap(0.00123) == "current, optimal, at most 0.12 % below the best"
    assert gap(None) == "current, optimal"


def test_each_new_plan_is_a_line_of_json(
    wattshift: Command, reach: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wattshift_cluster.client import ControllerClient, StreamEvent

    told = [("site", {}), ("decision", {"action": "shed"}), ("decision", {"action": "plan"})]
    events = [StreamEvent(i, name, data) for i, (name, data) in enumerate(told)]
    monkeypatch.setattr(ControllerClient, "stream", lambda _self: iter(events))
    lines = wattshift("plan", "--watch", "--hours", "1").stdout.splitlines()
    assert [len(json.loads(line)["rows"]) for line in lines] == [4, 4]


def test_the_page_holds_a_picture_that_is_whole(
    wattshift: Command, reach: Any, tmp_path: Path
) -> None:
    told = wattshift("plan", "--all", "--html", str(tmp_path / "plan.html"))
    assert told.exit_code == 0
    page = (tmp_path / "plan.html").read_text()
    svg = page[page.index("<svg") : page.index("</svg>") + 6]
    assert "http" not in page, "it needs no network"
    assert "ERS &lt;summer&gt;" in svg
    assert svg.count("<polygon") == 5, "four kinds of work, and what is foreseen of the price"
    missing = wattshift("plan", "--html", str(tmp_path / "none" / "plan.html"))
    assert missing.exit_code == WattshiftError.exit_code
    quoted = svg.replace("role=img", "role='img'")
    assert ElementTree.fromstring(_attributes(quoted)).tag == "svg"


def test_a_cap_that_cannot_be_kept_leaves_prices_to_be_seen(fake: Any, tmp_path: Path) -> None:
    """What a watt is worth there is the fine on missing it: no price comes near."""
    view = fake.view()
    rows = view["rows"]
    low, high, cut = price_scale(rows)
    assert (low, cut) == (min(0.0, *(row["price_low_usd_per_mwh"] for row in rows)), False)
    assert high == max(row["shadow_usd_per_mwh"] for row in rows)
    dearest = max(row["price_high_usd_per_mwh"] for row in rows)
    assert high > dearest
    rows[0]["shadow_usd_per_mwh"], rows[1]["shadow_usd_per_mwh"] = 31_375.0, None
    assert price_scale(rows) == (low, 2.0 * dearest, True)
    assert f"≥ {2.0 * dearest:,.0f}" in svg_picture(view)
    assert min(_heights(svg_picture(view))) >= PRICE_TOP, "no line leaves the picture"
    assert scaled_by_the_page(rows, tmp_path) in (None, [low, 2.0 * dearest, True])


def _heights(svg: str) -> list[float]:
    """Of the points of the dotted line of what a MWh more costs."""
    lines = re.findall(r"<polyline points='([^']+)' fill=none stroke='#d55e00'", svg)
    return [float(point.split(",")[1]) for one in lines for point in one.split()]


def scaled_by_the_page(rows: list[dict[str, Any]], folder: Path) -> list[Any] | None:
    """The same by the live page's own code; None where there is no node to run it."""
    node = shutil.which("node")
    if node is None:
        return None
    for name in ("plan.js", "chart.js", "picture.js"):
        (folder / name).write_text((PAGE / name).read_text())
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "run.js").write_text(
        'import { priceScale } from "./plan.js";\n'
        f"const found = priceScale({json.dumps(rows)});\n"
        "console.log(JSON.stringify([found.low, found.high, found.cut]));\n"
    )
    ran = subprocess.run(
        [node, folder / "run.js"], capture_output=True, text=True, timeout=60, check=True
    )
    found: list[Any] = json.loads(ran.stdout)
    return found


def _attributes(svg: str) -> str:
    """The same with every attribute in quotes, as XML wants it."""
    return re.sub(r"=([\w.#-]+)(?=[\s/>])", r"='\1'", svg)


def test_the_picture_stacks_work_under_the_cap(fake: Any) -> None:
    rows = fake.view()["rows"]
    lines = picture(rows, fake.STEP_S).splitlines()
    first = [line[11] for line in lines[:10] if len(line) > 11]
    assert "".join(first) == "─ ▒▒▒▒▒▒██"
    assert "░ other  █ inference  ▓ batch  ▒ mining  ─ cap" in lines[-1]
    assert "10.0 to" in lines[-2]
    far = [{**row, "cap_w": 1e9} for row in rows]
    assert "the cap is 1000.00 MW or more" in picture(far, fake.STEP_S)
    unknown = [{**row, "cap_w": None, "price_usd_per_mwh": None} for row in rows]
    assert "unknown USD/MWh" in picture(unknown, fake.STEP_S)


def test_rows_are_put_together_by_the_hour(fake: Any) -> None:
    rows = fake.view(2.0, fake.START_S + 1800.0)["rows"]
    rows[1]["cap_w"], rows[3]["price_usd_per_mwh"] = 5e5, None
    half, whole, last = shown(rows, fake.STEP_S, HOUR_S)
    assert half["length_s"] == 1800.0, "the hour that has begun"
    assert half["cap_w"] == 5e5, "the lowest"
    assert whole["price_usd_per_mwh"] is None, "a mean of what is not known is not known"
    assert last["mining_w"] == pytest.approx(8e5)
    text = table([half, whole, last])
    assert "unknown" in text
    assert "~" not in text
    assert "~" in table([{**half, "price_published": False}])


def test_prices_below_zero_and_alike_are_drawn() -> None:
    assert spark([-10.0, 0.0, None, 10.0]) == "▁▅ █"
    assert spark([3.0, 3.0]) == "▁▁"
    assert spark([None]) == " "


def test_one_line_tells_what_is_next(fake: Any) -> None:
    view = fake.view()
    words = next_words(view, fake.START_S + 3600.0)
    assert words.startswith("current, made 2.2m ago; now mining 800.00 kW, in 14h")
    assert next_words(fake.blank("waiting", "soon"), 0.0) == "no plan yet: soon"
    assert dict(headline(view))["expects"].startswith("1,234.50 USD in 36 h from 2030-")


def test_top_shows_the_plan_in_a_line(wattshift: Command, reach: Any, fake: Any) -> None:
    assert "plan" in wattshift("top", "--once").stdout
    reach.port.planned = fake.blank("off", "no use")
    assert "no use" not in wattshift("top", "--once").stdout
