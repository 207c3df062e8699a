"""Commissioning on a modelled site: real steps, a clock that jumps, meters with noise."""

import json
import math
import random

import pytest

from wattshift_cluster.errors import NotFound, Refused, Unreachable
from wattshift_cluster.fleet.commission import Record, chosen, commission, impossible
from wattshift_cluster.fleet.learn import Learnt
from wattshift_cluster.fleet.pulses import Kind
from wattshift_cluster.fleet.site_port import DeviceLook, Look, Plan

TREE = {"site": None, "a": "site", "b": "site"}
PLAN = Plan(pulse_s=40.0, period_s=1.0, restore_s=200.0)


class Rig:
    """A machine: true watts, what it claims of them, where it really hangs, how fast it moves."""

    def __init__(self, name, declared, wired=None, watts_w=3400.0, claims=1.0):
        self.id, self.declared, self.wired = name, declared, wired or declared
        self.watts_w, self.claims = watts_w, claims
        self.asleep, self.moved_s = False, -math.inf
        self.deaf = False

    def true_w(self, now_s):
        since_s = now_s - self.moved_s
        if self.asleep:
            return max(28.0, self.watts_w - since_s * self.watts_w / 6.0)
        return min(self.watts_w, 28.0 + since_s * self.watts_w / 25.0)


class Site:
    """A port onto modelled rigs; `meters` are the feeders that have one."""

    def __init__(self, rigs, meters=("site", "a", "b"), noise_w=15.0, inference_w=lambda _: 2000.0):
        self.rigs = {rig.id: rig for rig in rigs}
        self.meters, self.noise_w, self.inference_w = meters, noise_w, inference_w
        self.now_s, self.event_s, self.interrupt_s = 0.0, math.inf, math.inf
        self.rng = random.Random(5)
        self.commands = []
        self.refuses = set()
        self.stays_down = set()

    def under(self, feeder):
        return [r for r in self.rigs.values() if feeder in ("site", r.wired)]

    def look(self):
        readings = {}
        for feeder in self.meters:
            watts_w = sum(rig.true_w(self.now_s) for rig in self.under(feeder))
            if feeder != "b":
                watts_w += self.inference_w(self.now_s)
            readings[feeder] = watts_w + self.rng.gauss(0.0, self.noise_w)
        devices = tuple(
            DeviceLook(
                rig.id,
                "asic",
                "S21",
                rig.declared,
                "default",
                "confirmed",
                None if rig.claims is None else rig.true_w(self.now_s) * rig.claims,
                rig.asleep,
            )
            for rig in self.rigs.values()
        )
        event = "a cap of the schedule is in force" if self.now_s >= self.event_s else None
        return Look(self.now_s, event, TREE, readings, devices)

    def command(self, action, device, reason):
        self.commands.append((action, device))
        if device in self.refuses:
            raise Refused(f"{device} is locked")
        if action == "wake" and device in self.stays_down:
            raise Unreachable("no answer")
        rig = self.rigs[device]
        if not rig.deaf and rig.asleep is not (action == "sleep"):
            rig.asleep, rig.moved_s = action == "sleep", self.now_s

    def pause(self, span_s):
        self.now_s += span_s
        if self.now_s >= self.interrupt_s:
            self.interrupt_s = math.inf
            raise KeyboardInterrupt


def run(site, plan=PLAN, pattern="*", feeder=None):
    look = site.look()
    devices = chosen(look, pattern, feeder)
    record = Record(plan, impossible(look, devices), tuple(look.meters))
    return commission(site, plan, devices, lambda _: None, record)


def all_awake(site):
    return not any(rig.asleep for rig in site.rigs.values())


def test_right_and_wrong_wiring_are_told_apart_and_watts_and_times_fitted():
    site = Site(
        [
            Rig("good", "a"),
            Rig("miswired", "a", wired="b", watts_w=2900.0),
            Rig("liar", "b", claims=0.88),
            Rig("silent", "b", claims=None, watts_w=3250.0),
        ]
    )
    record = run(site)
    rows = {row.device: row for row in record.rows}
    assert record.stopped is None
    assert {name: row.verdict.kind for name, row in rows.items()} == {
        "good": Kind.CONFIRMED,
        "miswired": Kind.WRONG_FEEDER,
        "liar": Kind.CONFIRMED,
        "silent": Kind.CONFIRMED,
    }
    assert rows["miswired"].verdict.meter == "b"
    assert rows["miswired"].learnt == Learnt(), "nothing is learnt from a map that is wrong"
    good = rows["good"].verdict
    assert good.step_w == pytest.approx(3372.0, abs=max(5.0 * good.error_w, 15.0))
    assert abs(good.off_pct) < 2.0
    assert 3.0 <= good.down_s <= 9.0
    assert 18.0 <= good.up_s <= 32.0
    assert rows["liar"].verdict.off_pct == pytest.approx(13.6, abs=1.0)
    assert "% more than it reports" in rows["liar"].verdict.text
    watts_w, error_w = rows["silent"].learnt.watts_w("default")
    assert watts_w == pytest.approx(3250.0, abs=3.0 * error_w)
    assert rows["silent"].verdict.off_pct is None
    assert all_awake(site)


