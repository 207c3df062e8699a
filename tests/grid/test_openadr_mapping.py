"""What OpenADR events become: every enumeration, units, targets, priorities, refusals."""

import math
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from wattshift_cluster.grid.openadr.asked import Terms
from wattshift_cluster.grid.openadr.kept import Heard, Known, answered
from wattshift_cluster.grid.openadr.mapping import fault_of, ours
from wattshift_cluster.grid.openadr.meanings import MEANINGS, Becomes, meaning
from wattshift_cluster.grid.openadr.saying import say
from wattshift_cluster.grid.openadr.units import AmountRefused, number
from wattshift_cluster.grid.openadr.words import Event, Program, read_event
from wattshift_cluster.grid.said import Alert, Said
from wattshift_scheduler.signals.arbitrate import arbitrate
from wattshift_scheduler.signals.words import CapKind, Work

NOW = 1_800_000_000.0
BOOT = "boot-1"
PROGRAM = Program(id="p", name="capacity")

ENUMERATIONS = [
    "SIMPLE",
    "PRICE",
    "PRICE_ALTERNATE",
    "CHARGE_STATE_SETPOINT",
    "DISPATCH_SETPOINT",
    "DISPATCH_SETPOINT_RELATIVE",
    "DISPATCH_INSTRUCTION",
    "CONTROL_SETPOINT",
    "CONTROL_LEVEL_OFFSET",
    "CONTROL_LEVEL_OFFSET_PERCENT",
    "EXPORT_PRICE",
    "GHG",
    "CURVE",
    "OLS",
    "IMPORT_CAPACITY_SUBSCRIPTION",
    "IMPORT_CAPACITY_RESERVATION",
    "IMPORT_CAPACITY_RESERVATION_FEE",
    "IMPORT_CAPACITY_AVAILABLE",
    "IMPORT_CAPACITY_AVAILABLE_PRICE",
    "EXPORT_CAPACITY_SUBSCRIPTION",
    "EXPORT_CAPACITY_RESERVATION",
    "EXPORT_CAPACITY_RESERVATION_FEE",
    "EXPORT_CAPACITY_AVAILABLE",
    "EXPORT_CAPACITY_AVAILABLE_PRICE",
    "IMPORT_CAPACITY_LIMIT",
    "EXPORT_CAPACITY_LIMIT",
    "ALERT_GRID_EMERGENCY",
    "ALERT_BLACK_START",
    "ALERT_POSSIBLE_OUTAGE",
    "ALERT_FLEX_ALERT",
    "ALERT_FIRE",
    "ALERT_FREEZING",
    "ALERT_WIND",
    "ALERT_TSUNAMI",
    "ALERT_AIR_QUALITY",
    "ALERT_OTHER",
    "CTA2045_REBOOT",
    "CTA2045_SET_OVERRIDE_STATUS",
]

UNITS: dict[str, dict[str, str]] = {"PRICE": {"units": "KWH", "currency": "USD"}}
SAMPLES: dict[str, list[Any]] = {
    "DISPATCH_INSTRUCTION": ["go"],
    "CURVE": [{"x": 1.0, "y": 2.0}],
    "OLS": [0.1, 0.9],
}


