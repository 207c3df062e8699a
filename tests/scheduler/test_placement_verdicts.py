"""Tenants and verdicts: shares, quotas, borrowing; which rule and limit, and when it would run."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from wattshift_scheduler.compute import verdicts
from wattshift_scheduler.compute.ground import Ground
from wattshift_scheduler.compute.placement import Placed, place
from wattshift_scheduler.jobs import Admission, Job, JobKind, JobState, Rule, Terms, Verdict
from wattshift_scheduler.signals.arbitrate import NO_CAP, Arbitrated, arbitrate
from wattshift_scheduler.signals.words import Cap
from wattshift_scheduler.site import Feeder, FeederTree, Node, Rules, Site, Tenant
from wattshift_scheduler.state import NodePower

TREE = FeederTree.of([Feeder("main", None, 2000.0), Feeder("rack", "main", 900.0)])
NODES = (
    Node("n1", "rack", 800.0, labels={"gpu": "L4"}),
    Node("n2", "main", 1000.0, gpus=2.0, labels={"gpu": "A100"}),
)
NOW_S = 10_000.0
TOLD = NodePower(0.0, up=True, labels={}, gpus=2.0)


def ground(
    *tenants: Tenant,
    caps: tuple[Cap, ...] = (),
    root_w: float = 2000.0,
    free_w: float = math.inf,
    nodes: tuple[Node, ...] = NODES,
    **powers: NodePower,
) -> Ground:
    """Both nodes up and told of, unless the test says otherwise."""
    site = Site("s", TREE, nodes, Rules(margin_share=0.0), (), tenants)
    cap = arbitrate(caps, 2000.0, NOW_S) if caps else Arbitrated(2000.0, "connection", NO_CAP)
    room_w = np.array([min(cap.cap_w, root_w), 900.0])
    known = {node.name: replace(TOLD, gpus=node.gpus) for node in nodes}
    return Ground(site, {**known, **powers}, room_w, np.minimum(room_w, free_w), cap, caps, NOW_S)


def batch(name: str, unit_w: float = 100.0, **fields: Any) -> Job:
    terms = {k: fields.pop(k) for k in list(fields) if k in Terms.__dataclass_fields__}
    fields = {"submitted_s": NOW_S, **fields}
    return Job(name, JobKind.BATCH, name, {}, unit_w=unit_w, terms=Terms(**terms), **fields)


def runs(job: Job, /, began_s: float = NOW_S - 1000.0, **at: int) -> Job:
    units = sum(at.values())
    return replace(job, state=JobState.RUNNING, units=units, nodes=at, by_node=at, began_s=began_s)


def placed(where: Ground, *jobs: Job) -> dict[str, Placed]:
    return {one.job.id: one for one in place(where, jobs).placed}


def verdict(where: Ground, job: Job, *others: Job) -> Verdict:
    return placed(where, job, *others)[job.id].verdict


# Denied: what no empty site could run.


@pytest.mark.parametrize(
    ("job", "rule", "bound_by", "words"),
    [
        (
            batch("a", 1100.0),
            Rule.NODE,
            "n2",
            "a unit needs 1,100 W; the most that any node has is 1,000 W (n2)",
        ),
        (
            batch("a", selector=(("gpu", "H100"),)),
            Rule.NO_SUCH_NODE,
            "",
            "no node has gpu=H100; there are A100, L4",
        ),
        (
            batch("a", selector=(("zone", "z"),)),
            Rule.NO_SUCH_NODE,
            "",
            "no node has zone=z; no node has that label",
        ),
        (
            batch("a", 850.0, selector=(("gpu", "L4"),)),
            Rule.NODE,
            "n1",
            "a unit needs 850 W; the most that any node has is 800 W (n1)",
        ),
        (
            batch("a", gpus=4.0),
            Rule.NODE,
            "n2",
            "a unit needs 4 GPUs; the most that any node has is 2 (n2)",
        ),
        (
            batch("a", 600.0, gang=True, max_units=4),
            Rule.GANG,
            "",
            "a gang of 4 needs 2,400 W at once; an empty site holds 2 of its units",
        ),
        (
            batch("a", 100.0, gpus=0.6, gang=True, max_units=3),
            Rule.GANG,
            "",
            "a gang of 3 needs 300 W at once; an empty site holds 2 of its units",
        ),
        (
            batch("a", 300.0, tenant="hard"),
            Rule.QUOTA_WATTS,
            "hard",
            "a unit needs 300 W; the quota of tenant hard is 250 W",
        ),
        (
            batch("a", 10.0, gpus=1.0, gang=True, max_units=2, tenant="hard"),
            Rule.QUOTA_GPUS,
            "hard",
            "a gang of 2 needs 2 GPUs; the quota of tenant hard is 1",
        ),
    ],
)
def test_what_can_never_run_is_refused_with_the_nearest_that_could(
    job: Job, rule: Rule, bound_by: str, words: str
) -> None:
    hard = Tenant("hard", quota_w=250.0, quota_gpus=1.0, borrows=False)
    found = verdict(ground(hard), job)
    assert (found.admission, found.rule, found.bound_by) == (Admission.DENY, rule, bound_by)
    assert found.words == words


def test_a_feeder_refuses_what_its_node_could() -> None:
    nodes = (Node("n1", "rack", 5000.0),)
    found = verdict(ground(nodes=nodes), batch("a", 950.0))
    assert (found.rule, found.bound_by) == (Rule.FEEDER, "rack")
    assert found.words.endswith("is 900 W (n1, behind feeder rack)")


def test_a_node_that_is_down_or_was_never_seen_refuses_nothing() -> None:
    unseen = NodePower(1000.0)
    job = batch("a", selector=(("gpu", "H100"),), gpus=8.0)
    found = verdict(ground(n2=unseen), job)
    assert (found.admission, found.rule) == (Admission.DEFER, Rule.CLUSTER_DOWN)
    down = replace(TOLD, up=False)
    found = verdict(ground(n2=down), batch("a", selector=(("gpu", "A100"),)))
    assert (found.admission, found.rule) == (Admission.DEFER, Rule.CLUSTER_DOWN)


def test_what_has_run_is_never_refused() -> None:
    job = replace(batch("a", 5000.0), done=7)
    assert verdict(ground(), job).admission is Admission.DEFER


# Deferred: which limit, and when.


def test_the_verdict_names_the_limit_that_binds() -> None:
    full = runs(batch("full", 1000.0), n2=1)
    found = verdict(ground(root_w=1100.0), batch("a", 300.0), full)
    assert (found.rule, found.bound_by, found.need_w, found.have_w) == (
        Rule.FEEDER,
        "main",
        300.0,
        100.0,
    )
    rack = verdict(ground(), batch("a", 300.0), full, runs(batch("r", 700.0), n1=1))
    assert (rack.rule, rack.bound_by, rack.have_w) == (Rule.NODE, "n1", 100.0)
    assert rack.words == "it does not fit: a unit needs 300 W; n1 has 100 W left"
    gpus = verdict(ground(), batch("a", gpus=2.0), runs(batch("g", 10.0, gpus=1.0), n2=1))
    assert (gpus.rule, gpus.words) == (
        Rule.NODE,
        "it does not fit: a unit needs 100 W; too few GPUs are free on n2",
    )


def test_a_cap_tells_when_it_ends_or_gives_enough() -> None:
    caps = (
        Cap("now", "operator", 500.0, None, NOW_S + 600.0),
        Cap("later", "schedule", 700.0, None, NOW_S + 900.0),
    )
    full = runs(batch("full", 400.0), n2=1)
    found = verdict(ground(caps=caps), batch("a", 250.0), full)
    assert (found.admission, found.rule, found.bound_by) == (Admission.DEFER, Rule.CAP, "cap")
    assert found.words == (
        "it does not fit: a unit needs 250 W; the cap of 500 W (operator) leaves 100 W"
    )
    assert found.expected_s == NOW_S + 600.0
    assert verdict(ground(caps=caps), batch("a", 350.0), full).expected_s == NOW_S + 900.0
    endless = (Cap("now", "operator", 500.0),)
    assert verdict(ground(caps=endless), batch("a", 250.0), full).expected_s is None


def test_a_job_that_failed_waits_for_its_time_and_takes_nothing_meanwhile() -> None:
    job = replace(batch("a", 1000.0), not_before_s=NOW_S + 5.0)
    found = placed(ground(), job, batch("b", 900.0))
    assert found["a"].verdict.rule is Rule.BACK_OFF
    assert found["a"].verdict.expected_s == NOW_S + 5.0
    assert found["b"].units == 1


def test_what_a_person_holds_is_told_as_such() -> None:
    assert verdict(ground(), replace(batch("a"), held=True)).rule is Rule.HELD


# After shedding: whose watts they are.


def test_mining_in_the_way_is_told_from_batch_in_the_way() -> None:
    full = replace(TOLD, granted_w=500.0, gpus=2.0)
    alone = verdict(ground(free_w=0.0), batch("a", 400.0))
    assert (alone.admission, alone.rule, alone.bound_by) == (
        Admission.AFTER_SHEDDING,
        Rule.MINING_GIVES_WAY,
        "main",
    )
    assert alone.words == "it waits for mining to give up 400 W"
    service = replace(batch("s", 400.0), kind=JobKind.SERVICE)
    low = runs(batch("b", 500.0), n2=1)
    pushed = verdict(ground(root_w=500.0, free_w=0.0, n2=full), service, low)
    assert (pushed.admission, pushed.rule) == (Admission.AFTER_SHEDDING, Rule.BATCH_GIVES_WAY)


def test_a_wait_is_told_a_few_times_and_not_with_every_watt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def told() -> int:
        job, found = batch("a", 400.0), set[Verdict]()
        for free_w in range(0, 400, 7):
            one = verdict(ground(free_w=float(free_w)), job)
            assert one.rule is Rule.MINING_GIVES_WAY
            assert one is job.verdict or one not in found
            job = replace(job, verdict=one)
            found.add(one)
        return len(found)

    assert told() == verdicts.WAITS_TOLD
    monkeypatch.setattr(verdicts, "WAITS_TOLD", 400)
    assert told() > 50, "the guard is needed"


def test_a_gang_is_told_the_same_whether_or_not_its_first_unit_alone_would_fit() -> None:
    held = runs(batch("h", 1000.0, tenant="a"), n2=1)
    other = batch("b", 900.0, tenant="b")
    gang = batch("g", 100.0, tenant="a", gang=True, max_units=3)
    rules = [
        placed(ground(A, B, root_w=root_w), held, gang, other)["g"].verdict.rule
        for root_w in (1099.0, 1101.0)
    ]
    assert rules == [Rule.GANG, Rule.GANG]


def test_watts_that_are_there_at_once_fit() -> None:
    granted = replace(TOLD, granted_w=400.0)
    found = verdict(ground(free_w=0.0, n2=granted), batch("a", 400.0))
    assert (found.admission, found.words) == (Admission.FIT, "400 W on n2")
    half = verdict(ground(free_w=100.0, n2=granted), batch("a", 500.0))
    assert half.admission is Admission.FIT
    two = placed(ground(free_w=100.0, n2=granted), batch("a", 500.0), batch("b", 10.0))
    assert {one.verdict.rule for one in two.values()} == {Rule.FITS, Rule.MINING_GIVES_WAY}


# Tenants.

A, B = Tenant("a"), Tenant("b")


def test_a_tenant_below_its_fair_share_goes_first() -> None:
    held = runs(batch("h", 1000.0, tenant="a"), n2=1)
    jobs = [
        batch("dear", 400.0, tenant="a", value_usd_per_h=9.0),
        batch("cheap", 400.0, tenant="b"),
    ]
    found = placed(ground(A, B, root_w=1400.0), held, *jobs)
    assert (found["dear"].units, found["cheap"].units) == (0, 1)
    alone = placed(ground(A, B, root_w=1400.0), held, jobs[0])
    assert alone["dear"].units == 1


def test_fair_shares_follow_the_weights_as_jobs_are_placed() -> None:
    jobs = [batch(f"{t}{i}", 100.0, tenant=t) for t in "ab" for i in range(12)]
    found = placed(ground(replace(A, weight=2.0), B, root_w=1200.0), *jobs)
    units = {t: sum(p.units for n, p in found.items() if n[0] == t) for t in "ab"}
    assert units == {"a": 8, "b": 4}


def test_one_above_its_share_is_told_so_while_others_wait_too() -> None:
    held = runs(batch("h", 1000.0, tenant="a"), n2=1)
    other = batch("b", 900.0, tenant="b", gang=True, max_units=1)
    found = placed(ground(A, B, root_w=1050.0), held, batch("w", 100.0, tenant="a"), other)
    assert (found["w"].verdict.rule, found["w"].verdict.bound_by) == (Rule.FAIR_SHARE, "a")
    assert found["b"].verdict.rule is Rule.FEEDER


def test_a_hard_quota_is_never_exceeded() -> None:
    hard = replace(A, quota_w=250.0, borrows=False)
    found = placed(ground(hard), batch("x", tenant="a", max_units=5))["x"]
    assert (found.units, found.verdict.rule, found.verdict.bound_by) == (2, Rule.QUOTA_WATTS, "a")
    assert found.verdict.words == "2 of 5 units fit: tenant a holds 200 of its 250 W"
    gpus = replace(A, quota_gpus=1.0, borrows=False)
    found = placed(ground(gpus), batch("x", 1.0, gpus=0.5, tenant="a", max_units=4))["x"]
    assert (found.units, found.verdict.rule) == (2, Rule.QUOTA_GPUS)


def test_idle_watts_are_borrowed_after_everybody_else_has_been_served() -> None:
    lent = replace(A, quota_w=300.0)
    jobs = [
        batch("x", tenant="a", max_units=20, value_usd_per_h=9.0),
        batch("y", tenant="b", max_units=8),
    ]
    found = placed(ground(lent, B, root_w=1200.0), *jobs)
    assert (found["x"].units, found["y"].units) == (4, 8)


def test_what_was_borrowed_goes_back_to_its_owner_newest_first_and_only_down_to_the_quota() -> None:
    lent, owner = replace(A, quota_w=300.0), replace(B, quota_w=500.0)
    held = [
        runs(batch(f"h{i}", tenant="a", priority=9), began_s=NOW_S - 100.0 + i, n2=1)
        for i in range(6)
    ]
    found = placed(ground(lent, owner, root_w=600.0), *held, batch("o", tenant="b", max_units=5))
    assert found["o"].units == 3
    assert [name for name, one in found.items() if not one.units] == ["h3", "h4", "h5"]
    large = placed(ground(lent, owner, root_w=400.0), *held[:4], batch("o", 200.0, tenant="b"))
    assert large["o"].units == 0
    stranger = placed(ground(lent, B, root_w=600.0), *held, batch("o", tenant="b"))
    assert stranger["o"].units == 0


def test_who_borrows_pushes_nobody_out() -> None:
    lent, held = replace(B, quota_w=400.0), runs(batch("h", 560.0, tenant="a"), n2=1)
    gang = batch("g", 280.0, tenant="b", gang=True, max_units=2, priority=20)
    found = placed(ground(A, lent, root_w=600.0), held, gang)
    assert {name: one.units for name, one in found.items()} == {"g": 0, "h": 1}
    assert placed(ground(A, B, root_w=600.0), held, gang)["g"].units == 2


def test_what_was_borrowed_keeps_its_minimum_run_time() -> None:
    lent, owner = replace(A, quota_w=100.0), replace(B, quota_w=500.0)
    held = runs(batch("h", 600.0, tenant="a", min_run_s=300.0), began_s=NOW_S - 10.0, n2=1)
    assert placed(ground(lent, owner, root_w=600.0), held, batch("o", tenant="b"))["o"].units == 0
    later = replace(held, began_s=NOW_S - 301.0)
    assert placed(ground(lent, owner, root_w=600.0), later, batch("o", tenant="b"))["o"].units == 1


def test_within_a_full_quota_a_tenants_own_batch_gives_way_to_its_service() -> None:
    hard = replace(A, quota_w=300.0, borrows=False)
    mine = runs(batch("mine", 300.0, tenant="a"), n2=1)
    other = runs(batch("other", 300.0, tenant="b"), n2=1)
    service = replace(batch("s", tenant="a"), kind=JobKind.SERVICE)
    found = placed(ground(hard, B), mine, other, service)
    assert {name: one.units for name, one in found.items()} == {"s": 1, "mine": 0, "other": 1}


def test_a_large_job_that_has_waited_long_is_kept_room_for() -> None:
    """A stream of small jobs would otherwise take every watt as it comes free."""
    small = [runs(batch(f"r{i}", priority=99), n2=1) for i in range(6)]
    large = batch("large", 900.0, gpus=1.0, submitted_s=NOW_S - 3700.0)
    later = batch("later", 100.0, gpus=1.0)
    assert placed(ground(), *small, large, later)["later"].units == 0
    fresh = replace(large, submitted_s=NOW_S - 60.0)
    assert placed(ground(), *small, fresh, later)["later"].units == 1
