"""From a lease to the gate's intensities: the model's bound, throttling, steady draw, measuring."""

from dataclasses import replace
from pathlib import Path

import pytest

from wattshift_cluster.agent.child import Totals
from wattshift_cluster.agent.gpu.cards import Card
from wattshift_cluster.agent.gpu.sample import GpuSample
from wattshift_cluster.agent.leases import Lease
from wattshift_cluster.agent.meters import Draw
from wattshift_cluster.agent.power.model import MINING_SHARE, PowerModel
from wattshift_cluster.agent.power.steady import Intensities, SteadySettings
from wattshift_cluster.agent.specs import HashingSpec, cpu_spec, gpu_spec
from wattshift_cluster.agent.steering import HASH, IDLE, Steering, top_w
from wattshift_cluster.agent.throttle import CLEAR_S, BackOff

CARD = Card(index=0, uuid="GPU-1", name="H200", driver="580.1", limit_w=700.0, idle_w=100.0)


def lease(watts_w: float, mode: str = HASH) -> Lease:
    return Lease("gpu0", 1, 1, mode, watts_w, 100.0)


def spec(steady: SteadySettings | None = None) -> HashingSpec:
    return gpu_spec("gpu0", Path("/nowhere"), CARD, 19, "host", steady=steady)


def taught(spec: HashingSpec, gain: float = 1.0) -> PowerModel:
    """A model that has seen a line from idle to `gain` times the expected top."""
    model = PowerModel.prior(spec.idle_w, spec.top_w, spec.nameplate_w)
    for turn in range(60):
        share = (turn % 11) / 10
        model.observe(share, 0.0, spec.idle_w + gain * share * (spec.top_w - spec.idle_w))
    return model


def draw(
    watts_w: float | None,
    duty: float = 0.5,
    throttled: tuple[str, ...] = (),
    limit_w: float = 700.0,
) -> Draw:
    card = GpuSample(0.0, watts_w, enforced_limit_w=limit_w, throttled=throttled)
    return Draw(0.0, watts_w, watts_w, duty, 1.0, Totals(1, 1, 1), card)


def test_an_unknown_card_gets_less_than_its_lease_might_allow_and_a_known_one_nearly_all() -> None:
    unknown = PowerModel.prior(100.0, MINING_SHARE * 700, 700.0)
    shy, sure = Steering(spec(), unknown), Steering(spec(), taught(spec()))
    half_w = 100.0 + (MINING_SHARE * 700 - 100.0) / 2
    assert 0 < shy.allowed_pct(lease(half_w)) < sure.allowed_pct(lease(half_w)) <= 50
    assert sure.allowed_pct(lease(half_w)) >= 45
    assert sure.allowed_pct(lease(half_w, IDLE)) == 0
    assert sure.allowed_pct(None) == 0


def test_the_offered_top_is_reached_by_its_own_lease() -> None:
    for model in (PowerModel.prior(100.0, 560.0, 700.0), taught(spec(), 0.6)):
        steering = Steering(spec(), model)
        offered_w = top_w(spec(), model)
        assert offered_w <= MINING_SHARE * 700
        allowed_pct = steering.allowed_pct(lease(offered_w))
        assert model.estimate(allowed_pct / 100).high_w <= offered_w + 1e-6
    assert Steering(spec(), taught(spec(), 0.6)).allowed_pct(lease(offered_w)) >= 99


def test_a_lowered_limit_lowers_what_a_lease_allows() -> None:
    steering = Steering(spec(), taught(spec()))
    full = steering.update(0.0, lease(560.0), draw(500.0), busy=False, wall_s=0.0)
    cut = steering.update(0.1, lease(560.0), draw(300.0, limit_w=350.0), busy=False, wall_s=0.0)
    assert cut.idle_pct < full.idle_pct
    assert steering.model is not None
    assert steering.model.estimate(cut.idle_pct / 100).high_w <= MINING_SHARE * 350


def test_a_cpu_gets_the_share_of_its_watts() -> None:
    steering = Steering(cpu_spec("cpu0", Path("/nowhere"), 50.0, 19, None), None)
    assert [steering.allowed_pct(lease(w)) for w in (0.0, 0.4, 25.0, 50.0, 99.0)] == [
        *(0, 0, 50, 100, 100)
    ]
    assert steering.begin(lease(25.0), 0.0) is not None, "a modelled draw is not measured"


def test_a_throttling_card_is_relieved_at_once_and_loaded_again_slowly() -> None:
    steering = Steering(spec(), taught(spec()))
    full = steering.update(0.0, lease(560.0), draw(540.0), busy=False, wall_s=0.0)
    hot = draw(540.0, throttled=("power_cap",))
    first = steering.update(0.1, lease(560.0), hot, busy=False, wall_s=0.0)
    assert first.idle_pct <= full.idle_pct / 2
    assert steering.limited_by == "the card throttles: power_cap"
    after = [
        steering.update(0.1 + t, lease(560.0), draw(300.0), busy=False, wall_s=0.0).idle_pct
        for t in (1.0, CLEAR_S - 1, CLEAR_S + 1, CLEAR_S + 2, CLEAR_S + 60)
    ]
    assert after[0] == after[1] == first.idle_pct
    assert after[1] < after[2] < after[3]
    assert after[4] >= full.idle_pct - 2, "what it drew meanwhile was learnt"
    assert steering.limited_by is None


