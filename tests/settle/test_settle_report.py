"""From a log on disk to statements, a settlement file and a printed page, as a person asks."""

import csv
import io
import json
import math
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner, Result

from wattshift_cluster.cli.main import main
from wattshift_cluster.config.settlement import Settlement, settlement_at
from wattshift_cluster.errors import ConfigInvalid, NotFound
from wattshift_cluster.settle.bodies import (
    SITE,
    EnergyOf,
    Held,
    MeterBatch,
    Used,
    decision_body,
    event_body,
    event_of,
)
from wattshift_cluster.settle.lines import Kind
from wattshift_cluster.settle.report import report
from wattshift_cluster.settle.rows import COLUMNS
from wattshift_cluster.settle.settle import Settled
from wattshift_cluster.settle.statements import OWNER, statements
from wattshift_cluster.settle.words import drill_text
from wattshift_scheduler.decisions import Decision
from wattshift_scheduler.signals.words import DRILL, GridEvent

Logged = Callable[..., Path]
HOUR_S = 3600.0
TERMS = {
    "resource": "yard",
    "programs": [
        {
            "name": "dr",
            "method": "before_after",
            "price": 100,
            "commitment": "30kW",
            "currency": "EUR",
        }
    ],
    "hosted": [
        {"tenant": "acme", "devices": ["asic-a*"], "overhead_pct": 10},
        {"tenant": "zeta", "devices": ["asic-z*"], "credited": False},
    ],
}


def watts_w(minute: int, noon_minute: int = 60) -> float:
    """110 kW and 10 W of noise; 80 kW in the hour from noon."""
    return (80e3 if noon_minute < minute <= noon_minute + 60 else 110e3) + minute % 7


def site_lines(noon_s: float) -> list[tuple[Kind, dict[str, object], float]]:
    """Three hours of a site with one event from 12:00 to 13:00, told at 11:30."""
    begin_s = noon_s - HOUR_S
    one = GridEvent("e1", "vtn", "dr", noon_s - 1800, noon_s, noon_s + HOUR_S)
    gone = GridEvent("=e2", "vtn", "other", noon_s, noon_s + HOUR_S, None)
    held = Held(120e3, "schedule", 111e3)
    terms = Settlement.model_validate(TERMS).model_dump(mode="json")
    lines: list[tuple[Kind, dict[str, object], float]] = [
        (Kind.TERMS, terms, begin_s),
        (Kind.CAP, held.cap_body(), begin_s),
        (Kind.PLAN, held.plan_body(), begin_s),
        (Kind.EVENT, event_body(one), noon_s - 1800),
        (Kind.EVENT, event_body(replace(one, notified_s=noon_s)), noon_s),
        (Kind.EVENT, event_body(gone), noon_s),
        (Kind.METER, {"source": SITE, "from a newer version": 1}, noon_s),
    ]
    for minute in range(181):
        at_s = begin_s + 60.0 * minute
        batch = MeterBatch(SITE, "measured", 0.5, [(at_s, watts_w(minute))])
        lines.append((Kind.METER, batch.body(), at_s))
        if minute and minute % 15 == 0:
            # In the event the tenants' machines go from 20 and 10 kW to 10 and 5 kW.
            shed = 60 < minute <= 120
            rows = {
                "asic-a1": Used((10e3 if shed else 20e3) * 900, 1.0),
                "asic-z1": Used((5e3 if shed else 10e3) * 900, 0.5),
                "gpu-0": Used((50e3 if shed else 60e3) * 900),
            }
            span = (at_s - 900, at_s)
            lines.append((Kind.DEVICES, EnergyOf(*span, rows).body(), at_s))
            lines.append((Kind.TENANTS, EnergyOf(*span, {"lab": Used(3e3 * 900)}).body(), at_s))
    return sorted(lines, key=lambda line: line[2])


@pytest.fixture
def folder(logged: Logged, noon_s: float) -> Path:
    return logged(site_lines(noon_s), now_s=noon_s + 2 * HOUR_S)


