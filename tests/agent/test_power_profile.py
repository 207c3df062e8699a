"""The steps of a profile on a modelled device: at rest, within the lease, given up if need be."""

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from wattshift_cluster.agent.power.model import PowerModel
from wattshift_cluster.agent.power.profile import SETTLE_MOST_S, Profile, ProfileSample

IDLE_W, TOP_W, LIMIT_W = 80.0, 500.0, 700.0
TURN_S = 0.1
Change = Callable[[float, ProfileSample], ProfileSample]


def drawn_w(pct: float) -> float:
    return 85.0 + 4.6 * pct - 0.006 * pct**2


class Rig:
    """A device whose draw follows the intensity with a lag."""

    def __init__(self, lease_w: float = 560.0, lag_s: float = 0.5) -> None:
        self.model = PowerModel.prior(IDLE_W, TOP_W, LIMIT_W)
        self.profile = Profile(lease_w, self.model, 0.0)
        self.lease_w, self.lag_s = lease_w, lag_s
        self.now_s, self.watts_w, self.hashes, self.pct = 0.0, IDLE_W, 0, 0
        self.worst_w = 0.0
        self.rng = random.Random(1)

    def run(self, change: Change = lambda _, sample: sample, most_s: float = 150.0) -> None:
        while self.now_s < most_s:
            self.now_s += TURN_S
            self.watts_w += min(1.0, TURN_S / self.lag_s) * (drawn_w(self.pct) - self.watts_w)
            self.worst_w = max(self.worst_w, self.watts_w)
            self.hashes += round(self.pct * 1e6 * TURN_S)
            noisy_w = self.watts_w + self.rng.gauss(0, 0.5)
            sample = ProfileSample(noisy_w, self.pct / 100, self.hashes, self.lease_w)
            chosen = self.profile.next(self.now_s, change(self.now_s, sample))
            if chosen is None:
                return
            self.pct = chosen
        pytest.fail("it does not end")


def test_it_measures_every_step_at_rest_and_learns_the_curve() -> None:
    rig = Rig()
    rig.run()
    assert (rig.profile.aborted, rig.profile.done) == (None, True)
    result = rig.profile.result
    assert result is not None
    steps = [point.intensity_pct for point in result.points]
    assert {0, 10, 25, 50, 75, 100} <= set(steps)
    for point in result.points:
        assert point.watts_w == pytest.approx(drawn_w(point.intensity_pct), abs=2.0)
        assert point.error_w < 2.0
        assert point.hashrate_h_per_s == pytest.approx(point.intensity_pct * 1e6, rel=0.05, abs=1)
        assert 4.0 < point.seconds < SETTLE_MOST_S + 4.0
    assert result.residual_w < 6.0
    assert [len(result.fitted), rig.model.known] == [len(steps), True]
    assert rig.model.estimate(0.6).mean_w == pytest.approx(drawn_w(60), abs=8)


@pytest.mark.parametrize("lease_w", [150.0, 200.0, 320.0])
def test_no_step_exceeds_the_lease(lease_w: float) -> None:
    rig = Rig(lease_w)
    rig.run()
    assert rig.profile.aborted is None
    assert rig.worst_w <= lease_w
    assert rig.profile.result is not None
    reached_w = drawn_w(max(point.intensity_pct for point in rig.profile.result.points))
    assert reached_w > 0.75 * lease_w, "what the first steps teach opens the next ones"


def test_a_draw_that_climbs_slowly_is_waited_for() -> None:
    quick, slow = Rig(lag_s=0.3), Rig(lag_s=2.0)
    quick.run()
    slow.run()
    assert slow.now_s > quick.now_s + 5
    assert slow.profile.result is not None
    for point in slow.profile.result.points:
        assert point.watts_w == pytest.approx(drawn_w(point.intensity_pct), abs=8.0)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"busy": True}, "inference"),
        ({"lease_w": 300.0}, "lease fell"),
        ({"lease_w": 0.0}, "lease fell"),
        ({"throttled": "heat"}, "heat"),
        ({"watts_w": None}, "no reading"),
        ({"watts_w": float("nan")}, "no reading"),
        ({"watts_w": 600.0}, "were drawn"),
    ],
    ids=str,
)
def test_it_gives_up_cleanly(fields: dict[str, object], reason: str) -> None:
    rig = Rig()
    rig.run(lambda now_s, sample: replace(sample, **fields) if now_s > 20 else sample)  # type: ignore[arg-type]
    assert rig.profile.done
    assert reason in str(rig.profile.aborted)
    assert rig.now_s < 23
    again = ProfileSample(100.0, 0.0, rig.hashes, rig.lease_w)
    assert rig.profile.next(rig.now_s + 1, again) is None, "it stays given up"
    assert rig.profile.result is not None, "what was measured until then is kept"


def test_a_short_gap_is_no_reason_to_give_up() -> None:
    rig = Rig()
    rig.run(lambda now_s, s: replace(s, watts_w=None) if 20 < now_s < 21.5 else s)
    assert rig.profile.aborted is None
