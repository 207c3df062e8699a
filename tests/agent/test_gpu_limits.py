"""Power limits: down at any time, up only under a lease, and what was found is never forgotten."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from wattshift_cluster.agent.gpu import (
    Card,
    FaultKind,
    GpuFault,
    GpuSample,
    Library,
    LimitResult,
    NvmlSetter,
    PowerLimits,
    find_cards,
)
from wattshift_cluster.agent.gpu.found import FILE_NAME, FoundLimits
from wattshift_cluster.agent.gpu.setters import missing_privilege
from wattshift_cluster.bootclock import boot_s
from wattshift_cluster.emulate.nvml import models
from wattshift_cluster.emulate.nvml.build import child_environment
from wattshift_cluster.emulate.nvml.control import CardFault, EmulatedDriver

ShowCards = Callable[..., EmulatedDriver]


class Host:
    """Two cards of which the first is written, and their limits."""

    def __init__(self, driver: EmulatedDriver, library: Library, state_dir: Path) -> None:
        self.driver, self.library, self.state_dir = driver, library, state_dir
        self.cards = find_cards(library)
        self.uuid = self.cards[0].uuid
        for card in driver.cards:
            card.privilege(True)
        self.again()

    def again(self, deadline_s: float = 5.0) -> None:
        """As a new agent would: nothing is known but what is on disk."""
        setter = NvmlSetter(self.library, lambda: None)
        self.limits = PowerLimits(self.library, self.cards, self.state_dir, setter, deadline_s)

    def set(self, limit_w: float, covered_w: float | None = None) -> LimitResult:
        return self.set_all({self.uuid: limit_w}, covered_w)[self.uuid]

    def set_all(
        self, wanted: Mapping[str, float], covered_w: float | None = None
    ) -> dict[str, LimitResult]:
        covered = None if covered_w is None else dict.fromkeys(wanted, covered_w)
        return asyncio.run(self.limits.set(wanted, covered))

    def release(self, covered_w: float | None = None) -> LimitResult:
        return asyncio.run(self.limits.release(self.uuid, covered_w))

    def enforced_w(self, place: int = 0) -> float:
        return self.driver.cards[place].truth().enforced_limit_w

    def writes(self) -> int:
        return self.driver.cards[0].truth().limit_writes


@pytest.fixture
def host(show_cards: ShowCards, library: Library, tmp_path: Path) -> Host:
    return Host(show_cards(models.H200, models.H200), library, tmp_path / "state")


def test_a_limit_is_lowered_and_read_back(host: Host) -> None:
    result = host.set(400.0)
    assert (result.asked_w, result.enforced_w, result.error) == (400.0, 400.0, None)
    assert 0 <= result.took_s < 5
    assert (host.enforced_w(0), host.enforced_w(1)) == (400.0, 700.0)


def test_all_cards_are_written_at_once(host: Host) -> None:
    for card in host.driver.cards:
        card.lag(0.1)
    began_s = time.monotonic()
    results = host.set_all({card.uuid: 300.0 for card in host.cards})
    took_s = time.monotonic() - began_s
    assert all(result.error is None for result in results.values())
    assert took_s < 1.5 * max(result.took_s for result in results.values()) + 0.5
    host.driver.cards[1].lag(0.0)
    assert [host.enforced_w(place) for place in (0, 1)] == [300.0, 300.0]


def test_lowering_needs_no_lease_and_raising_needs_one_that_covers_it(host: Host) -> None:
    assert host.set(400.0).error is None
    assert host.set(300.0, covered_w=100.0).error is None
    refused = host.set(350.0)
    assert refused.error == "350 W is a raise and no lease covers it"
    assert refused.enforced_w == 300.0
    refused = host.set(350.0, covered_w=349.0)
    assert refused.error == "350 W is a raise and the lease covers 349 W"
    assert host.enforced_w() == 300.0
    assert host.set(350.0, covered_w=350.0).error is None
    assert host.enforced_w() == 350.0


def test_the_lower_of_ours_and_anothers_limit_is_what_a_raise_starts_from(host: Host) -> None:
    host.set(500.0)
    host.driver.cards[0].write_limit(300.0)
    assert "is a raise" in str(host.set(400.0).error)
    host.driver.cards[0].write_limit(650.0)
    assert "is a raise" in str(host.set(600.0).error), "another one's raise is no leave for ours"
    assert host.set(450.0).error is None


def test_a_first_write_above_what_is_enforced_is_a_raise(host: Host) -> None:
    host.driver.cards[0].write_limit(250.0)
    assert "is a raise" in str(host.set(400.0).error)
    assert host.enforced_w() == 250.0


def test_a_limit_outside_of_the_cards_range_is_clamped_and_says_so(host: Host) -> None:
    result = host.set(100.0)
    assert (result.asked_w, result.enforced_w) == (100.0, 200.0)
    assert result.error == "100 W is outside of 200 to 700 W; 200 W is enforced"
    result = host.set(900.0, covered_w=900.0)
    assert (result.enforced_w, host.enforced_w()) == (700.0, 700.0)
    assert "900 W is outside of" in str(result.error)


def test_what_another_writer_enforces_below_ours_is_told(host: Host) -> None:
    host.driver.cards[0].clamp_limit(250.0)
    result = host.set(240.0)
    assert result.error is None
    result = host.set(400.0, covered_w=700.0)
    assert result.enforced_w == 250.0
    assert result.error == "400 W was written and 250 W is enforced"


def test_a_limit_that_is_taken_and_not_enforced_is_an_error(host: Host) -> None:
    host.driver.cards[0].fault(CardFault.LIMIT_IGNORED)
    result = host.set(300.0)
    assert result.enforced_w == 700.0
    assert result.error == "300 W was written and 700 W is enforced"


def test_a_refusal_is_an_error_and_remembered(host: Host) -> None:
    assert host.limits.privileged
    host.driver.cards[0].privilege(False)
    result = host.set(300.0)
    assert result.enforced_w == 700.0
    assert result.error == "no permission: Insufficient Permissions"
    assert not host.limits.privileged
    assert "the driver refuses" in str(host.limits.refusal)
    assert "the driver refuses" in str(host.set(300.0).error)


def test_a_lost_card_and_an_unknown_one_are_errors_of_their_own(host: Host) -> None:
    host.driver.cards[0].fault(CardFault.LOST)
    results = host.set_all({host.uuid: 300.0, host.cards[1].uuid: 300.0, "GPU-none": 300.0})
    assert "cannot be read" in str(results[host.uuid].error)
    assert results[host.uuid].enforced_w is None
    assert results[host.cards[1].uuid].error is None
    assert results["GPU-none"].error == "there is no such card"


def test_a_write_that_hangs_is_not_waited_for_and_not_doubled(host: Host) -> None:
    host.set(400.0)
    host.again(deadline_s=0.15)
    host.driver.cards[0].lag(0.4)
    began_s = time.monotonic()
    result = host.set(300.0)
    assert time.monotonic() - began_s < 2.0
    assert (result.enforced_w, result.took_s) == (None, 0.15)
    assert "no answer within" in str(result.error)
    assert "an earlier call on this card still hangs" in str(host.set(300.0).error)
    host.driver.cards[0].lag(0.0)
    until_s = time.monotonic() + 10
    while "hangs" in str(host.set(300.0).error) and time.monotonic() < until_s:
        time.sleep(0.02)
    assert host.enforced_w() == 300.0


def test_release_restores_what_was_found_before_the_first_write(host: Host) -> None:
    host.driver.cards[0].write_limit(600.0)
    assert host.release().error == "no limit of this card was written by us"
    host.set(400.0)
    host.set(300.0)
    refused = host.release(covered_w=599.0)
    assert refused.error == "600 W was found and the lease covers 599 W"
    assert host.enforced_w() == 300.0
    restored = host.release(covered_w=600.0)
    assert (restored.asked_w, restored.enforced_w, restored.error) == (600.0, 600.0, None)
    assert host.enforced_w() == 600.0
    assert host.release().asked_w is None, "once"
    host.driver.cards[0].write_limit(500.0)
    host.set(350.0)
    assert host.release().enforced_w == 500.0, "the next first write finds another one"


def test_what_was_found_is_on_disk_before_the_first_write_and_no_later_one_changes_it(
    host: Host,
) -> None:
    host.driver.cards[0].fault(CardFault.LIMIT_IGNORED)  # whatever becomes of the write
    host.set(400.0)
    host.driver.cards[0].fault(CardFault.LIMIT_IGNORED, on=False)
    host.set(300.0)
    host.again()
    host.set(250.0)
    kept = json.loads((host.state_dir / FILE_NAME).read_text(encoding="utf-8"))
    assert kept["found_w"] == {host.uuid: 700.0}
    assert host.release().enforced_w == 700.0


def test_a_limit_that_cannot_be_kept_on_disk_is_not_written(host: Host) -> None:
    host.state_dir.parent.mkdir(exist_ok=True)
    host.state_dir.write_text("not a folder", encoding="utf-8")
    result = host.set(300.0)
    assert "could not be restored: [Errno" in str(result.error)
    assert host.writes() == 0


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"boot_id": "BOOT", "found_w": {"GPU-1": -3}}',
        '{"boot_id": "BOOT", "found_w": 3}',
        '{"boot_id": "another", "found_w": {"GPU-1": 500}}',
    ],
)
def test_a_damaged_file_or_one_of_another_boot_holds_no_limit(tmp_path: Path, text: str) -> None:
    FoundLimits(tmp_path).add({"GPU-1": 500.0})
    kept = tmp_path / FILE_NAME
    boot = json.loads(kept.read_text(encoding="utf-8"))["boot_id"]
    assert FoundLimits(tmp_path).get("GPU-1") == 500.0
    kept.write_text(text.replace("BOOT", boot), encoding="utf-8")
    assert FoundLimits(tmp_path).get("GPU-1") is None


def test_a_limit_that_is_already_known_is_not_replaced(tmp_path: Path) -> None:
    FoundLimits(tmp_path).add({"GPU-1": 500.0})
    found = FoundLimits(tmp_path)
    found.add({"GPU-1": 300.0, "GPU-2": 200.0})
    again = FoundLimits(tmp_path)
    for one in (found, again):
        assert (one.get("GPU-1"), one.get("GPU-2")) == (500.0, 200.0)


WRITER = """
import asyncio, os, signal, sys
from pathlib import Path
from wattshift_cluster.agent.gpu import Library, NvmlSetter, PowerLimits, find_cards
library = Library()
cards = find_cards(library)
setter = NvmlSetter(library, lambda: None)
limits = PowerLimits(library, cards, Path(sys.argv[1]), setter, 20.0)
print(asyncio.run(limits.set({cards[0].uuid: 300.0}))[cards[0].uuid].error, flush=True)
if sys.argv[2] == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("end", ["kill", "exit"])
def test_a_writer_that_ends_leaves_its_limit_and_the_way_back(
    host: Host, emulated_nvml: Path, end: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WRITER, str(host.state_dir), end],
        env=child_environment(emulated_nvml, host.driver.path),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.strip() == "None", done.stderr
    assert done.returncode == (-signal.SIGKILL if end == "kill" else 0)
    host.again()
    assert "is a raise" in str(host.set(310.0).error)
    assert host.enforced_w() == 300.0
    assert host.release().enforced_w == 700.0