def asked(folder: Path, *args: str) -> Result:
    span = ("--from", "2026-11-28T11:00:00Z", "--to", "2026-11-28T14:00:00Z")
    return CliRunner().invoke(main, ["report", "--folder", str(folder), *span, *args])


def test_the_report_of_a_log(folder: Path) -> None:
    answer = asked(folder, "-o", "json")
    assert answer.exit_code == 0, answer.output
    view = json.loads(answer.stdout)
    (one,) = view["events"]
    # 30 kW for an hour at 100 EUR/MWh; a straight line over a minute takes 0.25 kWh off it.
    assert one["reduction_kwh"] == pytest.approx(29.75, abs=0.01)
    assert one["payment"] == pytest.approx(2.975, abs=0.001)
    assert one["notified"] == "2026-11-28T11:30:00Z", "a later telling cannot move the notice"
    assert one["void"] is None
    assert len(one["intervals"]) == 12
    assert view["unsettled"] == [{"program": "other", "event": "=e2", "name": None}]
    assert view["lines_unread"] == 1
    assert view["evidence"]["ok"]


def drilled(noon_s: float) -> list[tuple[Kind, dict[str, object], float]]:
    """A day with a drill instead of the event, and terms that would pay for it."""
    terms = {**TERMS, "programs": [{**TERMS["programs"][0], "name": "drill"}]}  # type: ignore[dict-item]
    one = GridEvent("weekly-1", "drills", DRILL, noon_s, noon_s, noon_s + HOUR_S)
    off = replace(one, id="weekly-2", starts_s=noon_s + 1.5 * HOUR_S, ends_s=noon_s + 2 * HOUR_S)
    told = [
        (Kind.TERMS, Settlement.model_validate(terms).model_dump(mode="json"), noon_s - 1000),
        (Kind.EVENT, event_body(one), noon_s),
        (Kind.EVENT, event_body(replace(off, cancelled_s=noon_s + HOUR_S)), noon_s + HOUR_S),
    ]
    kept = [line for line in site_lines(noon_s) if line[0] in (Kind.METER, Kind.DEVICES)]
    return sorted([*kept, *told], key=lambda line: line[2])


def test_a_drill_is_shown_and_never_paid(logged: Logged, noon_s: float, tmp_path: Path) -> None:
    folder = logged(drilled(noon_s), now_s=noon_s + 2 * HOUR_S)
    page = tmp_path / "report.html"
    view = json.loads(asked(folder, "-o", "json", "--html", str(page)).stdout)
    assert (view["events"], view["unsettled"]) == ([], [])
    ran, off = view["drills"]
    assert (ran["event"], ran["called_off"]) == ("weekly-1", False)
    assert (ran["before_kw"], ran["during_kw"]) == pytest.approx((110.0, 80.25), abs=0.1)
    assert (off["event"], off["called_off"], off["during_kw"]) == ("weekly-2", True, None)
    assert all(row["credit"] == {} for row in view["statements"])
    assert "weekly-1" in page.read_text()
    assert "called off" in drill_text(off)
    assert "not paid" in drill_text(ran)


def test_what_an_event_costs_is_the_owner_s(noon_s: float) -> None:
    one = GridEvent("e", "vtn", "dr", noon_s, noon_s, noon_s + HOUR_S)
    nothing = math.nan
    costs = Settled(one, "GBP", (), "", (), nothing, nothing, nothing, -4.0)
    found = statements(Settlement.model_validate(TERMS), [], [], [costs], (0.0, 1.0), 0.0)
    assert {row.tenant: row.credit for row in found.rows if row.credit} == {OWNER: {"GBP": -4.0}}


