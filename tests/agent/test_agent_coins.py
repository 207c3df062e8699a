"""An agent that mines several coins: what its file may say, who mines what, and for how much."""

import asyncio
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from wattshift_cluster.agent import assignments as module
from wattshift_cluster.agent.assignments import Assignments
from wattshift_cluster.agent.build import Parts, build
from wattshift_cluster.agent.child import Totals
from wattshift_cluster.agent.consent import Surroundings
from wattshift_cluster.agent.desk import PoolDesk
from wattshift_cluster.agent.hashing import HashingDevice
from wattshift_cluster.agent.specs import CPU_H_PER_S, GPU_H_PER_S_PER_W
from wattshift_cluster.config.agent import Pool
from wattshift_cluster.config.load import load_agent, trace_proxy
from wattshift_cluster.config.payouts import coin_of
from wattshift_cluster.errors import ConfigInvalid
from wattshift_cluster.mining.endpoint import Endpoint
from wattshift_cluster.mining.pool.coins.server import TONGUES, CoinPool
from wattshift_cluster.mining.pool.server import LoopbackPool
from wattshift_cluster.mining.pool.settings import PoolSettings
from wattshift_kernels.algorithms import ROOMS
from wattshift_kernels.hasher import Work
from wattshift_kernels.verify import hit_of

AGENT = """
[agent]
name = "host"
listen = "127.0.0.1:0"
token_file = "token"
state_dir = "state"
gate_dir = "gates"
consent_file = "consent.toml"
[hashing]
devices = "cpu"
{hashing}
"""
CONSENT = """
owner = "Jane"
mining = true
payout = ["kaspa-account"]
pools = ["stratum+tls://kaspa.example:3333"]
"""
KASPA = """
[[pools]]
algorithm = "kheavyhash"
url = "stratum+tls://kaspa.example:3333"
user = "kaspa-account.rig"
usd_per_gh_per_day = 0.48
"""
BITCOIN = '[pool]\nurl = "stratum+tcp://127.85.2.9:3333"\nuser = "rig"\n'


def written(folder: Path, *pools: str, hashing: str = "") -> Path:
    file = folder / "agent.toml"
    file.write_text(AGENT.format(hashing=hashing) + "".join(pools))
    return file


def built(folder: Path, *pools: str, hashing: str = "", consent: str = CONSENT) -> Parts:
    (folder / "consent.toml").write_text(consent)
    (folder / "consent.toml").chmod(0o444)
    around = Surroundings(os.getuid(), os.getuid(), folder / "none")
    config = load_agent(written(folder, *pools, hashing=hashing), environ={})
    return build(config, around)


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Any]:
    made: list[HashingDevice] = []

    def of(*pools: str, **more: Any) -> HashingDevice:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        (one,) = built(folder, *pools, **more).devices
        assert isinstance(one, HashingDevice)
        made.append(one)
        return one

    yield of
    for one in made:
        asyncio.run(one.close())


def test_a_device_mines_the_first_of_its_algorithms_that_a_pool_is_for(device: Any) -> None:
    wanted = 'algorithms = { host-cpu0 = ["blake3", "kheavyhash", "sha256d"] }'
    assert device(BITCOIN, KASPA).info().algorithm == "sha256d"
    assert device(BITCOIN, KASPA, hashing=wanted).info().algorithm == "kheavyhash"
    assert device(BITCOIN, hashing=wanted).info().algorithm == "sha256d"
    assert device(KASPA).info().algorithm == "kheavyhash"


def test_only_the_coins_that_are_mined_get_a_session(tmp_path: Path, device: Any) -> None:
    parts = built(tmp_path, BITCOIN, KASPA)
    assert [desk.algorithm for desk in parts.desks] == ["sha256d"]
    for one in parts.devices:
        asyncio.run(one.close())


def test_another_coins_hashes_are_not_priced_as_bitcoins_but_by_the_owners_word(
    device: Any,
) -> None:
    point = device(KASPA).info().points[-1]
    assert (point.mode, point.hashrate_h_per_s) == ("hash", 0.0)
    assert point.revenue_usd_per_h == pytest.approx(CPU_H_PER_S["kheavyhash"] / 1e9 * 0.48 / 24)
    point = device(BITCOIN).info().points[-1]
    assert (point.hashrate_h_per_s, point.revenue_usd_per_h) == (CPU_H_PER_S["sha256d"], 0.0)


def test_every_algorithm_has_an_expected_rate() -> None:
    assert set(CPU_H_PER_S) == set(GPU_H_PER_S_PER_W) == set(ROOMS)


def test_each_coins_pool_needs_the_owners_consent(device: Any) -> None:
    assert device(KASPA).spec.refusal is None
    other = KASPA.replace("kaspa-account", "somebody-else")
    assert "somebody-else" in device(other).spec.refusal
    assert "kaspa.example" in device(KASPA, consent='owner = "J"\nmining = true\n').spec.refusal
    assert "b.example" in device(KASPA + FALLBACK).spec.refusal
    # What is not mined asks for nothing.
    assert device(BITCOIN, other).spec.refusal is None


