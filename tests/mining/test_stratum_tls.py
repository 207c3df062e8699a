"""TLS to a pool: nothing is said before its certificate is known to be the right one."""

import asyncio
import hashlib
import random
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.mining import scripted_pool as pools

from wattshift_cluster.mining.backoff import Backoff
from wattshift_cluster.mining.client import StratumClient
from wattshift_cluster.mining.endpoint import Endpoint, EndpointInvalid
from wattshift_cluster.mining.pool.server import LoopbackPool
from wattshift_cluster.mining.pool.settings import PoolSettings
from wattshift_cluster.mining.tls import Trust, Verifier

found, until, run = pools.found, pools.until, pools.run


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that nobody but itself has signed, and its key, in one file."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl command to make a certificate with")
    pem = tmp_path_factory.mktemp("tls") / "pool.pem"
    made = [
        openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
        "-keyout", str(pem), "-out", str(pem.with_suffix(".crt")), "-days", "2",
        "-subj", "/CN=pool", "-addext", "subjectAltName=IP:127.0.0.1",
    ]  # fmt: skip
    subprocess.run(made, check=True, capture_output=True, timeout=30)
    pem.write_text(pem.read_text() + pem.with_suffix(".crt").read_text())
    return pem


def fingerprint(pem: Path) -> str:
    der = ssl.PEM_cert_to_DER_cert(pem.with_suffix(".crt").read_text())
    return hashlib.sha256(der).hexdigest()


@asynccontextmanager
async def tls_pool(pem: Path) -> AsyncIterator[tuple[LoopbackPool, Endpoint]]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    pool = LoopbackPool(PoolSettings(difficulty=pools.EASIEST), tls=context)
    try:
        yield pool, await pool.start(Endpoint("127.0.0.1", 0))
    finally:
        await pool.stop()


@asynccontextmanager
async def client_of(url: str, trust: Trust | None) -> AsyncIterator[StratumClient]:
    backoff = Backoff(random.Random(1), least_s=0.01, first_s=0.02, most_s=0.05)
    client = StratumClient(url, "rig", backoff=backoff, trust=trust, deadlines=pools.CALM)
    task = asyncio.create_task(client.run())
    try:
        yield client
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def colons(digits: str) -> str:
    return ":".join(digits[at : at + 2] for at in range(0, len(digits), 2)).upper()


def test_it_mines_where_the_authority_or_the_fingerprint_is_known(certificate: Path) -> None:
    known = [
        Trust(ca_file=certificate.with_suffix(".crt")),
        Trust(fingerprint=fingerprint(certificate)),
        Trust(certificate.with_suffix(".crt"), colons(fingerprint(certificate))),
    ]

    async def body() -> None:
        async with tls_pool(certificate) as (_, at):
            for scheme, trust in zip(("tls", "ssl", "tls"), known, strict=True):
                async with client_of(f"stratum+{scheme}://{at}", trust) as client:
                    await until(client.current_job)
                    assert (await client.submit(found(client))).accepted

    run(body)


def test_an_unknown_certificate_ends_it_before_a_word_is_said(certificate: Path) -> None:
    own = certificate.with_suffix(".crt")
    cases = [
        ("127.0.0.1", None, "self-signed certificate"),
        ("127.0.0.1", Trust(fingerprint="00" * 32), "has the fingerprint"),
        ("127.0.0.1", Trust(own, "00" * 32), "has the fingerprint"),
        ("localhost", Trust(own), "Hostname mismatch"),
    ]

    async def body() -> None:
        async with tls_pool(certificate) as (pool, at):
            for host, trust, why in cases:
                async with client_of(f"stratum+tls://{host}:{at.port}", trust) as client:
                    await until(lambda client=client: client.refused)
                    assert why.lower().replace("-", " ") in (client.fault or "").lower().replace(
                        "-", " "
                    )
                    assert client.current_job() is None
            assert pool.stats.users == {}
            assert not any(link.ready for link in pool.links)

    run(body)


def test_a_pool_without_tls_is_not_spoken_to_in_the_clear() -> None:
    async def body() -> None:
        heard: list[bytes] = []

        async def listens(miner: pools.Miner) -> None:  # type: ignore[name-defined]
            heard.append(await miner.reader.read(64))

        async with pools.scripted(listens) as (at, _):
            async with client_of(f"stratum+tls://{at}", None) as client:
                await until(lambda: heard and client.fault != "not started")
            assert heard[0].startswith(b"\x16\x03")  # a TLS handshake, and no JSON
            assert client.current_job() is None

    run(body)


@pytest.mark.parametrize(
    "trust", [Trust(Path("/nowhere/ca.pem")), Trust(Path(__file__)), Trust(fingerprint="abc")]
)
def test_a_certificate_file_or_fingerprint_that_is_none_is_refused_at_once(trust: Trust) -> None:
    with pytest.raises(EndpointInvalid) as refusal:
        Verifier(trust)
    assert refusal.value.exit_code == 3
    with pytest.raises(EndpointInvalid):
        StratumClient("stratum+tls://127.0.0.1:1", "rig", trust=trust)