def stamp(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat().replace("+00:00", "Z")


def event(
    kind: str,
    *values: Any,
    name: str = "e",
    start_s: float = NOW,
    lasts: str = "PT1H",
    **parts: Any,
) -> Event:
    body: dict[str, Any] = {
        "id": name,
        "programID": "p",
        "intervalPeriod": {"start": stamp(start_s), "duration": lasts},
        "payloadDescriptors": [{"payloadType": kind, **UNITS.get(kind, {"units": "KW"})}],
        "intervals": [{"id": 0, "payloads": [{"type": kind, "values": list(values)}]}],
        **parts,
    }
    return read_event(body)


def terms(**parts: Any) -> Terms:
    agreed: dict[str, Any] = {"levels_w": (800e3, 500e3, 200e3), **parts}
    return Terms("openadr", "ven-1", **agreed)


def said(*events: Event, agreed: Terms | None = None, now_s: float = NOW + 1) -> Said:
    agreed = agreed or terms()
    known = answered(Known(seed="s"), events, [PROGRAM], lambda one, first_s: None, BOOT, NOW)
    return say(known, agreed, now_s, outage=False)


def cap_w(word: Said, at_s: float = NOW + 1) -> float:
    return arbitrate(word.caps, 10e6, at_s).cap_w


def test_every_enumeration_is_mapped_or_ignored_with_a_reason() -> None:
    assert sorted(MEANINGS) == sorted(ENUMERATIONS)
    assert len(ENUMERATIONS) == 38
    for found in MEANINGS.values():
        assert len(found.why) > 10


@pytest.mark.skipif(not os.environ.get("WATTSHIFT_DATA"), reason="WATTSHIFT_DATA is not set")
def test_the_enumerations_are_those_of_the_schema() -> None:
    folder = Path(os.environ["WATTSHIFT_DATA"]) / "reference" / "openadr-3.1.1"
    if not folder.is_dir():
        pytest.skip("the OpenADR schemas are not in WATTSHIFT_DATA")
    schema = yaml.safe_load((folder / "event-interval-payloads.schema.yaml").read_text())
    assert sorted(schema["definitions"]) == sorted(ENUMERATIONS)


@pytest.mark.parametrize("kind", ENUMERATIONS)
def test_every_enumeration_is_parsed_and_is_said_or_noted(kind: str) -> None:
    one = event(kind, *SAMPLES.get(kind, ["text" if kind.startswith("ALERT") else 1]))
    assert one.unreadable is None
    word = said(one, agreed=terms(baseline_w=lambda *_: 1e6))
    asks = len(word.caps) + len(word.targets) + len(word.alerts)
    asks += (word.prices_usd_per_mwh is not None) + (word.carbon_g_per_kwh is not None)
    if meaning(kind).becomes is Becomes.IGNORED:
        assert asks == 0
        assert any(kind in note and meaning(kind).why in note for note in word.notes)
    elif meaning(kind).becomes is Becomes.RESERVATION:
        assert asks == 0, "a reservation adds to a subscription, and there is none"
    else:
        assert asks == 1


def test_a_private_type_is_ignored_with_the_reason() -> None:
    word = said(event("com.example.boost", 1))
    assert word.caps == ()
    assert any("private" in note for note in word.notes)


@pytest.mark.parametrize(
    ("units", "value", "watts_w"),
    [("KW", 800, 800e3), ("W", 5000.0, 5000.0), ("MW", 1.5, 1.5e6), ("KWH", 400, 400e3)],
)
def test_units_come_from_the_descriptor(units: str, value: float, watts_w: float) -> None:
    descriptors = [{"payloadType": "IMPORT_CAPACITY_LIMIT", "units": units}]
    word = said(event("IMPORT_CAPACITY_LIMIT", value, payloadDescriptors=descriptors))
    assert [cap.limit_w for cap in word.caps] == [watts_w]
    assert word.caps[0].kind is CapKind.CONTRACT
    assert (word.caps[0].starts_s, word.caps[0].ends_s) == (NOW, NOW + 3600)


def test_energy_is_spread_over_its_interval() -> None:
    descriptors = [{"payloadType": "IMPORT_CAPACITY_LIMIT", "units": "KWH"}]
    one = event("IMPORT_CAPACITY_LIMIT", 100, lasts="PT15M", payloadDescriptors=descriptors)
    assert cap_w(said(one)) == 400e3


def test_a_percentage_is_a_share_of_what_was_agreed() -> None:
    descriptors = [{"payloadType": "IMPORT_CAPACITY_LIMIT", "units": "PERCENT"}]
    one = event("IMPORT_CAPACITY_LIMIT", 0.25, payloadDescriptors=descriptors)
    assert cap_w(said(one, agreed=terms(nominal_w=2e6))) == 500e3
    assert said(one).caps == ()
    assert any("set nominal" in note for note in said(one).notes)


@pytest.mark.parametrize("units", ["VOLTS", "KVA", "furlongs", None])
def test_an_unknown_unit_is_refused_and_told(units: str | None) -> None:
    descriptors = [{"payloadType": "IMPORT_CAPACITY_LIMIT", "units": units}]
    one = event("IMPORT_CAPACITY_LIMIT", 1, payloadDescriptors=descriptors)
    word = said(one)
    assert word.caps == ()
    assert any("is refused" in note and "no unit of power" in note for note in word.notes)
    assert fault_of(one, NOW, PROGRAM, terms(), NOW) is not None


def test_units_of_the_program_or_of_the_sites_file_stand_in() -> None:
    one = event("IMPORT_CAPACITY_LIMIT", 7, payloadDescriptors=[])
    assert cap_w(said(one, agreed=terms(units="KW"))) == 7e3
    told = Program.model_validate(
        {
            "id": "p",
            "programName": "capacity",
            "payloadDescriptors": [{"payloadType": "IMPORT_CAPACITY_LIMIT", "units": "MW"}],
        }
    )
    known = answered(Known(seed="s"), [one], [told], lambda *_: None, BOOT, NOW)
    assert cap_w(say(known, terms(), NOW, outage=False)) == 7e6


@pytest.mark.parametrize("value", [math.nan, math.inf, -1, "7", True, 10**400, 1e99])
def test_an_amount_that_is_none_is_refused(value: Any) -> None:
    word = said(event("IMPORT_CAPACITY_LIMIT", value))
    assert word.caps == ()
    assert any("is refused" in note for note in word.notes)


@pytest.mark.parametrize("value", [math.nan, math.inf, 10**400, "1", False])
def test_only_a_finite_number_is_a_number(value: Any) -> None:
    with pytest.raises(AmountRefused):
        number(value)


def test_a_grant_of_more_watts_must_end() -> None:
    subscribed = event("IMPORT_CAPACITY_SUBSCRIPTION", 500, name="a", lasts="P9999Y")
    grant = event("IMPORT_CAPACITY_RESERVATION", 100, name="b")
    assert cap_w(said(subscribed, grant)) == 600e3
    endless = event(
        "IMPORT_CAPACITY_RESERVATION", 100, name="b", intervalPeriod={"start": stamp(NOW)}
    )
    word = said(subscribed, endless)
    assert cap_w(word) == 500e3
    assert any("must say when it ends" in note for note in word.notes)


def test_of_several_values_of_a_limit_the_lowest_holds() -> None:
    assert cap_w(said(event("IMPORT_CAPACITY_LIMIT", 900, 300, 600))) == 300e3


def test_simple_levels_are_the_sites_own_ladder() -> None:
    assert [cap_w(said(event("SIMPLE", level))) for level in (0, 1, 2, 3)] == [
        10e6,
        800e3,
        500e3,
        200e3,
    ]
    two = terms(levels_w=(800e3, 500e3))
    assert cap_w(said(event("SIMPLE", 3), agreed=two)) == 500e3
    assert any("no cap of its own" in note for note in said(event("SIMPLE", 3), agreed=two).notes)


@pytest.mark.parametrize(("level", "levels_w"), [(4, (1e3,)), (1.5, (1e3,)), (-1, (1e3,)), (1, ())])
def test_a_level_that_means_nothing_is_refused(level: float, levels_w: tuple[float, ...]) -> None:
    word = said(event("SIMPLE", level), agreed=terms(levels_w=levels_w))
    assert word.caps == ()
    assert any("is refused" in note for note in word.notes)


def test_a_set_point_is_a_target_and_no_cap() -> None:
    word = said(event("DISPATCH_SETPOINT", 400, priority=2))
    assert word.caps == ()
    assert [(one.watts_w, one.priority, one.work) for one in word.targets] == [(400e3, 2, Work.ALL)]


def test_a_relative_set_point_lies_below_the_baseline() -> None:
    agreed = terms(baseline_w=lambda name, starts_s, ends_s: 1e6)
    word = said(event("DISPATCH_SETPOINT_RELATIVE", 300), agreed=agreed)
    assert [one.watts_w for one in word.targets] == [700e3]
    assert word.events[0].commitment_w == 300e3
    deep = said(event("DISPATCH_SETPOINT_RELATIVE", 3000), agreed=agreed)
    assert [one.watts_w for one in deep.targets] == [0.0]
    descriptors = [{"payloadType": "DISPATCH_SETPOINT_RELATIVE", "units": "PERCENT"}]
    share = event("DISPATCH_SETPOINT_RELATIVE", 0.2, payloadDescriptors=descriptors)
    assert [one.watts_w for one in said(share, agreed=agreed).targets] == [800e3]


def test_below_an_unknown_baseline_nothing_is_known() -> None:
    word = said(event("DISPATCH_SETPOINT_RELATIVE", 300))
    assert word.targets == ()
    assert any("baseline, which is unknown" in note for note in word.notes)


def test_emergencies_ask_the_least_and_other_alerts_are_shown() -> None:
    word = said(
        event("ALERT_GRID_EMERGENCY", "save now", name="a", lasts="P9999Y"),
        event("ALERT_BLACK_START", "coming back", name="b"),
        event("ALERT_WIND", "storm", name="c"),
    )
    asks = {alert.name: (alert.asks, alert.text, alert.ends_s) for alert in word.alerts}
    assert asks["ALERT_GRID_EMERGENCY"] == (Alert.LEAST, "save now", None)
    assert asks["ALERT_BLACK_START"][0] is Alert.LEAST
    assert asks["ALERT_WIND"] == (Alert.NOTICE, "storm", NOW + 3600)


def test_prices_become_steps_and_may_be_negative() -> None:
    rows = [{"id": at, "payloads": [{"type": "PRICE", "values": [price]}]} for at, price in
            enumerate((0.05, -0.02, 0.3))]  # fmt: skip
    word = said(event("PRICE", intervals=rows))
    steps = word.prices_usd_per_mwh
    assert steps is not None
    assert steps.times_s == (NOW, NOW + 3600, NOW + 7200)
    assert steps.values == pytest.approx((50.0, -20.0, 300.0))
    assert steps.ends_s == NOW + 3 * 3600


def test_several_prices_divide_their_interval() -> None:
    steps = said(event("PRICE", 0.17, 0.03, 0.11, lasts="PT3H")).prices_usd_per_mwh
    assert steps is not None
    assert steps.times_s == (NOW, NOW + 3600, NOW + 7200)
    assert steps.values == pytest.approx((170.0, 30.0, 110.0))


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ({"units": "KWH"}, "no rate to USD"),
        ({"units": "KWH", "currency": "EUR"}, "no rate to USD"),
        ({"units": "THERMS", "currency": "USD"}, "no price of energy"),
        ({"currency": "USD"}, "no price of energy"),
    ],
)
def test_a_price_of_something_else_is_refused(told: dict[str, str], why: str) -> None:
    one = event("PRICE", 0.1, payloadDescriptors=[{"payloadType": "PRICE", **told}])
    assert said(one).prices_usd_per_mwh is None
    assert any(why in note for note in said(one).notes)


