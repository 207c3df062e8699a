"""What pools say, taken apart: kinds of refusal, where a redirect may lead, what login asks for."""

from typing import Any

import pytest
from tests.mining import scripted_pool as pools

from wattshift_cluster.mining.endpoint import Endpoint
from wattshift_cluster.mining.feed import BitcoinFeed
from wattshift_cluster.mining.job import JobFault
from wattshift_cluster.mining.redirect import RedirectRefused, redirected, registered_domain
from wattshift_cluster.mining.refusals import Kind, brief, error_text, kind_of
from wattshift_cluster.mining.session import Deadlines, Login

JudgingPool, scripted, until, run = pools.JudgingPool, pools.scripted, pools.until, pools.run


def mining_on(at: Endpoint, **more: Any) -> Any:
    return pools.mining_on(at, deadlines=pools.CALM, **more)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ([21, "Stale", None], Kind.STALE),
        ([21, "Invalid JobID", None], Kind.STALE),
        ([21, "Job not found", None], Kind.STALE),
        ([20, "Stale share", None], Kind.STALE),
        ([22, "Duplicate", None], Kind.DUPLICATE),
        ([22, "Duplicate share", None], Kind.DUPLICATE),
        ([-2, "duplicate", None], Kind.DUPLICATE),
        ([23, "Above target", None], Kind.LOW_DIFFICULTY),
        ([23, "Low difficulty share", None], Kind.LOW_DIFFICULTY),
        ([20, "Share difficulty too low: low difficulty", None], Kind.LOW_DIFFICULTY),
        ([24, "Unauthorized worker", None], Kind.UNAUTHORISED),
        ([25, "Not subscribed", None], Kind.UNAUTHORISED),
        ([24, "", None], Kind.UNAUTHORISED),
        ([21, None, None], Kind.STALE),
        ([20, "Ntime out of range", None], Kind.OTHER),
        ({"code": 22, "message": ""}, Kind.DUPLICATE),
        ({"code": 5, "message": "stale-prevblk"}, Kind.STALE),
        ("duplicate share", Kind.DUPLICATE),
        (None, Kind.OTHER),
        ([], Kind.OTHER),
        (["22"], Kind.OTHER),
        ([10**400, [[[]]]], Kind.OTHER),
    ],
)
def test_a_refusal_has_a_kind_by_its_words_and_else_by_its_code(error: Any, kind: Kind) -> None:
    assert kind_of(error) is kind


def test_what_a_pool_says_is_made_harmless() -> None:
    deep: Any = []
    for _ in range(5000):
        deep = [deep]
    assert error_text([20, deep, None]) == "20 a list of 1"
    assert error_text({"code": deep, "message": "x\n\x1b[31m\ud800" + "y" * 900}) is not None
    assert brief("a\r\n\x00b\ud800", 40) == "a   b\\ud800"
    assert brief(10**5000) == "a huge number"
    assert all(len(error_text([1, "z" * n]) or "") <= 80 for n in (1, 79, 80, 100_000))


HERE = Endpoint("eu.pool.example.com", 3333, tls=True)
NAMED = (HERE, Endpoint("us.pool.example.com", 443, tls=True), Endpoint("other.net", 3333))


@pytest.mark.parametrize(
    ("params", "consented", "expected"),
    [
        ([], None, HERE),
        (["", None, 0], None, HERE),
        (["", 4444, 0], None, Endpoint("eu.pool.example.com", 4444, tls=True)),
        (["eu.pool.example.com", "4444", "1"], None, Endpoint(HERE.host, 4444, tls=True)),
        ([None, 3333], NAMED, HERE),
        (["us.pool.example.com", 443, 5], NAMED, NAMED[1]),
    ],
)
def test_a_redirect_is_followed(params: Any, consented: Any, expected: Endpoint) -> None:
    assert redirected(params, HERE, consented).endpoint == expected