def test_statements_add_up_to_the_meter(folder: Path) -> None:
    view = json.loads(asked(folder, "-o", "json").stdout)
    rows = {row["tenant"]: row for row in view["statements"]}
    # Two hours of 20 kW and one of 10; of 10 and 5; of 60 and 50; three hours of 3 kW.
    energies = {"acme": 50.0, "zeta": 25.0, "site": 170.0, "lab": 0.0}
    assert {name: row["energy_kwh"] for name, row in rows.items()} == pytest.approx(energies)
    assert rows["lab"]["compute_kwh"] == pytest.approx(9.0)
    # 300 kWh metered less 254 known leave 46, of which acme's share of energy, 50/254, is 9 kWh,
    # more than the 10 % of 50 kWh that its contract lets pass.
    assert view["metered_kwh"] == pytest.approx(300.0, abs=0.1)
    assert rows["acme"]["overhead_kwh"] == pytest.approx(5.0)
    assert rows["zeta"]["overhead_kwh"] == 0.0
    borne = sum(r["energy_kwh"] + r["compute_kwh"] + r["overhead_kwh"] for r in rows.values())
    assert borne + view["unallocated_kwh"] == pytest.approx(view["metered_kwh"], abs=1e-4)
    assert rows["acme"]["mining_usd"] == pytest.approx(12.0)
    # Of 25 kW less, acme's machines gave 10; zeta's contract credits nothing.
    paid = view["events"][0]["payment"]
    assert rows["acme"]["credit"] == {"EUR": pytest.approx(paid * 10 / 25, abs=1e-5)}
    assert rows["zeta"]["credit"] == {}
    assert rows["site"]["credit"] == {"EUR": pytest.approx(paid * 15 / 25, abs=1e-5)}


def test_devices_that_tell_more_than_the_meter_leave_a_negative_rest() -> None:
    terms = Settlement.model_validate(TERMS)
    told = [EnergyOf(0.0, 3600.0, {"asic-a1": Used(3.6e7), "asic-a2": Used(math.nan)})]
    found = statements(terms, told, [], [], (0.0, 3600.0), 9.0)
    acme = next(row for row in found.rows if row.tenant == "acme")
    assert (acme.energy_kwh, acme.overhead_kwh, acme.unknown) == (10.0, 0.0, 1)
    assert found.unallocated_kwh == pytest.approx(-1.0)
    half = statements(terms, told, [], [], (1800.0, 3600.0), math.nan)
    assert half.rows[1].energy_kwh == pytest.approx(5.0)
    assert math.isnan(half.unallocated_kwh), "an unknown meter leaves an unknown rest"
    assert half.rows[0].tenant == OWNER


def test_the_settlement_file(folder: Path, tmp_path: Path) -> None:
    text, table = tmp_path / "rows.csv", tmp_path / "rows.parquet"
    answer = asked(folder, "--csv", str(text), "--parquet", str(table), "--event", "e1")
    assert answer.exit_code == 0, answer.output
    rows = list(csv.DictReader(io.StringIO(text.read_text())))
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == 12
    assert rows[0]["interval_start_utc"] == "2026-11-28T12:00:00Z"
    assert rows[0]["adjustment"] == "", "nothing adjusted it, and that is not 0"
    assert len(rows[0]["samples_sha256"]) == 64
    found = pd.read_parquet(table)
    assert tuple(found.columns) == COLUMNS
    assert str(found["interval_start_utc"].dtype) == "datetime64[us, UTC]"
    assert found["reduction_kw"].to_list() == pytest.approx(
        [float(r["reduction_kw"]) for r in rows]
    )


