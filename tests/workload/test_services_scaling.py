"""The policy in Serve's controller and the bridge's end of its exchange, without Serve."""

import gc
import json
import threading
import weakref

import pytest

from wattshift_cluster.workload.serving import scaling_policy
from wattshift_cluster.workload.serving.allowances import REWRITE_S, STALE_S, Allowances, Wish
from wattshift_cluster.workload.serving.scaling_policy import (
    ALLOW,
    COLD_S,
    DESIRE,
    HUNGRY_S,
    REFRESH_S,
    Clamped,
)


def policy(**more: object) -> Clamped:
    return Clamped("s", threaded=False, **more)  # type: ignore[arg-type]


def test_before_the_first_allowance_there_are_no_more_than_there_are() -> None:
    one = policy()
    assert one.clamped(desired=5, target=2) == 2
    assert one.clamped(desired=1, target=2) == 1


def test_the_wish_is_clamped_and_the_least_holds_within_the_clamp() -> None:
    one = policy()
    one.allowed = {"replicas": 3, "least": 2}
    assert [one.clamped(wish, 1) for wish in (0, 2, 3, 9)] == [2, 2, 3, 3]
    one.allowed = {"replicas": 0, "least": 0}
    assert one.clamped(9, 3) == 0, "a cut may take the last"


def test_a_higher_wish_counts_at_once_and_a_lower_one_after_its_delay() -> None:
    one = policy(downscale_delay_s=10.0)
    assert one.steady(1, 1, 0.0) == 1
    assert one.steady(4, 1, 0.1) == 4
    assert one.steady(1, 1, 1.0) == 4
    assert one.steady(2, 1, 9.0) == 4
    assert one.steady(1, 1, 10.9) == 4
    assert one.steady(1, 1, 11.1) == 2, "what was needed most meanwhile"
    assert one.steady(4, 1, 12.0) == 4


def test_a_dip_does_not_count_and_an_upscale_delay_of_the_users_does() -> None:
    one = policy(upscale_delay_s=3.0, downscale_delay_s=10.0)
    assert one.steady(2, 2, 0.0) == 2
    assert one.steady(5, 2, 1.0) == 2
    assert one.steady(5, 2, 4.1) == 5
    one.steady(1, 2, 5.0)
    assert one.steady(5, 2, 6.0) == 5
    assert one.steady(1, 2, 15.5) == 5, "the dip at 5 s is forgotten"


def test_a_change_of_direction_begins_its_delay_anew() -> None:
    up = policy(upscale_delay_s=3.0)
    assert [up.steady(wish, 2, at_s) for wish, at_s in ((2, 0.0), (5, 1.0), (1, 2.0))] == [2, 2, 2]
    assert [up.steady(5, 2, at_s) for at_s in (3.0, 4.1, 6.1)] == [2, 2, 5]
    down = policy(downscale_delay_s=10.0)
    assert [down.steady(wish, 2, at_s) for wish, at_s in ((5, 0.0), (1, 5.0), (7, 6.0))] == [
        5,
        5,
        7,
    ]
    assert [down.steady(1, 2, at_s) for at_s in (7.0, 15.5, 17.1)] == [7, 7, 1]


def test_a_silent_serve_without_replicas_is_a_cold_start_and_wants_one() -> None:
    one = policy()
    began_s = one._called_s
    assert one.desire(began_s + COLD_S / 2)["desired"] == 0
    assert one.desire(began_s + COLD_S + 0.1)["desired"] == 1
    one._running = 2
    assert one.desire(began_s + COLD_S + 0.1)["desired"] == 0, "Serve itself hangs"


def test_a_service_that_wishes_more_than_it_may_have_looks_more_often() -> None:
    one = policy()
    one.steady(3, 1, 0.0)
    assert one.pause_s() == REFRESH_S
    one.allowed = {"replicas": 2, "least": 0}
    assert one.pause_s() == HUNGRY_S
    one.allowed = {"replicas": 3, "least": 0}
    assert one.pause_s() == REFRESH_S


