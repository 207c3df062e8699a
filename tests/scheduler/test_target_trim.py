"""A target that the meter closes: a modelled site converges on it, within its cap, without a cycle,
and without a meter nothing is raised; each guard is seen to matter."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from wattshift_cluster.simulate import world
from wattshift_cluster.simulate.feeds import Feeds, Series
from wattshift_cluster.simulate.run import Drive, bound_s
from wattshift_cluster.simulate.tally import Tally
from wattshift_cluster.simulate.world import World
from wattshift_scheduler import events as ev
from wattshift_scheduler.in_force import effective
from wattshift_scheduler.jobs import Job, JobKind
from wattshift_scheduler.signals import trim
from wattshift_scheduler.signals.trim import MOST_SHARE, Seen, Trim, trimmed
from wattshift_scheduler.signals.words import Cap, Target
from wattshift_scheduler.site import Device, Feeder, FeederTree, OperatingPoint, Rules, Site
from wattshift_scheduler.values import Values

OTHER_W, GATE_W, ASIC_W = 5_000.0, 700.0, 3_000.0
AIM_W = 15_000.0
READY_S, TWO_MINUTES_S = 8, 115

Hook = Callable[["Yard"], None]


@dataclass(slots=True)
class Yard(Drive):
    """A modelled site that is turned every second; what its meter truly carries is written down."""

    metered_w: list[float] = field(default_factory=list)
    awake: list[int] = field(default_factory=list)

    def _settled(self) -> bool:
        return False

    def says(self, source: str, *caps: Cap, targets: tuple[Target, ...] = ()) -> None:
        self.owed.append(ev.SignalChanged(source, caps, targets=targets))

    def aims(self, watts_w: float | None, source: str = "vtn") -> None:
        held = () if watts_w is None else (Target("t", source, watts_w),)
        self.says(source, targets=held)

    def seconds(self, count: int, each: Hook | None = None) -> None:
        for _ in range(count):
            self.until(self.world.now_s + 1.0)
            self.metered_w.append(float(self.world.feeder_w()[0]))
            asics = (one for one in self.world.devices.values() if not one.device.fenced)
            self.awake.append(sum(one.goal_w > 100.0 for one in asics))
            if each is not None:
                each(self)

    @property
    def trim_w(self) -> float:
        return self.state.memory.trim.watts_w


def yard(gates: int = 8, asics: int = 3) -> Yard:
    rate = ASIC_W * 100.0 / 1e6 * 24.0 / 42.3 * 1e15
    whole = (OperatingPoint("sleep", 30.0, 0.0, 5.0), OperatingPoint("mine", ASIC_W, rate, 5.0))
    part = (OperatingPoint("idle", 0.0, 0.0, 0.01), OperatingPoint("mine", GATE_W, 1e-5, 0.01))
    devices = [
        *(Device(f"a{i}", "asic", "farm", "main", whole, 1.05 * ASIC_W) for i in range(asics)),
        *(
            Device(f"g{i}", "gpu", "host", "main", part, GATE_W, continuous=True, fenced=True)
            for i in range(gates)
        ),
    ]
    site = Site(
        "s", FeederTree.of([Feeder("main", None, 40_000.0)]), (), Rules(other_load_w=OTHER_W)
    )
    values = Values(
        hashprice_usd_per_ph_day=42.3, reserve_usd_per_mwh=60.0, default_price_usd_per_mwh=45.0
    )
    flat, none = Series((0.0,), (45.0,), "constant"), Series((0.0,), (0.0,), "none")
    mine = Job("mine", JobKind.MINING, "mine", {"devices": ["*"]}, 0.0)
    made = World.of(site, devices, [mine], 3)
    tally = Tally(values, bound_s(site, devices))
    return Yard(site, values, [mine], made, Feeds(flat, none, (), "none"), (), tally, 1.0, 1e6)


def aimed(seconds: int) -> Yard:
    """A site that has had a target for `seconds`."""
    one = yard()
    one.seconds(READY_S)
    one.aims(AIM_W)
    one.seconds(seconds)
    return one


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time constants of a sixth: a second of these tests costs as much as one of a site."""
    for name in ("RISE_S", "FALL_S", "FAST_S", "STALE_S"):
        monkeypatch.setattr(trim, name, getattr(trim, name) / 6.0)