@pytest.mark.parametrize("price", [math.nan, math.inf, 1e6, -1e6])
def test_an_insane_price_is_refused(price: float) -> None:
    word = said(event("PRICE", price))
    assert word.prices_usd_per_mwh is None
    assert any("PRICE is refused" in note for note in word.notes)


def test_another_currency_counts_at_the_rate_that_is_set() -> None:
    told = [{"payloadType": "PRICE", "units": "MWH", "currency": "EUR"}]
    word = said(event("PRICE", 50, payloadDescriptors=told), agreed=terms(usd_per={"EUR": 1.1}))
    assert word.prices_usd_per_mwh is not None
    assert word.prices_usd_per_mwh.values == pytest.approx((55.0,))


def test_of_two_prices_the_higher_priority_holds_and_among_equals_the_higher_price() -> None:
    low, high = event("PRICE", 0.1, name="a", priority=1), event("PRICE", 0.4, name="b", priority=1)
    word = said(low, high)
    assert word.prices_usd_per_mwh is not None
    assert word.prices_usd_per_mwh.values == pytest.approx((400.0,))
    assert any("equal priority" in note for note in word.notes)
    first = event("PRICE", 0.2, name="c", priority=0)
    word = said(low, high, first)
    assert word.prices_usd_per_mwh is not None
    assert word.prices_usd_per_mwh.values == pytest.approx((200.0,))