def test_the_thread_ends_with_its_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    turned = threading.Event()

    def exchange(self: Clamped) -> None:
        turned.set()
        raise ValueError("no store here")

    monkeypatch.setattr(scaling_policy, "REFRESH_S", 0.01)
    monkeypatch.setattr(scaling_policy, "HUNGRY_S", 0.01)
    monkeypatch.setattr(Clamped, "exchange", exchange)
    before = set(threading.enumerate())
    one = Clamped("s")
    (thread,) = set(threading.enumerate()) - before
    assert turned.wait(5)
    gone = weakref.ref(one)
    del one
    gc.collect()
    thread.join(5)
    assert not thread.is_alive()
    assert gone() is None


class Shelf(dict[str, str]):
    """A key-value store in memory, as Ray's behaves."""

    puts = 0

    def get(self, key: str) -> bytes | None:  # type: ignore[override]
        return self[key].encode() if key in self else None

    def put(self, key: str, value: str) -> None:
        self.puts += 1
        self[key] = value

    def drop(self, key: str) -> None:
        self.pop(key, None)

    def tell(self, beat: int, desired: int) -> None:
        row = {"desired": desired, "ongoing": 3.5, "queued": 1.0, "beat": beat}
        self[DESIRE + "s"] = json.dumps(row)


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> Shelf:
    """A shelf, and allowances without a thread of their own."""
    monkeypatch.setattr(Allowances, "_run", lambda self: None)
    return Shelf()


def test_an_allowance_is_written_when_it_changes_and_again_now_and_then(still: Shelf) -> None:
    both = Allowances(still)
    both.allow("s", 2, 9)
    both.turn(0.0)
    assert json.loads(still[ALLOW + "s"]) == {"replicas": 2, "least": 2}
    both.allow("s", 2, 9)
    both.turn(1.0)
    assert still.puts == 1
    both.turn(REWRITE_S + 1.1)
    assert still.puts == 2, "a store that was lost is filled again"
    both.allow("s", 0, 0)
    both.turn(REWRITE_S + 1.2)
    assert json.loads(still[ALLOW + "s"])["replicas"] == 0


def test_a_wish_is_news_once_and_unknown_when_it_is_no_longer_told(still: Shelf) -> None:
    both = Allowances(still)
    both.allow("s", 1, 0)
    assert not both.turn(0.0)
    assert both.wish("s") is None
    still.tell(beat=1, desired=3)
    assert both.turn(0.1)
    assert both.wish("s") == Wish(3, 3.5, 1.0)
    still.tell(beat=2, desired=3)
    assert not both.turn(2.0), "the same wish is no news"
    assert not both.turn(2.0 + STALE_S - 0.1)
    assert both.turn(2.0 + STALE_S + 0.1)
    assert both.wish("s") is None
    still.tell(beat=1, desired=2)
    both.turn(20.0)
    assert both.wish("s") == Wish(2, 3.5, 1.0), "a new policy counts from the start"


def test_a_forgotten_service_leaves_no_keys(still: Shelf) -> None:
    both = Allowances(still)
    both.allow("s", 1, 0)
    still.tell(beat=1, desired=3)
    both.turn(0.0)
    both.forget("s")
    both.turn(0.1)
    assert still == {}
    assert both.wish("s") is None


def test_the_thread_reports_news_and_outlives_a_store_that_fails() -> None:
    class Broken(Shelf):
        fails = 3

        def get(self, key: str) -> bytes | None:  # type: ignore[override]
            if self.fails:
                self.fails -= 1
                raise ConnectionError("the store is away")
            return super().get(key)

    shelf, news = Broken(), threading.Event()
    shelf.tell(beat=1, desired=4)
    both = Allowances(shelf, news.set)
    both.allow("s", 1, 0)
    assert news.wait(10)
    assert both.wish("s") == Wish(4, 3.5, 1.0)


class Gone:
    """A store whose Ray was shut down."""

    def __init__(self) -> None:
        self.asked = threading.Event()

    def get(self, key: str) -> bytes | None:
        self.asked.set()
        return None

    def put(self, key: str, value: str) -> None:
        self.asked.set()

    def drop(self, key: str) -> None:
        self.asked.set()


def test_a_store_is_left_alone_once_the_exchange_was_stopped() -> None:
    store = Gone()
    one = Allowances(store)
    one.allow("s", 1, 0)
    assert store.asked.wait(10)
    one.stop()
    store.asked.clear()
    one.allow("s", 2, 0)
    assert not store.asked.wait(0.3)
