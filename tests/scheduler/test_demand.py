"""How many units a job wants: bursts at once, promises before they are missed, slow to shrink."""

from dataclasses import replace

import pytest

from wattshift_scheduler.compute import demand
from wattshift_scheduler.jobs import Job, JobKind, JobState, Terms
from wattshift_scheduler.site import Rules

RULES = Rules(scale_down_after_s=30.0)


def _service(**named: object) -> Job:
    base = Job("s", JobKind.SERVICE, "s", {}, 0.0, unit_w=100.0, min_units=1, max_units=12)
    return replace(base, state=JobState.RUNNING, **named)  # type: ignore[arg-type]


def _heard(job: Job, now_s: float, **told: object) -> Job:
    """A report comes, and the size follows in the same step, as in a turn of the core."""
    job = demand.looked(replace(job, **told), now_s)  # type: ignore[arg-type]
    return demand.sized(job, RULES, now_s)


def _given(job: Job) -> Job:
    """All that is wanted is granted and serves."""
    return replace(job, units=demand.units(job), running=demand.units(job))


def test_a_burst_is_answered_in_the_step_of_its_report_and_in_full() -> None:
    job = _heard(_service(units=1, running=1), 1.0, ongoing=1.0)
    assert demand.units(job) == 1
    assert demand.units(_heard(job, 1.05, ongoing=17.0)) == 9


def test_serves_own_desire_goes_before_our_reckoning_and_stays_within_the_bounds() -> None:
    job = _service(units=2, running=2)
    assert demand.units(_heard(job, 1.0, ongoing=20.0, desired=3)) == 3
    assert demand.units(_heard(job, 1.0, ongoing=0.0, desired=99)) == 12
    assert demand.units(_heard(job, 1.0, ongoing=50.0, desired=None)) == 12


def test_watts_are_asked_for_before_a_latency_misses_its_promise() -> None:
    """The latency climbs by 40 ms a second and a replica needs 6 s: it is wanted far below 1 s."""
    job = _service(units=2, running=2, slo_p95_ms=1000.0, desired=2)
    asked_ms = None
    for second in range(12):
        p95_ms = 500.0 + 40.0 * second
        job = _heard(job, float(second), p95_ms=p95_ms, ongoing=3.0)
        if demand.units(job) > 2:
            asked_ms = p95_ms
            break
    assert asked_ms is not None
    assert 600.0 < asked_ms < 800.0


@pytest.mark.parametrize(
    ("terms", "told"),
    [
        (Terms(slo_ttft_p95_ms=200.0), {"ttft_p95_ms": 190.0}),
        (Terms(slo_itl_p95_ms=50.0), {"itl_p95_ms": 49.0}),
    ],
)
def test_a_language_models_promises_count_as_a_latency_does(
    terms: Terms, told: dict[str, float]
) -> None:
    job = _service(units=2, running=2, terms=terms, desired=2)
    calm = {name: value / 2 for name, value in told.items()}
    assert demand.units(_heard(job, 1.0, **calm)) == 2
    assert demand.units(_heard(job, 1.0, **told)) == 3


def test_a_steady_latency_within_its_promise_asks_for_nothing() -> None:
    job = _service(units=2, running=2, slo_p95_ms=1000.0, desired=2)
    for second in range(30):
        job = _heard(job, float(second), p95_ms=800.0 + 20.0 * (second % 2), ongoing=3.0)
        assert demand.units(job) == 2


def test_a_queue_that_grows_is_foreseen_to_when_a_replica_would_be_up() -> None:
    job = _service(units=4, running=4)
    for second, ongoing in enumerate((2.0, 4.0, 6.0, 8.0)):
        job = _heard(job, float(second), ongoing=ongoing)
    # 8 in progress need 4; in 6 s there would be 20.
    assert demand.units(job) == 8  # no more than twice what there is, whatever the line says


def test_a_growing_queue_asks_by_what_its_last_request_would_wait() -> None:
    """Serve sees no need yet, and no latency is known: what counts is the wait in the queue."""
    job = _service(units=2, running=2, slo_p95_ms=1000.0, desired=2, rate_per_s=5.0)
    for second, ongoing in enumerate((2.0, 3.0, 4.0)):
        job = _heard(job, float(second), ongoing=ongoing)
    assert demand.units(job) == 3


def test_the_promise_takes_one_replica_more_and_waits_for_it_to_serve() -> None:
    job = _service(units=2, running=2, slo_p95_ms=100.0, desired=2)
    job = _heard(job, 1.0, p95_ms=400.0)
    assert demand.units(job) == 3
    job = replace(job, units=3)
    for second in range(2, 8):
        job = _heard(job, float(second), p95_ms=400.0)
        assert demand.units(job) == 3, "the third is still starting"
    for second in range(8, 20):
        job = _heard(job, float(second), running=3, p95_ms=400.0)
    assert demand.units(job) == 4