@pytest.mark.parametrize(("error", "within_s"), [(-0.1, TWO_MINUTES_S), (0.1, 40)])
def test_a_site_whose_overhead_is_wrong_converges(
    monkeypatch: pytest.MonkeyPatch, error: float, within_s: int
) -> None:
    monkeypatch.setattr(world, "OTHER_SHARE", 1.0 + error)
    one = aimed(within_s)
    late_w = one.metered_w[-5:]
    assert max(abs(watts_w - AIM_W) for watts_w in late_w) < 0.01 * AIM_W
    reached = next(i for i, w in enumerate(one.metered_w) if i > READY_S and w < 1.01 * AIM_W)
    assert max(one.metered_w[reached:]) < 1.02 * AIM_W, "it does not overshoot"
    if error < 0:
        fed_w = AIM_W - one.trim_w
        assert fed_w < 0.97 * AIM_W, "without the trim it would settle below"


def test_without_the_trim_it_settles_below(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(effective, "trimmed", lambda *_: Trim())
    one = aimed(15)
    assert one.metered_w[-1] < 0.97 * AIM_W


@pytest.mark.usefixtures("quick")
def test_it_ends_with_its_target() -> None:
    one = aimed(12)
    assert one.trim_w > 0.0
    one.aims(None)
    one.seconds(1)
    assert one.state.memory.trim == Trim()


@pytest.mark.usefixtures("quick")
def test_no_cap_is_exceeded_in_any_turn() -> None:
    one = aimed(20)
    assert one.trim_w > 0.02 * AIM_W
    cap_w = 1.01 * AIM_W
    one.says("utility", Cap("c", "utility", cap_w))

    def within(self: Yard) -> None:
        now, outlook = self.state.verdict, self.state.outlook
        assert now is not None
        assert now.aim_w + now.trim_w <= now.cap_w
        assert outlook.budget_w <= cap_w * (1.0 - self.site.rules.margin_share) + 1e-6
        assert self.metered_w[-1] <= cap_w

    one.seconds(6)
    one.seconds(6, within)
    for watts_w in (0.9 * cap_w, 1.2 * cap_w, 0.6 * cap_w):
        one.aims(watts_w)
        one.seconds(5, within)


@pytest.mark.usefixtures("quick")
def test_whole_machines_are_not_turned_on_and_off(monkeypatch: pytest.MonkeyPatch) -> None:
    def cooled(self: World, was: Any = World.feeder_w) -> Any:
        flow_w = was(self)
        flow_w[0] += 0.12 * (flow_w[0] - OTHER_W * world.OTHER_SHARE)
        return flow_w

    monkeypatch.setattr(World, "feeder_w", cooled)
    monkeypatch.setattr(world, "OTHER_SHARE", 0.7)
    one = yard(gates=0, asics=6)
    one.seconds(READY_S)
    monkeypatch.setattr(trim, "AGAIN_S", 10.0)
    one.aims(AIM_W)
    one.seconds(70)
    turns = sum(a != b for a, b in zip(one.awake[20:], one.awake[21:], strict=False))
    assert turns <= 1, "what a rung draws beside itself must not turn it off again"


@pytest.mark.usefixtures("quick")
def test_a_lost_meter_freezes_the_trim_and_then_gives_it_back() -> None:
    one = aimed(20)
    kept_w = one.trim_w
    assert kept_w > 0.02 * AIM_W
    one.world.meter_lost = True
    one.seconds(int(trim.STALE_S) - 1)
    assert one.trim_w == kept_w
    before_w = kept_w
    one.seconds(3)
    for _ in range(3):
        one.seconds(2)
        assert one.trim_w < before_w
        before_w = one.trim_w
    assert before_w < 0.6 * kept_w


# the rules, one by one

NOW_S = 1000.0
HELD = Trim(500.0, "vtn", 10_000.0, 10_000.0, NOW_S - 60, NOW_S - 1, -math.inf, NOW_S - 1)
AIM = Target("t", "vtn", 10_000.0)


def seen(metered_w: float, committed_w: float = 10_500.0, **more: Any) -> Seen:
    plain = Seen(metered_w, NOW_S, committed_w, 10_000.0, NOW_S - 10, False, 5.0)
    return replace(plain, **more)


@pytest.mark.parametrize(
    ("told", "sign"),
    [
        (seen(9_500.0), 1),
        (seen(9_960.0), 0),  # within the meter's class
        (seen(10_400.0), -1),
        (seen(9_500.0, 9_600.0), 0),  # too few devices: nothing winds up
        (seen(10_400.0, 11_500.0), 0),  # one that does not obey is counted already
        (seen(9_500.0, settled_s=NOW_S + 1), 0),  # something is on its way
        (seen(9_500.0, settled_s=math.inf), 0),
        (seen(9_500.0, aim_w=12_000.0), 0),  # a ramp has not come down yet
        (seen(9_500.0, aim_w=math.inf), 0),
        (seen(9_500.0, math.nan), 0),  # nothing was decided yet
        (seen(9_500.0, sampled_s=NOW_S - 1), 0),  # the same sample again
        (seen(9_500.0, sampled_s=NOW_S - 6), 0),  # stale
        (seen(math.nan), 0),
    ],
)
def test_when_it_rises_and_falls(told: Seen, sign: int) -> None:
    found = trimmed(HELD, AIM, told, NOW_S)
    assert (found.watts_w > 500.0, found.watts_w < 500.0) == (sign > 0, sign < 0)


def test_it_is_bounded_both_ways() -> None:
    held = HELD
    for second in range(1, 200):
        now_s = NOW_S + second
        far = seen(8_000.0, 10_000.0 + held.watts_w, sampled_s=now_s)
        held = trimmed(held, AIM, far, now_s)
    assert held.watts_w == MOST_SHARE * AIM.watts_w
    for second in range(200, 300):
        now_s = NOW_S + second
        far = seen(13_000.0, 10_000.0 + held.watts_w, sampled_s=now_s)
        held = trimmed(held, AIM, far, now_s)
    assert held.watts_w == -MOST_SHARE * AIM.watts_w
    blind = seen(13_000.0, sampled_s=NOW_S + 299)
    assert trimmed(held, AIM, blind, NOW_S + 999).watts_w == held.watts_w, "a cut is not given back"


@pytest.mark.parametrize(
    ("target", "left_w"),
    [
        (replace(AIM, watts_w=9_000.0), 500.0),
        (replace(AIM, watts_w=6_000.0), 0.0),
        (replace(AIM, watts_w=14_000.0), 0.0),
        (replace(AIM, origin="desk"), 0.0),
        (replace(AIM, id="next interval"), 500.0),
    ],
)
def test_what_was_learnt_is_forgotten_where_the_target_is_another(
    target: Target, left_w: float
) -> None:
    held = trimmed(HELD, target, seen(9_000.0, aim_w=target.watts_w, sampled_s=NOW_S - 1), NOW_S)
    assert held.watts_w == left_w
    moved = target.watts_w != AIM.watts_w or target.origin != AIM.origin
    soon = trimmed(held, target, seen(5_000.0, aim_w=5_500.0, sampled_s=NOW_S + 9), NOW_S + 9)
    assert (soon.watts_w == left_w) is moved, "nothing is learnt of a target that has just moved"


def test_after_it_was_lowered_it_wakes_no_machine_for_a_while() -> None:
    held = replace(HELD, lowered_s=NOW_S - 100)
    assert trimmed(held, AIM, seen(9_500.0, whole=True), NOW_S).watts_w == 500.0
    assert trimmed(held, AIM, seen(9_500.0), NOW_S).watts_w > 500.0
    late = NOW_S + trim.AGAIN_S
    later = seen(9_500.0, sampled_s=late, whole=True)
    assert trimmed(held, AIM, later, late).watts_w > 500.0