def test_a_limit_that_somebody_else_wrote_is_seen_after_it_has_settled(host: Host) -> None:
    def sample(limit_w: float | None, after_s: float) -> GpuSample:
        return GpuSample(boot_s() + after_s, enforced_limit_w=limit_w)

    assert not host.limits.foreign(host.uuid, sample(500.0, 60.0)), "we wrote none"
    host.set(400.0)
    assert not host.limits.foreign(host.uuid, sample(700.0, 0.1)), "read before our write"
    assert not host.limits.foreign(host.uuid, sample(400.4, 60.0))
    assert not host.limits.foreign(host.uuid, sample(None, 60.0))
    assert host.limits.foreign(host.uuid, sample(450.0, 60.0))
    assert host.limits.foreign(host.uuid, sample(300.0, 60.0))
    host.release()
    assert not host.limits.foreign(host.uuid, sample(300.0, 60.0))


def test_the_privilege_is_known_without_writing(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tx\nCapEff:\t0000000000200000\n", encoding="ascii")
    assert missing_privilege(0, tmp_path / "none") is None
    assert missing_privilege(1000, status) is None
    status.write_text("Name:\tx\nCapEff:\tffffffffffdfffff\n", encoding="ascii")
    assert "root or CAP_SYS_ADMIN" in str(missing_privilege(1000, status))
    assert missing_privilege(1000, tmp_path / "none") is not None
    assert (missing_privilege() is None) == (os.geteuid() == 0 or _is_admin())


def _is_admin() -> bool:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return any(line.startswith("CapEff") and int(line.split()[1], 16) >> 21 & 1 for line in lines)


def test_without_the_privilege_nothing_is_tried_nor_kept(host: Host) -> None:
    setter = NvmlSetter(host.library, lambda: "not root")
    limits = PowerLimits(host.library, host.cards, host.state_dir, setter)
    assert (limits.privileged, limits.refusal) == (False, "not root")
    (result,) = asyncio.run(limits.set({host.uuid: 300.0})).values()
    assert (result.enforced_w, result.error) == (None, "not root")
    assert not host.state_dir.exists()
    assert host.writes() == 0


class Stuck:
    """A setter whose write does not return until it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()

    def refusal(self) -> str | None:
        return None

    def set_limit(self, card: Card, limit_w: float, deadline_s: float) -> None:
        self.go.wait(20)
        raise GpuFault(FaultKind.UNKNOWN, "in the end")


def test_a_lower_limit_that_may_yet_take_hold_is_what_a_raise_starts_from(host: Host) -> None:
    stuck = Stuck()
    limits = PowerLimits(host.library, host.cards, host.state_dir, stuck, 0.1)
    (result,) = asyncio.run(limits.set({host.uuid: 300.0})).values()
    assert "may still take hold" in str(result.error)
    stuck.go.set()
    until_s = time.monotonic() + 10
    while time.monotonic() < until_s:
        (result,) = asyncio.run(limits.set({host.uuid: 500.0})).values()
        if "hangs" not in str(result.error):
            break
        time.sleep(0.02)
    assert result.error == "500 W is a raise and no lease covers it"
