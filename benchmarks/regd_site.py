"""A modelled site on a regulation signal: the real `step`, gates and ASICs, a noisy meter.

Every two seconds the signal becomes a `Target` of site power around the site's base point, as an
aggregator would send it: a positive signal asks for less load. The controller turns once a second,
as it does live; nothing else tells it anything. What is scored is what its own site meter showed
at the moment of each sample, before the controller has answered that sample.

The site first runs all out; what the meter shows then, less what its gates are to hold back, is
what it aims at before the day begins, and the base point is what the meter showed, on average, in
the last part of that: so a site declares one. The range is half of what stands behind the gates,
with some room to spare at both ends; the ASICs stand below and are whole machines. How well a range
can be followed is also a matter of the meter: its noise is a share of all that it shows.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from wattshift_cluster.simulate.devices import LIMITED_SHARE
from wattshift_cluster.simulate.feeds import Feeds, Series
from wattshift_cluster.simulate.run import Drive, bound_s
from wattshift_cluster.simulate.tally import Tally
from wattshift_cluster.simulate.world import World
from wattshift_scheduler import events as ev
from wattshift_scheduler.arrays import Floats
from wattshift_scheduler.jobs import Job, JobKind
from wattshift_scheduler.signals.words import Target
from wattshift_scheduler.site import Device, Feeder, FeederTree, OperatingPoint, Rules, Site
from wattshift_scheduler.values import Values

SEED = 3
CONTROL_PERIOD_S = 1.0
"""The controller's own period."""

SIGNAL_S = 2.0
"""Spacing of the signal."""

GATES, GATE_W = 16, 700.0
ASIC_W, FIRMWARE_S = 3500.0, 60.0

ROOM_SHARE = 0.04
"""Of what is behind the gates, kept free at both ends of the range: the signal's extremes must not
meet the end of the gates."""

FREE_S, WARM_S, SETTLED_S = 300.0, 900.0, 200.0
"""Before the day: until when everything runs, and until when the middle of the range is held; and
the last part of the latter, which sets the base."""

SEEN_S = 60.0
"""The last part of the former, which tells what everything draws."""

USD_PER_MWH, HASHPRICE = 45.0, 42.3
ASIC_USD_PER_MWH, GATE_USD_PER_MWH = 100.0, 60.0
"""A gated watt is the cheapest one here, so that regulation is done by gates."""


@dataclass(frozen=True, slots=True)
class Beside:
    """What a site has beside its gates: ASICs, and the bound on load that nobody leases, W."""

    asics: int
    other_w: float


AMPLE, THIN = Beside(6, 4_000.0), Beside(20, 20_000.0)
"""Sites whose range is about a sixth, and about a twentieth, of their base point."""


@dataclass(frozen=True, slots=True)
class Followed:
    """What a site did with a signal.

    Attributes:
        signal_pu: the signal at each sample of it; shape (n,).
        response_pu: base point less what the meter showed, of the range; shape (n,).
        base_w, range_w: the base point as declared, and the range, W.
        aimed_base_w: what the site was told to hold for that base, W.
    """

    signal_pu: Floats
    response_pu: Floats
    base_w: float
    range_w: float
    aimed_base_w: float