def test_how_far_ahead_it_looks_follows_how_long_its_replicas_take() -> None:
    """A model that takes 20 s to load is asked for at a latency at which another can wait."""

    def wanted(up_s: float) -> int:
        load = replace(_service().load, up_s=up_s)
        job = _service(units=2, running=2, slo_p95_ms=1000.0, desired=2, load=load)
        for second in range(4):
            job = _heard(job, float(second), p95_ms=500.0 + 20.0 * second)
        return demand.units(job)

    assert (wanted(5.0), wanted(25.0)) == (2, 3)


def test_the_time_that_a_replica_takes_is_learnt_only_from_one_seen_starting() -> None:
    job = _heard(_service(units=1, running=1), 0.0, ongoing=9.0)
    job = replace(job, units=5)
    for second in range(1, 9):
        job = _heard(job, float(second), running=1, ongoing=9.0)
    job = _heard(job, 9.0, running=5, ongoing=9.0)
    assert job.load.up_s == pytest.approx(8.0)
    found = demand.sized(_service(units=3, running=0), RULES, 49.0)
    found = _heard(found, 50.0, running=3)
    assert not found.load.up_s > 0, "after a restart they have been up for who knows how long"


def test_replicas_that_serve_does_not_want_yet_teach_nothing_about_starting() -> None:
    job = _heard(_service(units=4, running=1), 0.0, desired=1)
    for second in range(1, 30):
        job = _heard(job, float(second), desired=1)
    for second in range(30, 34):
        job = _heard(job, float(second), desired=4)
    job = _heard(job, 34.0, running=4, desired=4)
    assert job.load.up_s == pytest.approx(4.0)


def test_replicas_go_after_a_quiet_time_and_no_more_than_the_quiet_allowed() -> None:
    job = _given(_heard(_service(units=1, running=1), 0.0, desired=8))
    for second in range(1, 20):
        job = _heard(job, float(second), desired=2)
        assert demand.units(job) == 8
    job = _heard(job, 20.0, desired=5)  # a small burst within the quiet time
    for second in range(21, 31):
        job = _heard(job, float(second), desired=2)
    assert demand.units(_heard(job, 31.5, desired=2)) == 5


def test_a_load_that_returns_in_the_quiet_time_starts_it_anew() -> None:
    job = _given(_heard(_service(units=1, running=1), 0.0, desired=4))
    job = _heard(job, 1.0, desired=2)
    job = _heard(job, 20.0, desired=4)
    assert job.quiet_since_s is None
    job = _heard(job, 21.0, desired=2)
    assert demand.units(_heard(job, 40.0, desired=2)) == 4
    assert demand.units(_heard(job, 51.5, desired=2)) == 2


def test_replicas_stay_while_the_latency_stands_close_to_its_promise() -> None:
    job = _given(_heard(_service(units=1, running=1, slo_p95_ms=100.0), 0.0, desired=4))
    for second in range(1, 90):
        job = _heard(job, float(second), desired=2, p95_ms=70.0, ongoing=5.0)
    assert demand.units(job) == 4
    for second in range(90, 180):  # the same latency with nobody waiting is the model's own
        job = _heard(job, float(second), desired=2, p95_ms=70.0, ongoing=0.5)
    assert demand.units(job) == 2


def test_without_serves_desire_few_requests_let_replicas_go() -> None:
    job = _given(_heard(_service(units=1, running=1), 0.0, ongoing=8.0))
    assert demand.units(job) == 4
    for second in range(1, 60):
        job = _heard(job, float(second), ongoing=4.0)
    assert demand.units(job) == 4  # four requests on three replicas would be no rest
    for second in range(60, 120):
        job = _heard(job, float(second), ongoing=1.0)
    assert demand.units(job) == 1


def test_what_is_held_or_leaving_wants_nothing_and_old_reports_foresee_nothing() -> None:
    job = _service(units=3, running=3, wanted=3)
    assert demand.units(replace(job, held=True)) == 0
    assert demand.units(replace(job, state=JobState.CANCELLING)) == 0
    for second, ongoing in enumerate((2.0, 4.0, 6.0)):
        job = demand.looked(replace(job, ongoing=ongoing), float(second))
    assert demand.units(demand.sized(job, RULES, 60.0)) == 3


def test_a_batch_wants_no_more_workers_than_it_has_chunks_left() -> None:
    spec = {"chunk_items": 10}
    job = Job("b", JobKind.BATCH, "b", spec, 0.0, unit_w=50.0, max_units=8)
    assert demand.units(job) == 8
    assert demand.units(replace(job, done=75, total=100)) == 3
    assert demand.units(replace(job, done=100, total=100)) == 1
    assert demand.units(replace(job, done=95, total=100, terms=Terms(gang=True))) == 8
    assert demand.sized(job, RULES, 1.0) is job