def test_a_gap_ends_the_run_of_prices_and_the_next_run_follows() -> None:
    near = event("PRICE", 0.1, name="a")
    far = event("PRICE", 0.2, name="b", start_s=NOW + 7200)
    steps = said(near, far).prices_usd_per_mwh
    assert steps is not None
    assert steps.ends_s == NOW + 3600
    later = said(near, far, now_s=NOW + 3601).prices_usd_per_mwh
    assert later is not None
    assert later.times_s == (NOW + 7200,)


def test_emissions_are_grams() -> None:
    word = said(event("GHG", 410, payloadDescriptors=[{"payloadType": "GHG"}]))
    assert word.carbon_g_per_kwh is not None
    assert word.carbon_g_per_kwh.values == (410.0,)


def test_of_overlapping_caps_the_lowest_holds_whatever_the_priorities() -> None:
    wide = event("IMPORT_CAPACITY_LIMIT", 900, name="a", priority=0)
    tight = event("IMPORT_CAPACITY_LIMIT", 300, name="b", priority=5)
    assert cap_w(said(wide, tight)) == 300e3
    assert not any("equal priority" in note for note in said(wide, tight).notes)
    same = event("IMPORT_CAPACITY_LIMIT", 300, name="b", priority=0)
    assert any("equal priority" in note for note in said(wide, same).notes)