def test_the_page_needs_no_network_and_holds_its_pictures(folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    assert asked(folder, "--html", str(page)).exit_code == 0
    text = page.read_text()
    pictures = [part.split("</svg>")[0] + "</svg>" for part in text.split("<svg")[1:]]
    assert len(pictures) == 2
    for picture in pictures:
        assert ET.fromstring(f"<svg{picture}").tag.endswith("svg")
    for outside in ("<script", "<link", "src=", "url(http", "@import"):
        assert outside not in text
    assert "The evidence log holds." in text
    assert "unallocated" in text


def test_names_from_outside_do_no_harm(logged: Logged, noon_s: float, tmp_path: Path) -> None:
    lines = site_lines(noon_s)
    bad = GridEvent("=<script>", "vtn", "dr", noon_s - 1800, noon_s, noon_s + 600)
    folder = logged([*lines, (Kind.EVENT, event_body(bad), noon_s + 2 * HOUR_S)])
    page, text = tmp_path / "report.html", tmp_path / "rows.csv"
    only = ("--event", "=<script>")
    assert asked(folder, "--html", str(page), "--csv", str(text), *only).exit_code == 0
    assert "<script>" not in page.read_text()
    assert "'=<script>" in text.read_text(), "a spreadsheet must not run it"


def test_a_broken_log_is_used_as_far_as_it_holds(folder: Path) -> None:
    path = folder / "2026-11-28.jsonl"
    data = path.read_bytes()
    at = data.index(b"80001.0")
    path.write_bytes(data[:at] + b"70001.0" + data[at + 7 :])
    answer = asked(folder, "-o", "json")
    assert answer.exit_code == 1
    assert "the evidence is broken" in answer.stderr
    view = json.loads(answer.stdout)
    assert view["events"][0]["notes"][0] == "not over yet: settled so far"
    assert all("unsigned" in row["quality"] for row in view["events"][0]["intervals"])


def test_what_is_not_there_is_said(folder: Path, tmp_path: Path) -> None:
    assert asked(folder, "--event", "e9").exit_code == 4
    assert asked(tmp_path / "none").exit_code == 4
    assert asked(folder, "--to", "2026-11-27").exit_code == 2
    assert asked(folder, "--from", "yesterday").exit_code == 2


def test_terms_of_a_file_win_over_those_of_the_log(folder: Path, tmp_path: Path) -> None:
    site = tmp_path / "site.toml"
    site.write_text(
        '[site]\nname = "yard"\n[settlement]\nresource = "yard-2"\n[[settlement.programs]]\n'
        'name = "dr"\nmethod = "fsl"\nfsl = "100kW"\nprice = 50\n'
    )
    view = json.loads(asked(folder, "--terms", str(site), "-o", "json").stdout)
    assert view["resource"] == "yard-2"
    assert view["events"][0]["payment"] == pytest.approx(20 * 0.05, abs=0.02)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('name = "a"\nmethod = "fsl"\nprice = 1', "method fsl needs fsl"),
        ('name = "a"\nmethod = "fsl"\nfsl = 1\nprice = 1\ninterval = "7m"', "divide an hour"),
        ('name = "a"\nmethod = "before_after"\nprice = 1\nwindow = "7m"', "whole number of inter"),
        ('name = "a"\nmethod = "most"\nprice = 1', "settlement.programs[0].method"),
    ],
)
def test_faults_of_the_terms_are_named(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "site.toml"
    path.write_text(f"[[settlement.programs]]\n{text}\n")
    with pytest.raises(ConfigInvalid) as wrong:
        settlement_at(path)
    assert told in str(wrong.value)


def test_terms_that_are_not_there(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    path.write_text('[settlement]\nzone = "Mars/Base"\n')
    with pytest.raises(ConfigInvalid, match="unknown time zone"):
        settlement_at(path)
    path.write_text("[site]\n")
    with pytest.raises(NotFound):
        settlement_at(path)


def test_bodies_come_back_as_they_were(noon_s: float) -> None:
    one = GridEvent("e", "vtn", "dr", noon_s, noon_s, None)
    back = event_of(json.loads(json.dumps(event_body(one), allow_nan=False)))
    assert replace(back, commitment_w=0.0) == replace(one, commitment_w=0.0)
    assert math.isnan(back.commitment_w)
    decision = Decision(noon_s, "site", "shed", "why", {"cap_w": math.inf, "n": 1, "free": None})
    assert decision_body(decision)["inputs"] == {"cap_w": None, "n": 1, "free": None}


def test_a_log_without_samples_makes_an_honest_report(logged: Logged, noon_s: float) -> None:
    found = report(logged([]), noon_s, noon_s + HOUR_S)
    assert math.isnan(found.statements.metered_kwh)
    assert found.settled == ()