@pytest.mark.parametrize(
    ("params", "consented"),
    [
        (["us.pool.example.com", 443], None),  # another host, and nobody has named it
        (["us.pool.example.com", 444], NAMED),  # another port than the one named
        (["", 4444], NAMED),
        (["other.net", 3333], NAMED),  # named, but another's domain
        (["evil.example.org", 3333], NAMED),
        (["evil.example.org", 3333], None),
        (["10.0.0.1", 3333], None),
    ],
)
def test_a_redirect_elsewhere_is_refused(params: Any, consented: Any) -> None:
    with pytest.raises(RedirectRefused):
        redirected(params, HERE, consented)


@pytest.mark.parametrize(
    "params",
    [
        ["", "x"], ["", 0], ["", 70000], ["", 1.5], ["", [1]], ["", 3333, "soon"], ["", True, {}],
        ["", float("nan")], ["", float("inf")], ["", 10**400], ["", 3333, float("nan")],
        ["", 3333, 10**400], [5], [["a"]],
    ],
)  # fmt: skip
def test_a_redirect_that_makes_no_sense_is_a_fault(params: Any) -> None:
    with pytest.raises(JobFault):
        redirected(params, HERE, None)


@pytest.mark.parametrize("wait", [-5, 0, 1e9, "7"])
def test_the_wait_before_a_redirect_is_bounded(wait: Any) -> None:
    assert 0 <= redirected(["", 1, wait], HERE, None).wait_s <= 300


def test_a_redirect_from_a_loopback_tunnel_does_not_leave_the_host() -> None:
    with pytest.raises(RedirectRefused):
        redirected(["127.0.0.2", 3333], Endpoint("127.0.0.1", 3333), None)


def test_what_is_registered_of_a_name() -> None:
    assert registered_domain("eu.stratum.pool.com") == "pool.com"
    assert registered_domain("Stratum.Pool.co.uk.") == "pool.co.uk"
    assert registered_domain("pool.de") == "pool.de"
    assert registered_domain("10.0.0.1") != registered_domain("11.0.0.1")


@pytest.mark.parametrize(
    ("subscriptions", "expected"),
    [
        ([["mining.notify", "6b038e7a"]], "6b038e7a"),
        ([["mining.set_difficulty", "a"], ["mining.notify", "b"]], "b"),
        (["mining.notify", "ae68"], "ae68"),
        ([], None), (None, None), ([["mining.notify", 5]], None), ([["mining.notify"]], None),
        ([["mining.notify", "x" * 500]], None), ([[[[]]]] * 9999, None),
    ],
)  # fmt: skip
def test_the_session_id_is_found_in_what_pools_send(subscriptions: Any, expected: Any) -> None:
    feed = BitcoinFeed()
    feed.subscribed([subscriptions, "aabb", 4])
    assert feed.session_id == expected


def test_login_asks_for_what_is_wanted_and_hides_the_password() -> None:
    login = Login("rig", "secret", minimum_difficulty=8.0)
    assert "secret" not in repr(login)
    assert login.configure() == [
        ["version-rolling", "minimum-difficulty", "subscribe-extranonce"],
        {
            "version-rolling.mask": "1fffe000",
            "version-rolling.min-bit-count": 2,
            "minimum-difficulty.value": 8.0,
        },
    ]
    assert Login("rig", roll_versions=False).configure() is None


def test_the_order_of_the_handshake_and_the_session_id_in_the_next_one() -> None:
    async def body() -> None:
        pool = JudgingPool()
        async with (
            scripted(pool) as (at, miners),
            mining_on(at, suggest_difficulty=0.5) as client,
        ):
            await until(client.current_job)
            await until(lambda: "mining.suggest_difficulty" in miners[0].heard)
            miners[0].writer.transport.abort()
            await until(lambda: client.reconnects == 1)
        assert miners[0].heard == [
            "mining.configure", "mining.subscribe", "mining.authorize",
            "mining.extranonce.subscribe", "mining.suggest_difficulty",
        ]  # fmt: skip
        subscribed = [one["params"] for one in pool.heard if one["method"] == "mining.subscribe"]
        assert subscribed == [["wattshift"], ["wattshift", "s1"]]

    run(body)


