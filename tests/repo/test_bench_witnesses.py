"""What the benchmarks make of what they saw: a figure of zero must not come from a blind eye."""

import importlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
ray_watch = importlib.import_module("benchmarks.ray_watch")
ray_kills = importlib.import_module("benchmarks.ray_kills")
shed_site = importlib.import_module("benchmarks.shed_site")
emerald = importlib.import_module("benchmarks.emerald")
emerald_data = importlib.import_module("benchmarks.emerald_data")
emerald_lp = importlib.import_module("benchmarks.emerald_lp")
sys.path.remove(str(ROOT))


def look(at_s: float, ray_w: float, leased_w: float = 0.0) -> object:
    return ray_watch.Look(at_s, {"n0": ray_w}, {"n0": 200.0}, leased_w)


def watch(*looks: object) -> dict[str, float]:
    seen = ray_watch.Watch(list(looks), [ray_watch.Capped(100.0, 130.0, 500.0)])
    figures: dict[str, float] = seen.figures()
    return figures


def test_watts_above_a_cap_count_once_its_transitions_are_over() -> None:
    assert watch(look(101.0, 900.0))["overcommit_w_max"] == 0.0
    late = watch(look(101.0, 900.0), look(113.0, 450.0), look(115.0, 440.0))
    assert late["overcommit_w_max"] == 50.0
    assert late["fits_after_s_max"] == 15.0


def test_watts_that_one_look_saw_twice_are_told_apart() -> None:
    once = watch(look(113.0, 450.0), look(113.5, 400.0), look(115.0, 450.0))
    assert once["overcommit_w_max"] == 0.0
    assert once["overcommit_w_max_one_look"] == 50.0


def test_leases_and_the_other_load_count_beside_what_ray_holds() -> None:
    assert watch(look(115.0, 100.0, 350.0))["overcommit_w_max_one_look"] == 50.0
    assert watch(look(115.0, 100.0, 300.0))["overcommit_w_max_one_look"] == 0.0


def test_watts_above_a_cap_do_not_count_when_it_has_ended() -> None:
    assert watch(look(131.0, 900.0))["overcommit_w_max_one_look"] == 0.0


def test_what_ray_holds_above_what_was_asked_is_its_excess() -> None:
    seen = watch(look(101.0, 260.0), look(103.0, 230.0), look(104.0, 200.0), look(109.0, 201.0))
    assert seen["ray_excess_w_max"] == 60.0
    assert seen["ray_excess_s_max"] == 2.0


def test_every_kind_of_process_is_killed_as_often_as_any_other() -> None:
    kinds = ray_kills.order(12, seed=1)
    assert sorted(kinds) == sorted([*ray_kills.KINDS, *ray_kills.KINDS])
    assert kinds != ray_kills.order(12, seed=2)


MS = 1_000_000


def fall(*looks: tuple[int, bool, int, int]) -> object:
    """The gate as seen around a cut at 1,000 ms; times in ms."""
    return shed_site._fall([(at * MS, up, end * MS, n) for at, up, end, n in looks], 1000 * MS)


def test_a_gate_is_gone_with_the_end_of_its_last_launch() -> None:
    seen = fall((999, True, 998, 5), (1010, True, 1009, 6), (1012, False, 1009, 6))
    later = fall((999, True, 998, 5), (1012, False, 1009, 6), (1013, False, 1013, 7))
    assert seen == shed_site.GateFall(True, 12.0, 9.0, 0.0)
    assert later == shed_site.GateFall(True, 12.0, 13.0, 1.0)


def test_a_gate_that_stays_open_or_opens_again_is_not_gone() -> None:
    assert fall((999, True, 998, 5), (1010, True, 1009, 6)).gone_ms is None  # type: ignore[attr-defined]
    again = fall((999, True, 998, 5), (1010, False, 1009, 6), (1020, True, 1019, 7))
    assert again.gone_ms is None  # type: ignore[attr-defined]


def test_a_worker_that_stood_still_tells_nothing_of_a_cut() -> None:
    assert not fall((999, True, 500, 5), (1010, False, 500, 5)).mining  # type: ignore[attr-defined]


STEPS = (emerald_data.Step(400.0, 1.0), emerald_data.Step(200.0, 0.8))
JOBS = tuple(emerald_data.Workload(f"flex-{i}", "", 10, i, STEPS) for i in range(4))


def test_the_best_mix_keeps_every_class_to_its_promise() -> None:
    full_w = emerald_lp.base_w(JOBS)
    assert emerald_lp.best_performance(JOBS, full_w) == pytest.approx(1.0)
    # The two most flexible jobs can give half of their watts for a fifth of their work.
    share = emerald_lp.weights(JOBS)
    lost = 0.2 * (share["flex-3"] + share["flex-2"])
    assert emerald_lp.best_performance(JOBS, 0.75 * full_w) == pytest.approx(1.0 - lost)
    # Class 0 gives nothing and class 1 a tenth: at a third of the watts there is no such mix.
    assert emerald_lp.best_performance(JOBS, full_w / 3) is None


@pytest.mark.parametrize(
    ("performance", "held"),
    [
        ((1.0, 1.0, 1.0, 1.0), 1),
        ((1.0, 1.0, 0.9, 0.6), 1),
        ((1.0, 1.0, 0.9, 1.0), 0),
        ((1.0, 1.0, 1.0, 0.4), 0),
        ((0.99, 0.9, 0.8, 0.6), 0),
    ],
)
def test_the_order_of_classes_is_broken_by_too_much_and_by_too_soon(
    performance: tuple[float, ...], held: int
) -> None:
    names = [job.name for job in JOBS]
    assert emerald._by_class_order(JOBS, dict(zip(names, performance, strict=True))) == held