@pytest.mark.parametrize(
    ("targets", "work"),
    [
        ([], Work.ALL),
        (["ven-1"], Work.ALL),
        (["zone-7"], Work.ALL),
        (["miners"], Work.MINING),
        (["miners", "racks"], Work.ALL),
        (["somebody-else"], None),
    ],
)
def test_targets_decide_whose_event_it_is(targets: list[str], work: Work | None) -> None:
    agreed = terms(
        resources={"miners": Work.MINING, "racks": Work.ALL}, groups=frozenset({"zone-7"})
    )
    one = event("DISPATCH_SETPOINT", 100, targets=targets)
    assert ours(one, agreed) is work
    word = said(one, agreed=agreed)
    assert [target.work for target in word.targets] == ([] if work is None else [work])
    assert any("for others" in note for note in word.notes) == (work is None)


def test_a_limit_for_miners_alone_is_kept_by_the_whole_site() -> None:
    agreed = terms(resources={"miners": Work.MINING})
    word = said(event("IMPORT_CAPACITY_LIMIT", 100, targets=["miners"]), agreed=agreed)
    assert cap_w(word) == 100e3
    assert any("miners alone" in note for note in word.notes)


def test_events_that_bind_are_told_for_settlement() -> None:
    agreed = terms(commitments_w={"capacity": 250e3})
    word = said(
        event("SIMPLE", 2, name="shed", start_s=NOW + 600),
        event("PRICE", 0.1, name="price"),
        agreed=agreed,
    )
    (found,) = word.events
    assert (found.id, found.program, found.notified_s) == ("shed", "capacity", NOW)
    assert (found.starts_s, found.ends_s) == (NOW + 600, NOW + 4200)
    assert found.commitment_w == 250e3
    assert math.isnan(said(event("SIMPLE", 2)).events[0].commitment_w)


def test_an_event_that_breaks_the_schema_or_ends_before_it_starts_is_told() -> None:
    broken = read_event({"id": "x", "programID": "p", "intervals": "none"})
    backwards = event("SIMPLE", 1, name="y", lasts="-PT1H")
    word = said(broken, backwards)
    assert word.caps == ()
    assert any("breaks the schema" in note for note in word.notes)
    assert any("ends before it starts" in note for note in word.notes)


def test_ids_are_unique_and_stay_the_same() -> None:
    rows = [{"id": 0, "payloads": [{"type": "SIMPLE", "values": [1]}] * 3}] * 2
    one = event("SIMPLE", intervals=rows)
    ids = [cap.id for cap in said(one).caps]
    assert len(set(ids)) == len(ids) == 6
    assert ids == [cap.id for cap in said(one, now_s=NOW + 30).caps]


def test_a_flood_of_payloads_is_bounded_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wattshift_cluster.grid.openadr.saying.MAX_ASKED", 3)
    rows = [{"id": at, "payloads": [{"type": "SIMPLE", "values": [3]}]} for at in range(9)]
    word = said(event("SIMPLE", intervals=rows))
    assert [cap.starts_s for cap in word.caps] == [NOW, NOW + 3600, NOW + 7200]
    assert any("only the first 3" in note for note in word.notes)


def test_a_heard_event_is_the_unit_of_what_is_known() -> None:
    one = event("SIMPLE", 1)
    assert Heard(one, NOW).confirmed