def test_a_steady_draw_gives_way_to_throttling_too_and_comes_back() -> None:
    settings = SteadySettings(target_w=400.0, ramp_w_per_s=1000.0)
    steering = Steering(spec(settings), taught(spec(settings)))

    def after(since_s: float, seconds: int, throttled: tuple[str, ...] = ()) -> int:
        for turn in range(seconds * 10):
            now_s = since_s + turn * 0.1
            watts_w = 100.0 + 460.0 * steering.told.idle_pct / 100
            seen = draw(watts_w, steering.told.idle_pct / 100, throttled)
            steering.update(now_s, lease(560.0), seen, busy=False, wall_s=now_s)
        return steering.told.idle_pct

    before = after(0.0, 20)
    hot = after(20.0, 4, ("power_cap",))
    assert hot < before / 2
    assert steering.note == "the card throttles: power_cap"
    assert after(24.0, 8) <= hot, "it has not been clear for long enough"
    assert after(32.0, 60) == pytest.approx(before, abs=2)


def test_throttling_without_mining_is_not_minings_to_mend() -> None:
    back_off = BackOff()
    assert back_off.update(0.0, ("thermal",), mining=False) == 1.0
    assert back_off.update(1.0, ("thermal",), mining=True) == 0.5
    assert back_off.update(1.5, ("thermal",), mining=True) == 0.5, "once a second"
    assert back_off.update(2.1, ("thermal",), mining=False) == 0.25, "what it began it goes on with"


def test_a_steady_draw_is_held_beside_inference_but_never_beyond_the_lease() -> None:
    settings = SteadySettings(target_w=400.0, ramp_w_per_s=1000.0)
    steering = Steering(spec(settings), taught(spec(settings)))
    for turn in range(100):
        chosen = steering.update(
            turn * 0.1, lease(560.0), draw(400.0, 0.65), busy=turn % 2 == 0, wall_s=0.0
        )
    assert chosen.idle_pct > chosen.busy_pct > 0
    capped = steering.update(10.1, lease(250.0), draw(400.0, 0.65), busy=False, wall_s=0.0)
    most_pct = steering.allowed_pct(lease(250.0))
    assert max(capped.idle_pct, capped.busy_pct) <= most_pct < chosen.idle_pct
    assert steering.update(10.2, None, draw(100.0), busy=False, wall_s=0.0) == Intensities(0, 0)


def test_a_measurement_stays_within_the_lease_and_gives_way_to_inference() -> None:
    steering = Steering(spec(), taught(spec()))
    assert steering.begin(lease(330.0), 0.0) is None
    assert steering.begin(lease(330.0), 0.0) == "it is being measured already"
    seen = set()
    for turn in range(600):
        now_s = turn * 0.1
        before_pct = steering.allowed_pct(lease(330.0))
        chosen = steering.update(now_s, lease(330.0), draw(150.0, 0.2), busy=False, wall_s=now_s)
        seen.add(chosen.idle_pct)
        if steering.profile is not None and steering.profile.done:
            break
        assert chosen.idle_pct <= before_pct, "each step is one that the lease allowed"
    assert len(seen) >= 3
    steering.begin(lease(330.0), 100.0)
    steering.update(100.1, lease(330.0), draw(150.0), busy=True, wall_s=0.0)
    assert steering.profile is not None
    assert steering.profile.aborted == "inference needs the device"


def test_nothing_is_learnt_right_after_a_change_or_from_an_unknown_draw() -> None:
    model = PowerModel.prior(100.0, 560.0, 700.0)
    steering = Steering(spec(), model)
    for turn in range(20):
        steering.update(turn * 0.1, lease(560.0), draw(450.0), busy=False, wall_s=0.0)
    assert model.as_dict()["cells"] == []
    for turn in range(20, 60):
        blind = replace(draw(None), mean_w=None)
        steering.update(turn * 0.1, lease(560.0), blind, busy=False, wall_s=0.0)
    assert model.as_dict()["cells"] == []
    steering.update(9.1, lease(560.0), draw(450.0), busy=False, wall_s=0.0)
    assert len(model.as_dict()["cells"]) == 1


@pytest.mark.parametrize("slices", [(), ("MIG-1", "MIG-2")])
def test_a_card_cut_into_slices_does_not_hash(slices: tuple[str, ...]) -> None:
    cut = gpu_spec("gpu0", Path("/nowhere"), replace(CARD, mig=slices), 19, None)
    assert (cut.refusal is None) == (not slices)