@dataclass(slots=True)
class Following(Drive):
    """A run in which a regulation signal sets the target.

    Attributes:
        signal_pu: the signal, one every SIGNAL_S from `begin_s` on; before it, its middle.
        aim_w, range_w: what 0 stands for, W, NaN while nothing is aimed at; from 0 to 1, W.
        begin_s: when the signal begins, s.
        metered_w: by whole second of the run, what the meter showed, W.
    """

    signal_pu: Floats = field(default_factory=lambda: np.zeros(0))
    aim_w: float = math.nan
    range_w: float = 0.0
    begin_s: float = 0.0
    metered_w: dict[int, float] = field(default_factory=dict)
    _sent_w: float = -1.0

    def _signal(self) -> None:
        Drive._signal(self)
        if math.isnan(self.aim_w):
            return
        row = int((self.world.now_s - self.begin_s + 1e-6) // SIGNAL_S)
        now_pu = float(self.signal_pu[min(row, len(self.signal_pu) - 1)]) if row >= 0 else 0.0
        watts_w = self.aim_w - self.range_w * now_pu
        if watts_w != self._sent_w:
            self._sent_w = watts_w
            told = (Target("regulation", "aggregator", watts_w),)
            self.owed.append(ev.SignalChanged("aggregator", targets=told))

    def _turn(self) -> None:
        Drive._turn(self)
        self.metered_w[round(self.world.now_s)] = self.state.meter_w

    def mean_w(self, span_s: float) -> float:
        """What the meter showed lately, on average, W."""
        end = round(self.world.now_s)
        return float(np.mean([self.metered_w[second] for second in range(end - int(span_s), end)]))

    def _settled(self) -> bool:
        # A jump over a quiet stretch would pass over samples of the signal.
        return False


def follow(signal_pu: Floats, beside: Beside = AMPLE, *, one_sided: bool = False) -> Followed:
    """Let a site follow a signal.

    Args:
        signal_pu: -1 to 1, every SIGNAL_S; shape (n,).
        beside: what it has beside its gates.
        one_sided: its base point is the top of its range, so that it can only shed.
    """
    gates_w, room_w = GATES * GATE_W, ROOM_SHARE * GATES * GATE_W
    range_w = gates_w / 2 - room_w
    drive = _drive(_devices(beside.asics), beside.other_w)
    drive.signal_pu, drive.range_w, drive.begin_s = signal_pu, range_w, WARM_S
    drive.until(FREE_S)
    drive.aim_w = drive.mean_w(SEEN_S) - (0.0 if one_sided else LIMITED_SHARE * gates_w / 2)
    drive.until(WARM_S)
    base_w = drive.mean_w(SETTLED_S)
    drive.until(WARM_S + SIGNAL_S * len(signal_pu))
    seen_s = WARM_S + SIGNAL_S * np.arange(len(signal_pu))
    metered_w = np.array([drive.metered_w[round(second)] for second in seen_s])
    return Followed(signal_pu, (base_w - metered_w) / range_w, base_w, range_w, drive.aim_w)


def _drive(devices: Sequence[Device], other_w: float) -> Following:
    top_w = other_w + sum(device.nameplate_w for device in devices)
    tree = FeederTree.of([Feeder("main", None, 1.2 * top_w)])
    site = Site("regulation", tree, rules=Rules(other_load_w=other_w))
    values = Values(
        hashprice_usd_per_ph_day=HASHPRICE,
        reserve_usd_per_mwh=GATE_USD_PER_MWH,
        default_price_usd_per_mwh=USD_PER_MWH,
    )
    flat = Series((0.0,), (USD_PER_MWH,), "constant")
    driven = Feeds(flat, Series((0.0,), (0.0,), "none"), (), "no cap")
    mining = Job("mining", JobKind.MINING, "standing", {"devices": ["*"]}, 0.0)
    world = World.of(site, devices, [mining], SEED)
    return Following(
        site, values, [mining], world, driven, (), Tally(values, bound_s(site, devices)),
        CONTROL_PERIOD_S, 3600.0,
    )  # fmt: skip


def _devices(count: int) -> list[Device]:
    rate = ASIC_W * ASIC_USD_PER_MWH / 1e6 * 24.0 / HASHPRICE * 1e15
    points = (
        OperatingPoint("sleep", 0.01 * ASIC_W, 0.0, FIRMWARE_S),
        OperatingPoint("mine", ASIC_W, rate, FIRMWARE_S),
    )
    gated = (OperatingPoint("idle", 0.0, 0.0, 0.01), OperatingPoint("mine", GATE_W, 1e-5, 0.01))
    asics = [
        Device(f"asic-{i:02d}", "asic", "farm", "main", points, 1.05 * ASIC_W, safe_w=0.01 * ASIC_W)
        for i in range(count)
    ]
    gates = [
        Device(f"gate-{i:02d}", "gpu", "hosts", "main", gated, GATE_W, continuous=True, fenced=True)
        for i in range(GATES)
    ]
    return asics + gates
