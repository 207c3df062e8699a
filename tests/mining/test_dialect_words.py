"""What pools of the other coins say becomes jobs, and shares say what those pools want to hear.

The lines are recorded ones, or those of the pools' own tests and specifications; each names its
source. What is hashed is held against vectors that others have published.
"""

import struct
from dataclasses import replace
from typing import Any

import ethash
import pytest

from wattshift_cluster.mining.dialects import seeds
from wattshift_cluster.mining.dialects.alephium import AlephiumFeed
from wattshift_cluster.mining.dialects.ergo import ErgoFeed
from wattshift_cluster.mining.dialects.ethereum_classic import EtchashFeed
from wattshift_cluster.mining.dialects.kaspa import KaspaFeed
from wattshift_cluster.mining.dialects.nonce_feed import NonceFeed
from wattshift_cluster.mining.dialects.table import DIALECTS
from wattshift_cluster.mining.job import JobFault
from wattshift_cluster.mining.nonces import NonceJob, NonceShare
from wattshift_cluster.mining.refusals import Kind, kind_of
from wattshift_kernels.algorithms import ROOMS
from wattshift_kernels.header import DIFFICULTY_1_TARGET

SEED_50 = "abad8f99f3918bf903c6a909d9bbc0fdfa5a2f4b9cb1196175ec825c6610126c"
HEADER = "fc12eb20c58158071c956316cdcd12a22dd8bf126ac4aee559f0ffe4df11f279"
"""nicehash/Specifications, EthereumStratum_NiceHash_v1.0.0.txt, IV: "Real world scenario"."""

ERGO_MESSAGE = "548c3e602a8f36f8f2738f5f643b02425038044d98543a51cabaa9785e7e864f"
ERGO_HIT = 0x0002FCB113FE65E5754959872DFDBFFEA0489BF830BEB4961DDC0E9E66A1412A
"""ergoplatform/ergo, AutolykosPowSchemeSpec.scala: nonce 0x3105 at height 614,400."""

ALEPHIUM_BLOB = (
    "0007790e4ec67704f105b406379c6640a1edd9f4f55d07628fd555d72da436dccd50000000003309007511dbb197"
    "6d272fdaec0a5ead079da6e422c3c16faa593a3abddd3b822d4602064477d36478ce5a7370e0220e5daadfd9c498"
    "4f140a41537f000000005276b90956fa5c3d5b5cdb4235de493e239bd12523266099f0ae9834fd481a7288ec588c"
    "73287d61dc9b7ed326e1bc8980bffa383698fe780c1d00153b2890a5ea1c798f8e552c79e44d31fe1d02e2fbef87"
    "63369a774502229dd01600000000f07f98e3ec9b7d634293748bac9720310d681dd5a3e87f2f330d61d7c2f0ce1a"
    "dccebc35c08b472d5d7f1a008009c8291382b839aa8493b57e58cbb400b9146184a084990fe481afb4fea6f0cdd5"
    "b372bce59d6be4b7c3b1a1ac72260000017ddbd15f591cffffff"
)
ALEPHIUM_NONCE = "f8c8741232a4ebb0aad38ffb8e829b9bf5b00770f1ac31dc"
ALEPHIUM_LOW = "301d0b1f7e61e1d532d37df520f1acc92cfccc48de323e1c"
ALEPHIUM_OTHER_CHAIN = "b6414be3a40e1a2852b3171e4462846ea48c777104b03e5e"
"""alephium/mining-pool, test/jobManagerTest.js: a share, one of too low a difficulty, and one whose
hash names other groups than the job's 1 and 2."""


def ergo(*, b: Any = str(ERGO_HIT + 1), difficulty: Any = 1, **changes: Any) -> NonceJob | None:
    """The job of a notify as oliverw/miningcore's ErgoJob.cs makes it."""
    feed = ErgoFeed(3)
    feed.subscribed([[["mining.notify", "s"]], "0000", 6])
    feed.told("mining.set_difficulty", [difficulty])
    params: list[Any] = ["47388824", 614_400, ERGO_MESSAGE, "", "", 2, b, "", True]
    for at, value in changes.items():
        params[int(at[1:])] = value
    return found(feed.told("mining.notify", params))


def found(job: Any) -> NonceJob:
    assert isinstance(job, NonceJob)
    return job


def share(job: NonceJob, nonce: str) -> NonceShare:
    return NonceShare(job.job_id, bytes.fromhex(nonce), job.session)


def test_every_algorithm_has_a_dialect() -> None:
    assert set(DIALECTS) == set(ROOMS)


def test_ergo_a_recorded_vector_is_a_share_just_below_b_and_says_so() -> None:
    job = found(ergo())
    assert (job.height, job.clean, job.session, job.prefix) == (614_400, True, 3, b"\0\0")
    assert job.target == ERGO_HIT
    solution = share(job, "0000000000003105")
    assert job.valid(solution)
    assert job.submission(solution, "9f.rig") == [
        "9f.rig", "47388824", "000000003105", "00000000", "0000000000003105",
    ]  # fmt: skip
    assert not found(ergo(b=str(ERGO_HIT))).valid(solution)  # the hit has to be below b
    assert not job.valid(share(job, "0000000000003106"))
    assert not replace(job, prefix=b"\0\1").valid(solution)  # not behind the pool's part
    assert not job.valid(share(job, "00003105"))