def test_one_meter_confirms_less_and_says_so():
    site = Site([Rig("good", "a"), Rig("miswired", "a", wired="b")], meters=("site",))
    record = run(site)
    assert [row.verdict.kind for row in record.rows] == [Kind.PARTLY, Kind.PARTLY]
    assert any("wrong feeders cannot be found" in text for text in record.impossible)


def test_a_machine_that_only_says_it_slept_is_no_step():
    rig = Rig("deaf", "a")
    rig.deaf = True
    record = run(Site([rig]))
    assert record.rows[0].verdict.kind is Kind.NO_STEP


def test_a_restless_meter_is_refused_before_anything_sleeps():
    rng = random.Random(3)
    site = Site([Rig("rig", "a")], inference_w=lambda _: rng.choice((0.0, 60_000.0)))
    record = run(site)
    assert record.rows[0].verdict.kind is Kind.TOO_NOISY
    assert "would need a pulse of" in record.rows[0].verdict.text
    assert site.commands == []


@pytest.mark.parametrize(("times", "kind"), [(1, Kind.CONFIRMED), (2, Kind.DISTURBED)])
def test_what_others_do_meanwhile_is_not_taken_for_the_machine(times, kind):
    site = Site([Rig("rig", "a"), Rig("other", "a", watts_w=3000.0)])
    take, left = site.command, [times]

    def disturbed(action, device, reason):
        take(action, device, reason)
        if action == "sleep" and left[0] > 0:
            left[0] -= 1
            other = site.rigs["other"]
            other.asleep, other.moved_s = not other.asleep, site.now_s

    site.command = disturbed
    assert run(site, pattern="rig").rows[0].verdict.kind is kind
    assert site.commands.count(("sleep", "rig")) == 2, "it is tried once more, and no more"
    assert not site.rigs["rig"].asleep


def test_an_interrupt_wakes_what_sleeps_and_keeps_the_rows():
    site = Site([Rig("one", "a"), Rig("two", "a")])
    site.interrupt_s = 150.0
    record = run(site)
    assert record.stopped == "interrupted"
    assert [row.device for row in record.rows] == ["one"]
    assert site.commands[-1] == ("wake", "two")
    assert all_awake(site)


def test_an_interrupt_in_the_very_command_wakes_it_too():
    site = Site([Rig("one", "a")])
    take = site.command

    def interrupted(action, device, reason):
        take(action, device, reason)
        if action == "sleep":
            raise KeyboardInterrupt

    site.command = interrupted
    assert run(site).stopped == "interrupted"
    assert all_awake(site)


@pytest.mark.parametrize("event_s", [0.0, 30.0, 100.0])
def test_an_event_ends_it_with_everything_awake(event_s):
    site = Site([Rig("one", "a"), Rig("two", "a")])
    site.event_s = event_s
    record = run(site)
    assert record.stopped == "a cap of the schedule is in force"
    assert all_awake(site)


def test_a_locked_machine_is_passed_over_and_not_woken():
    site = Site([Rig("locked", "a"), Rig("free", "a")])
    site.refuses = {"locked"}
    kinds = [row.verdict.kind for row in run(site).rows]
    assert kinds == [Kind.SKIPPED, Kind.CONFIRMED]
    assert ("wake", "locked") not in site.commands


def test_a_machine_asleep_before_is_left_asleep():
    rig = Rig("sleeper", "a")
    rig.asleep = True
    site = Site([rig])
    assert run(site).rows[0].verdict.kind is Kind.SKIPPED
    assert site.commands == []


def test_one_that_cannot_be_woken_ends_it_loudly():
    site = Site([Rig("stuck", "a"), Rig("next", "a")])
    site.stays_down = {"stuck"}
    record = run(site)
    assert record.rows[-1].verdict.kind is Kind.LEFT_ASLEEP
    assert "stuck" in record.stopped
    assert ("sleep", "next") not in site.commands


def test_devices_are_chosen_by_pattern_and_feeder():
    look = Site([Rig("a-1", "a"), Rig("a-2", "a"), Rig("b-1", "b")]).look()
    assert [one.id for one in chosen(look, "a-*")] == ["a-1", "a-2"]
    assert [one.id for one in chosen(look, feeder="b")] == ["b-1"]
    with pytest.raises(NotFound, match="no feeder c"):
        chosen(look, feeder="c")
    with pytest.raises(NotFound, match="no ASIC"):
        chosen(look, "gpu*")


def test_a_record_is_plain_json_with_what_was_learnt():
    record = run(Site([Rig("good", "a")]))
    raw = json.loads(json.dumps(record.to_dict(), allow_nan=False))
    (row,) = raw["devices"]
    assert row["verdict"] == "confirmed"
    assert Learnt.from_dict(row["learnt"]).down.n == 1
