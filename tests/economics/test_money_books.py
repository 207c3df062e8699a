"""Accounts per device and lease: what is counted, what is estimated, and what stays unpriced."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wattshift_cluster.controller import books as booking
from wattshift_cluster.controller.books import LEASES_KEPT, Books, Sample
from wattshift_cluster.controller.money import Rates, judged, usd
from wattshift_cluster.controller.roster import Roster
from wattshift_scheduler.decisions import Decision, Moves
from wattshift_scheduler.hashprice import HASHES_PER_DIFFICULTY
from wattshift_scheduler.site import Device, Feeder, FeederTree, OperatingPoint, Site
from wattshift_scheduler.state import State, initial
from wattshift_scheduler.values import Values

ALL = 10**9
USD_PER_HASH = 42.31 / 86_400 / 1e15


def state(hashprice: float | None = 42.31, price: float | None = 60.0, fee: float = 0.0) -> State:
    tree = FeederTree.of([Feeder("main", None, 1e6)])
    return initial(Site("s", tree), Values(hashprice, fee, 0.0, price), 1)


def sample(**changes: Any) -> Sample:
    asked: dict[str, Any] = {"at_s": 10.0, "gap_s": 1.0, "energy_j": 3_000.0, "quality": "measured"}
    return Sample(**asked | {"difficulty": None, "hashes": None} | changes)


def moves(mode: str, *devices: str, watts_w: float = 100.0, from_w: float = math.nan) -> Moves:
    before, after = (np.full(len(devices), w) for w in (from_w, watts_w))
    return Moves(0.0, devices, (mode,) * len(devices), before, after, after, {})


def turned(one: Books, change: Moves, now_s: float) -> list[Decision]:
    one.moved([change], now_s)
    return one.settle(ALL)


def test_accepted_shares_are_worth_their_part_of_a_block() -> None:
    one = Books()
    one.priced(state(fee=0.02))
    one.add("a", sample(difficulty=65_536.0, hashes=1e30))
    revenue = one.devices["a"].revenue_usd
    expected = 65_536 * HASHES_PER_DIFFICULTY * USD_PER_HASH * 0.98
    assert revenue == {"measured": pytest.approx(expected)}, "a counter beats an estimate"
    assert one.devices["a"].energy_usd == pytest.approx(3_000 / 3.6e9 * 60)


def test_an_asic_whose_pool_nobody_sees_is_estimated_and_marked() -> None:
    one = Books()
    one.priced(state())
    one.add("a", sample(hashes=1e14))
    assert one.devices["a"].revenue_usd == {"modelled": pytest.approx(1e14 * USD_PER_HASH)}
    one.add("b", sample(difficulty=1.0, quality="emulated"))
    assert set(one.devices["b"].revenue_usd) == {"emulated"}
    assert set(one.total().revenue_usd) == {"modelled", "emulated"}


def test_what_has_no_price_is_never_valued_later() -> None:
    one = Books()
    one.add("a", sample(hashes=1e14))
    one.priced(state(hashprice=None, price=None))
    one.add("a", sample(hashes=1e14))
    account = one.devices["a"]
    assert (account.earned_usd, account.energy_usd) == (0.0, 0.0)
    assert account.unvalued_hashes == 2e14
    assert account.unpriced_j == 6_000.0
    assert account.net_usd is None
    one.priced(state())
    one.add("a", sample(hashes=1e14))
    assert account.earned_usd == pytest.approx(1e14 * USD_PER_HASH)
    assert account.net_usd is None, "a sum with a hole in it is not a sum"


def test_a_negative_price_earns() -> None:
    one = Books()
    one.priced(state(price=-20.0))
    one.add("a", sample())
    assert one.devices["a"].energy_usd < 0
    assert one.devices["a"].net_usd == -one.devices["a"].energy_usd


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -5.0])
def test_a_counter_that_is_no_number_earns_nothing(wrong: float) -> None:
    one = Books()
    one.priced(state())
    one.add("a", sample(difficulty=wrong))
    one.add("a", sample(difficulty=1.0))
    assert 0.0 < one.devices["a"].earned_usd < 1.0


def test_leases_are_cut_where_they_were_moved() -> None:
    one = Books()
    one.priced(state())
    assert turned(one, moves("full", "a", watts_w=3_000.0), 0.0) == []
    for at in range(1, 101):
        one.add("a", sample(at_s=float(at), hashes=1e14))
    assert turned(one, moves("full", "a", watts_w=3_000.0, from_w=3_000.0), 99.0) == []
    (told,) = turned(one, moves("sleep", "a"), 100.0)
    one.add("a", sample(at_s=101.0, energy_j=20.0))
    (ended,) = one.ended
    assert (ended.mode, ended.watts_w, ended.ended_s) == ("full", 3_000.0, 100.0)
    assert ended.account.energy_j == pytest.approx(300_000.0)
    assert ended.account.earned_usd == pytest.approx(1e16 * USD_PER_HASH)
    assert told.subject == "a"
    assert told.inputs["revenue_modelled_usd"] == pytest.approx(1e16 * USD_PER_HASH)
    assert told.reason.startswith("full for 100 s: earned 0.0049 USD modelled, energy 0.083 kWh")
    lease = one.lease("a")
    assert lease is not None
    assert (lease.mode, lease.account.energy_j, lease.account.earned_usd) == ("sleep", 20.0, 0.0)
    assert turned(one, moves("full", "a"), 159.0) == [], "a short one is kept, and not journaled"
    assert len(one.ended) == 2


def test_memory_and_journal_are_bounded() -> None:
    one = Books()
    one.priced(state())
    names = [f"d{n}" for n in range(LEASES_KEPT + 500)]
    turned(one, moves("full", *names), 0.0)
    assert len(turned(one, moves("sleep", *names), 1_000.0)) == booking.JOURNALED_MOST
    assert len(one.ended) == LEASES_KEPT


def test_a_few_are_booked_at_a_time_so_that_commands_go_first() -> None:
    one = Books()
    names = [f"d{n}" for n in range(1_000)]
    turned(one, moves("full", *names), 0.0)
    one.moved([moves("sleep", *names), moves("full", *names)], 100.0)
    seen = []
    while one.pending:
        one.settle(300)
        seen.append(len(one.ended))
    assert seen == [300, 600, 900, 1_200, 1_500, 1_800, 2_000]


amounts = st.floats(0, 1e6)


@settings(max_examples=30)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.sampled_from("ab"), amounts, amounts),
            st.tuples(st.just("move"), st.sampled_from("ab"), amounts, amounts),
            st.tuples(st.just("price"), st.sampled_from("ab"), amounts, amounts),
        ),
        max_size=40,
    )
)
def test_leases_add_up_to_their_devices(acts: list[tuple[str, str, float, float]]) -> None:
    """Whatever happens, the ended leases and the open one of a device are its whole account."""
    one = Books()
    one.priced(state())
    for at, (act, device, first, second) in enumerate(acts):
        if act == "add":
            one.add(device, sample(at_s=float(at), energy_j=first, difficulty=second))
        elif act == "move":
            turned(one, moves("m", device), float(at))
        else:
            one.priced(state(hashprice=first % 100, price=second))
    for device, account in one.devices.items():
        parts = [row.account for row in one.ended if row.device == device]
        open_one = one.lease(device)
        assert open_one is not None
        parts.append(open_one.account)
        for name in ("energy_j", "energy_usd", "earned_usd", "seconds_s"):
            total = sum(getattr(part, name) for part in parts)
            assert total == pytest.approx(getattr(account, name), rel=1e-6, abs=1e-9)


def reading(device: str, watts_w: float | None, counted: float | None) -> dict[str, Any]:
    counters = {"accepted_difficulty": counted}
    row = {"device": device, "watts_w": watts_w, "hashrate_h_per_s": 1e14, "counters": counters}
    return row | {"lease": {"mode": "full"}}


def test_the_roster_hands_over_what_each_reading_adds() -> None:
    one = Books()
    roster = Roster(one.add)
    one.priced(state())
    infos = [{"id": name, "quality": "measured"} for name in ("seen", "unseen")]
    roster.offered("agent", infos)

    def read(at_s: float, counted: float, watts_w: float | None = 3_000.0) -> None:
        rows = [reading("seen", watts_w, counted), reading("unseen", watts_w, None)]
        roster.read([*rows, reading("stranger", 1.0, 1.0)], at_s)

    read(100.0, 5_000.0)
    assert one.total().earned_usd == 0.0, "what was found before the controller came is not ours"
    read(101.0, 5_010.0)
    read(103.0, 5_010.0, None)
    read(104.0, 3.0)
    read(200.0, 3.0)
    seen, unseen = one.devices["seen"], one.devices["unseen"]
    worth = HASHES_PER_DIFFICULTY * USD_PER_HASH
    assert seen.revenue_usd == {"measured": pytest.approx(13 * worth)}, (
        "3 since its agent restarted"
    )
    assert unseen.revenue_usd == {"modelled": pytest.approx(4e14 * USD_PER_HASH)}, "no gap filled"
    assert seen.energy_j == pytest.approx(2 * 3_000.0), "unknown watts are not invented"
    assert seen.seconds_s == pytest.approx(4.0)
    assert one.lease("seen") is not None
    assert "stranger" not in one.devices


GPU = Device("g", "gpu", "a", "main", (OperatingPoint("idle", 0.0, 0.0, 0.0),), 350.0)


def point(gross: float | None, reserve: float, energy: float) -> dict[str, Any]:
    money = {"gross_usd_per_h": gross, "reserve_usd_per_h": reserve, "energy_usd_per_h": energy}
    return {"mode": "mine", **money}


@pytest.mark.parametrize(
    ("gross", "reserve", "energy", "verdict", "words"),
    [
        (0.2, 0.0, 0.1, "earns", "costs 0.10 USD/h and earns 0.20: 0.10 USD/h net at mine"),
        (0.00002, 0.09, 0.071, "reserve", "earns 0.00002: it runs only as reserve worth 0.09"),
        (
            0.00002,
            0.0,
            0.071,
            "idles",
            "hashing on g costs 0.071 USD/h and earns 0.00002: it idles",
        ),
        (0.00002, 0.01, 0.071, "idles", "its reserve would be worth 0.01: it idles"),
        (0.1, 0.0, 0.1, "idles", "it idles"),
        (None, 0.0, 0.071, "idles", "earns an unknown sum (the hashprice is unknown: lost)"),
        (None, 0.09, 0.071, "reserve", "runs only as reserve"),
        (0.01, 0.0, -0.02, "earns", "0.03 USD/h net"),
    ],
)
def test_the_verdict_in_words(
    gross: float | None, reserve: float, energy: float, verdict: str, words: str
) -> None:
    rates = Rates(None, None, 60.0, 0.0, "lost")
    found, sentence = judged(GPU, [point(gross, reserve, energy)], rates)
    assert found == verdict
    assert words in sentence


def test_no_verdict_without_a_price_or_a_point() -> None:
    unknown = Rates(1.0, 1.0, None, 0.0, "")
    assert judged(GPU, [point(1.0, 0.0, 0.0)], unknown)[0] == "unknown"
    assert judged(GPU, [], unknown) == ("unknown", "g offers idle alone now")


def test_money_is_never_a_power_of_ten() -> None:
    shown = [usd(n) for n in (1234.5, 0.1, 0.0714, 0.00002, 1.8e-9, 0.0)]
    assert shown == ["1,234.50", "0.10", "0.071", "0.00002", "0.0000000018", "0"]