def test_ergo_the_difficulty_is_a_factor_on_b_and_a_time_is_given_back() -> None:
    job = found(ergo(b=1001, difficulty=2.5, _7="66a0b1c2"))
    assert job.target == 2500  # mhssamadani/ErgoStratumProxy: (b - 1) * difficulty
    assert job.submission(share(job, "00" * 8), "u")[3] == "66a0b1c2"  # type: ignore[index]


@pytest.mark.parametrize("b", [0, 1, -5, "9" * 5000, "-1", "1e9", "\N{SUPERSCRIPT TWO}", None, 2.0])
def test_ergo_a_b_that_is_no_number_or_leaves_no_hash_is_no_job(b: Any) -> None:
    with pytest.raises(JobFault):
        ergo(b=b)


def kaspa() -> tuple[KaspaFeed, NonceJob]:
    """A conversation that was recorded with 666pool, rigelminer/rigel#48."""
    feed = KaspaFeed()
    feed.subscribed([True, "EthereumStratum/1.0.0"])
    feed.told("set_extranonce", ["fbba", 6])
    feed.told("mining.set_difficulty", [15])
    words = [
        7211280287401868441, 16494456541454081082, 2382655150393541020, 7381781733132719467,
    ]  # fmt: skip
    return feed, found(feed.told("mining.notify", ["350724", words, 1681123755681]))