def test_a_pool_that_never_answers_what_it_does_not_know_is_mined_for_all_the_same() -> None:
    """Configure is waited for once; what is only told is not waited for at all."""

    async def body() -> None:
        pool = JudgingPool()

        async def mute(miner: Any) -> None:
            while True:
                request = await miner.hear()
                if request["method"] == "mining.configure":
                    continue
                result, error = pool._answer(request["method"], request["params"])
                miner.say(id=request["id"], result=result, error=error)
                if request["method"] == "mining.authorize":
                    pool.tell(miner)

        deadlines = Deadlines(configure_s=0.05, answer_s=5.0)
        async with scripted(mute) as (at, miners):
            async with pools.mining_on(at, deadlines=deadlines) as client:
                await until(client.current_job)
                assert (await client.submit(pools.found(client))).accepted
                miners[0].writer.transport.abort()
                await until(lambda: client.reconnects == 1 and client.current_job())
            assert "mining.configure" in miners[0].heard
            assert "mining.configure" not in miners[1].heard

    run(body)


def test_a_pool_that_knows_no_resumption_is_asked_again_without() -> None:
    """By an error, and by hanging up."""

    async def body() -> None:
        for answers in (True, False):
            pool = JudgingPool()

            async def old(miner: Any, pool: Any = pool, answers: bool = answers) -> None:
                while True:
                    request = await miner.hear()
                    asked = request["method"], len(request["params"])
                    if asked == ("mining.subscribe", 2):
                        if not answers:
                            return
                        miner.say(id=request["id"], result=None, error=[20, "Bad params", None])
                        continue
                    result, error = pool._answer(request["method"], request["params"])
                    miner.say(id=request["id"], result=result, error=error)
                    if request["method"] == "mining.authorize":
                        pool.tell(miner)

            async with scripted(old) as (at, miners), mining_on(at) as client:
                await until(client.current_job)
                miners[0].writer.transport.abort()
                await until(lambda client=client: client.reconnects == 1 and client.current_job())
                assert len(miners) == (2 if answers else 3)

    run(body)


def test_a_ping_is_answered_and_texts_do_not_fill_the_log() -> None:
    async def body() -> None:
        heard: list[dict[str, Any]] = []

        async def pinging(miner: Any) -> None:
            await miner.log_in()
            for _ in range(100):
                miner.say(id=None, method="client.show_message", params=["hello"])
            miner.say(id=8, method="mining.ping", params=[])
            heard.append(await miner.hear())
            miner.say(id="nine", method="client.ping", params=[])
            heard.append(await miner.hear())
            miner.notify()
            await miner.hear()

        async with scripted(pinging) as (at, _), mining_on(at) as client:
            await until(client.current_job)
        assert heard == [
            {"id": 8, "result": "pong", "error": None},
            {"id": "nine", "result": "pong", "error": None},
        ]

    run(body)


def test_a_set_extranonce_right_behind_the_subscription_is_not_overtaken() -> None:
    """Both lines in one packet: the answer must be read before the next line is."""

    async def body() -> None:
        async def hasty(miner: Any) -> None:
            while True:
                request = await miner.hear()
                if request["method"] == "mining.subscribe":
                    miner.say(id=request["id"], result=[[], "aabbccdd", 4], error=None)
                    miner.say(id=None, method="mining.set_extranonce", params=["ee", 2])
                    miner.notify()
                elif request["method"] == "mining.authorize":
                    miner.say(id=request["id"], result=True, error=None)
                else:
                    miner.say(id=request["id"], result={}, error=None)

        async with scripted(hasty) as (at, _), mining_on(at) as client:
            await until(client.current_job)
            job = client.current_job()
            assert job is not None
            assert job.extranonce.extranonce1.hex() == "ee"

    run(body)