def faults(folder: Path, *pools: str, hashing: str = "") -> str:
    with pytest.raises(ConfigInvalid) as invalid:
        load_agent(written(folder, *pools, hashing=hashing), environ={})
    return str(invalid.value)


FALLBACK = '[[pools.fallback]]\nurl = "stratum+tls://b.example:1"\nuser = "u"\n'


@pytest.mark.parametrize(
    ("pools", "hashing", "said"),
    [
        ([KASPA, KASPA], "", "pools[1].algorithm"),
        ([BITCOIN, BITCOIN.replace("[pool]", "[[pools]]")], "", "pools[0].algorithm"),
        ([KASPA.replace("kheavyhash", "scrypt")], "", "pools[0].algorithm"),
        ([KASPA + "suggest_difficulty = 2.0\n"], "", "pools[0].suggest_difficulty"),
        ([KASPA + FALLBACK + "minimum_difficulty = 2.0\n"], "", "fallback[0].minimum_difficulty"),
        ([BITCOIN + "usd_per_gh_per_day = 1.0\n"], "", "pool.usd_per_gh_per_day"),
        ([BITCOIN], 'algorithms = { host-cpu0 = ["kheavyhash"] }', "algorithms.host-cpu0"),
        ([BITCOIN], "algorithms = { host-cpu0 = [] }", "algorithms"),
        ([KASPA.replace("kaspa-account", "0x" + "ab" * 20)], "", "of Ethereum Classic"),
        ([KASPA.replace("tls://", "tcp://")], "", "pools[0].url"),
    ],
)
def test_what_a_file_cannot_say(tmp_path: Path, pools: list[str], hashing: str, said: str) -> None:
    assert said in faults(tmp_path, *pools, hashing=hashing)


def test_the_proxy_takes_pools_of_bitcoin_alone(tmp_path: Path) -> None:
    file = tmp_path / "proxy.toml"
    listen = '[proxy]\nlisten = "127.85.2.3:3333"\nstatus = "127.85.2.3:3334"\n'
    file.write_text(listen + KASPA.replace("[[pools]]", "[pool]"))
    with pytest.raises(ConfigInvalid, match=r"pool\.algorithm"):
        trace_proxy(file, environ={})


def test_a_slip_in_a_devices_name_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="allowed: host-cpu0"):
        built(tmp_path, BITCOIN, hashing='algorithms = { hots-gpu0 = ["sha256d"] }')


def test_a_lost_card_that_the_file_names_stops_no_other_one(device: Any) -> None:
    with capture_logs() as logs:
        one = device(BITCOIN, hashing='algorithms = { host-gpu7 = ["sha256d"] }')
    assert one.info().algorithm == "sha256d"
    assert ("hashing.no_such_device", "host-gpu7") in [(x["event"], x.get("device")) for x in logs]


@pytest.mark.parametrize(
    ("user", "coin"),
    [
        ("bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq.rig", "sha256d"),
        ("1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", "sha256d"),
        ("0x00000000219ab540356cBB839Cbe05303d7705Fa.rig", "etchash"),
        ("kaspa:qp4dwtnj3a3ys4tduuxjft6a22v9rx0zh368384pvdt6fwdu455rc5w6cq43s.rig", "kheavyhash"),
        ("rig.1AqVGKeHWoLJiVU7heL8EvwQN2hk5bMtvP3PsH57qWayr", "blake3"),
        ("9fRAWhdxEsTcdb8PhGNrZfwqa65zfkuYHAMmkQLcic1gdLSV5vA.rig", "autolykos2"),
        ("bc1qowner.rig", None),
        ("kaspa-account.rig", None),
        ("demo.host", None),
    ],
)
def test_an_address_says_its_coin_and_an_account_says_none(user: str, coin: str | None) -> None:
    found = coin_of(user)
    assert (None if found is None else found[0]) == coin


def worked(line: dict[str, Any]) -> Work:
    """What a worker makes of its line."""
    return Work(
        bytes.fromhex(line["message"]),
        int(line["target"], 16),
        line["algorithm"],
        height=line["height"],
        roll_mask=int(line["roll_mask"], 16),
    )


async def a_share(desk: PoolDesk, *, spoilt: bool = False) -> tuple[Assignments, dict[str, Any]]:
    """One share as a worker would find it, by the reference alone."""
    said: list[dict[str, Any]] = []
    child: Any = SimpleNamespace(fault=None, send=said.append)
    assignments = Assignments("host-cpu0", desk)
    assignments.serve(child)
    async with asyncio.timeout(20):
        while not said:  # noqa: ASYNC110 - the pool's first job
            await asyncio.sleep(0.005)
    line, work = said[0], worked(said[0])
    tries = ((n, roll) for n in itertools.count(line["nonces"][0]) for roll in rolls(work))
    nonce, roll = next(one for one in tries if (hit_of(work, *one) is None) is spoilt)
    hit = {"event": "hit", "id": line["id"], "nonce": nonce, "roll": roll}
    assignments.heard(hit)
    async with asyncio.timeout(20):
        while assignments._submits:
            await assignments.settle()
    return assignments, line