def test_kaspa_four_numbers_and_a_time_are_the_header() -> None:
    _, job = kaspa()
    header = struct.pack(
        "<5Q", 7211280287401868441, 16494456541454081082, 2382655150393541020,
        7381781733132719467, 1681123755681,
    )  # fmt: skip
    work = job.kernel_work(bytes.fromhex("fbba0000"))
    assert work.message == header + bytes.fromhex("fbba0000")
    assert (work.algorithm, work.target) == ("kheavyhash", DIFFICULTY_1_TARGET // 15)
    assert not job.clean
    said = job.submission(share(job, "fbba0000000000ff"), "kaspa:q.rig")
    assert said == ["kaspa:q.rig", "350724", "fbba0000000000ff"]


def test_kaspa_a_header_as_text_is_the_same_and_no_extranonce_leaves_the_whole_nonce() -> None:
    _, job = kaspa()
    feed = KaspaFeed()
    large = found(feed.told("mining.notify", ["1", job.before.hex()]))
    assert (large.before, large.prefix) == (job.before, b"")
    feed.subscribed([None, "0abc", 6])  # how some firmware is answered
    assert found(feed.told("mining.notify", ["1", job.before.hex()])).prefix.hex() == "0abc"


def nicehash() -> tuple[EtchashFeed, NonceJob]:
    feed = EtchashFeed()
    about = ["mining.notify", "ae6812eb4cd7735a302a8a9dd95cf71f", "EthereumStratum/1.0.0"]
    feed.subscribed([about, "a2eea0"])
    feed.told("mining.set_difficulty", [1.0])
    return feed, found(feed.told("mining.notify", ["bf0488aa", SEED_50, HEADER, True]))


def test_etchash_the_specifications_share_is_what_it_says() -> None:
    _, job = nicehash()
    assert (job.before.hex(), job.height, job.target) == (HEADER, 1_500_000, DIFFICULTY_1_TARGET)
    said = job.submission(share(job, "a2eea0cfae7df760"), "test")
    assert said == ["test", "bf0488aa", "cfae7df760"]
    # By PyPI's ethash, in 12 s: "Result is share with difficulty of 1.863 which is above 1.0."
    digest = 0x000000008967835BC523BF58C952DF82BE871BA937996C86B9419BCC967028A0
    assert 1.863 < DIFFICULTY_1_TARGET / digest < 1.864


def test_etchash_the_older_form_is_known_by_its_answer() -> None:
    feed = EtchashFeed()
    feed.subscribed(True)
    params = ["j", "0x" + HEADER, "0x" + "00" * 32, "0x" + "00" * 4 + "ff" * 28, False]
    job = found(feed.told("mining.notify", params))
    assert (job.before.hex(), job.height, job.target) == (HEADER, 0, 2**224 - 1)
    assert (job.prefix, job.clean) == (b"", False)
    for answer in (False, None, [["mining.notify", "s", "EthereumStratum/2.0.0"], "00"], [[], "0"]):
        with pytest.raises(JobFault):
            EtchashFeed().subscribed(answer)


def test_etchash_a_seed_names_the_epoch() -> None:
    chain = [bytes(32)]
    while len(chain) < 900:
        chain.append(ethash.keccak_256(chain[-1]))  # an implementation that is not ours
    assert chain[seeds.TODAY] == seeds.SEED_TODAY
    for number in (0, 1, 50, seeds.TODAY - 1, seeds.TODAY, 899):
        assert seeds.seed_number(chain[number]) == number
    assert seeds.seed_number(b"x" * 32) is None
    feed, _ = nicehash()

    def height(number: int) -> int:
        return found(feed.told("mining.notify", ["j", chain[number].hex(), HEADER, True])).height

    assert (height(389), height(390), height(800)) == (11_670_000, 11_700_000, 24_000_000)
    with pytest.raises(JobFault, match="middle"):  # ECIP-1099: from block 11,700,000, 60,000 each
        height(391)
    with pytest.raises(JobFault, match="no epoch"):
        feed.told("mining.notify", ["j", "ab" * 32, HEADER, True])


def alephium(target: str = "00ffffff" + "00" * 28) -> NonceJob:
    feed = AlephiumFeed()
    job = {
        "jobId": "1f", "fromGroup": 1, "toGroup": 2, "headerBlob": ALEPHIUM_BLOB, "txsBlob": "",
        "targetBlob": target,
    }  # fmt: skip
    assert feed.told("mining.notify", [job]) is None  # it waits for the pool's part of the nonce
    return found(feed.told("mining.set_extranonce", [""]))


def test_alephium_the_pools_own_vectors_are_judged_as_it_judges_them() -> None:
    job = alephium()
    assert job.valid(share(job, ALEPHIUM_NONCE))
    assert not job.valid(share(job, ALEPHIUM_OTHER_CHAIN))
    # That pool's test counts from 2^228 - 1 and wants difficulty 2.
    strict = alephium(f"{(2**228 - 1) // 2:064x}"[6:])
    assert strict.target == (2**228 - 1) // 2  # leading zeros are not sent by every pool
    assert not strict.valid(share(strict, ALEPHIUM_LOW))


def test_alephium_a_share_is_an_object_with_the_whole_nonce() -> None:
    job = alephium()
    work = job.kernel_work(bytes.fromhex(ALEPHIUM_NONCE)[:20])
    assert work.message.hex() == ALEPHIUM_NONCE[:40] + ALEPHIUM_BLOB + "0102"
    assert job.submission(share(job, ALEPHIUM_NONCE), "1A.rig") == {
        "jobId": "1f", "fromGroup": 1, "toGroup": 2, "nonce": ALEPHIUM_NONCE, "worker": "1A.rig",
    }  # fmt: skip
    assert job.difficulty == pytest.approx(16 * DIFFICULTY_1_TARGET / job.target)


def test_alephium_of_several_jobs_each_has_its_turn() -> None:
    feed = AlephiumFeed()
    feed.told("mining.set_extranonce", ["577f"])
    job = {"headerBlob": ALEPHIUM_BLOB, "targetBlob": "ff" * 31}
    jobs = [{**job, "jobId": str(n), "fromGroup": n // 4, "toGroup": n % 4} for n in range(16)]
    taken = {found(feed.told("mining.notify", jobs)).job_id for _ in range(16)}
    assert taken == {one["jobId"] for one in jobs}
    with pytest.raises(JobFault, match="16 chains"):
        feed.told("mining.notify", [*jobs, jobs[0]])


@pytest.mark.parametrize(
    ("algorithm", "error", "kind"),
    [
        ("blake3", [24, "duplicate share"], Kind.DUPLICATE),
        ("blake3", [22, ""], Kind.UNAUTHORISED),  # Bitcoin's pools say 22 of a duplicate
        ("blake3", [25, ""], Kind.LOW_DIFFICULTY),
        ("blake3", [20, "job not found, maybe expired"], Kind.STALE),
        ("etchash", [-1, "Job not found", None], Kind.STALE),
        ("kheavyhash", [22, "", None], Kind.DUPLICATE),
        ("autolykos2", [23, "", None], Kind.LOW_DIFFICULTY),
    ],
)
def test_a_refusal_is_understood_in_the_codes_of_its_coin(
    algorithm: str, error: list[Any], kind: Kind
) -> None:
    assert kind_of(error, DIALECTS[algorithm].codes) is kind


@pytest.mark.parametrize("feed", [ErgoFeed(), EtchashFeed(), AlephiumFeed()])
def test_a_job_that_comes_before_the_nonces_first_bytes_waits_for_them(feed: NonceFeed) -> None:
    assert feed.told("mining.notify", ["anything"]) is None
    with pytest.raises(JobFault):  # and is looked at then
        feed.told("mining.set_extranonce", ["00"])


def test_a_new_extranonce_holds_from_the_next_job_on() -> None:
    feed, job = nicehash()
    assert feed.told("mining.set_extranonce", ["af4c"]) is None
    after = found(feed.told("mining.notify", ["k", SEED_50, HEADER, False]))
    assert (job.prefix.hex(), after.prefix.hex()) == ("a2eea0", "af4c")
    with pytest.raises(JobFault):
        feed.told("mining.set_extranonce", ["00" * 8])