def rolls(work: Work) -> list[int]:
    """The last value first, so that a share of version bits is found."""
    mask, values = work.roll_mask, []
    value = mask
    while True:
        values.append(value)
        if not value:
            return values
        value = (value - 1) & mask


@pytest.mark.parametrize("coin", [*TONGUES, "sha256d"])
@pytest.mark.parametrize("spoilt", [False, True], ids=["good", "spoilt"])
def test_a_workers_hit_is_checked_and_becomes_a_share_of_its_coin(coin: str, spoilt: bool) -> None:
    async def body() -> None:
        settings = PoolSettings(difficulty=1e-9, algorithm=coin)
        bitcoin = coin == "sha256d"
        pool: Any = LoopbackPool(settings) if bitcoin else CoinPool(TONGUES[coin](), settings)
        at = await pool.start(Endpoint("127.85.2.1", 0))
        made: Any = {"algorithm": coin, "url": f"stratum+tcp://{at}", "user": "rig"}
        desk = PoolDesk(Pool(**made))
        running = asyncio.create_task(desk.run())
        try:
            assignments, line = await a_share(desk, spoilt=spoilt)
            assert line["algorithm"] == coin
            counts = assignments.counts
            if spoilt:
                assert (counts.shares_found, pool.stats.total.accepted) == (0, 0)
                return
            assert (counts.shares_found, counts.accepted, counts.rejected) == (1, 1, 0)
            assert pool.stats.total.accepted == 1
            assert not pool.stats.total.rejected
            if coin == "sha256d":
                assert line["roll_mask"] == "0001e000"  # 16 ways beside each nonce
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await pool.stop()

    asyncio.run(body())


def test_what_a_worker_cannot_have_found_is_no_share() -> None:
    """Not a number, not of this unit's version bits, or of a unit that was never given out."""

    async def body() -> None:
        pool = LoopbackPool(PoolSettings(difficulty=1e-9))
        at = await pool.start(Endpoint("127.85.2.1", 0))
        desk = PoolDesk(Pool(url=f"stratum+tcp://{at}", user="rig"))
        running = asyncio.create_task(desk.run())
        assignments, line = await a_share(desk)
        for wrong in (
            {"nonce": 1 << 32}, {"nonce": -1}, {"roll": "6000"}, {"roll": True},
            {"roll": 0x20000000}, {"roll": 1 << 40}, {"id": 99},
        ):  # fmt: skip
            with capture_logs() as logs:
                hit = {"event": "hit", "id": line["id"], "nonce": 0, "roll": 0, **wrong}
                assignments.heard(hit)
                await assignments.settle()
            assert [one["event"] for one in logs] == ["worker.wrong_hit"], wrong
        assert (assignments.counts.shares_found, pool.stats.total.rejected.total()) == (1, 0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await pool.stop()

    asyncio.run(body())


def test_hits_beyond_what_can_be_checked_are_lost_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def body() -> None:
        pool = LoopbackPool(PoolSettings(difficulty=1e-9))
        at = await pool.start(Endpoint("127.85.2.1", 0))
        desk = PoolDesk(Pool(url=f"stratum+tcp://{at}", user="rig"))
        running = asyncio.create_task(desk.run())
        monkeypatch.setattr(module, "MOST_ON_THEIR_WAY", 0)
        assignments, _ = await a_share(desk)
        assert (assignments.counts.shares_found, assignments.counts.lost) == (1, 1)
        assert pool.stats.total.accepted == 0
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await pool.stop()

    asyncio.run(body())


def test_the_building_of_a_table_is_no_slow_hashing(device: Any) -> None:
    """Neither the first one nor one that is built again while the rate is still being learnt."""
    one, rate = device(KASPA), CPU_H_PER_S["kheavyhash"]
    before, second_ns = one.inventory_version, 1_000_000_000
    totals = Totals()
    for hashes in (0, 0, 0, 0, 0, rate, 0, 0, 0, 0, rate, rate, rate):
        totals += Totals(int(hashes), second_ns, second_ns)
        one._learn_rate(totals)
    assert one._rate_known
    assert one.inventory_version == before


def test_a_rate_that_is_badly_wrong_is_learnt(device: Any) -> None:
    one, rate = device(KASPA), CPU_H_PER_S["kheavyhash"]
    before = one.inventory_version
    totals = Totals(0, 60_000_000_000, 60_000_000_000)
    for _ in range(4):
        one._learn_rate(totals)
        totals += Totals(int(rate / 3), 1_000_000_000, 1_000_000_000)
    one._learn_rate(totals)
    assert one.inventory_version == before + 1
    assert one.info().points[-1].revenue_usd_per_h == pytest.approx(rate / 3e9 * 0.48 / 24)
