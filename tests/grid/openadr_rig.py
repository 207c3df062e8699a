"""Loopback VTNs, ours with its logins and that of openleadr, for the tests of the wire."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from wattshift_cluster.grid.openadr.client import VtnClient
from wattshift_cluster.grid.openadr.login import Login
from wattshift_cluster.grid.openadr.words import (
    Interval,
    ObjectType,
    Payload,
    Report,
    ReportResource,
)
from wattshift_cluster.grid.vtn.clients import Client, Role
from wattshift_cluster.grid.vtn.server import LoopbackVtn, VtnSettings

HOST = "127.7.3.1"
SITE, OTHER, UTILITY = (
    Client("site", Role.VEN, "the secret of the site"),
    Client("other", Role.VEN, "the secret of another site"),
    Client("utility", Role.BL, "the secret of the utility"),
)
LOGINS = (SITE, OTHER, UTILITY)
WAIT_S = 20.0
START = "2030-01-01T00:00:00Z"


def run(scene: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await scene

    asyncio.run(bounded())


async def until(true: Callable[[], bool], what: str) -> None:
    """Wait for something that another task brings about."""
    try:
        async with asyncio.timeout(WAIT_S):
            while not true():  # noqa: ASYNC110 (the condition is another's, and tells nobody)
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"not within {WAIT_S} s: {what}") from None


@asynccontextmanager
async def vtn(settings: VtnSettings | None = None) -> AsyncIterator[LoopbackVtn]:
    made = LoopbackVtn(settings or VtnSettings(clients=LOGINS, callback_verify=False))
    try:
        await made.start(HOST)
        yield made
    finally:
        await made.close()


@asynccontextmanager
async def vtn_2_0b(host: str, port: int) -> AsyncIterator[Any]:
    """The VTN of openleadr, which knows every site as `ven-id`; skips where it is missing."""
    openleadr = pytest.importorskip("openleadr")
    logging.getLogger("openleadr").setLevel(logging.CRITICAL)
    made = openleadr.OpenADRServer(
        vtn_id="vtn", http_host=host, http_port=port, show_server_cert_domain=False
    )

    async def known(info: Any) -> tuple[str, str]:
        return "ven-id", "registration-id"

    made.add_handler("on_create_party_registration", known)
    await made.run_async()
    try:
        yield made
    finally:
        await made.stop()


def secret_file(folder: Path, client: Client) -> Path:
    file = folder / f"{client.id}.secret"
    if not file.exists():
        file.touch(mode=0o600)
        file.write_text(client.secret + "\n")
    return file


def login(folder: Path, client: Client = SITE, **more: Any) -> Login:
    scopes = () if client.role is Role.BL else None
    return Login(client.id, secret_file(folder, client), **{"scopes": scopes, **more})


@asynccontextmanager
async def client(
    url: str, folder: Path, who: Client = SITE, **more: Any
) -> AsyncIterator[VtnClient]:
    # Reading the system's authorities takes longer than most scenes, and none needs them.
    made = VtnClient(url, login(folder, who), **{"verify": False, **more})
    try:
        yield made
    finally:
        await made.close()


@dataclass(frozen=True)
class Certificates:
    """An authority, and what it signed for HOST and for a client."""

    ca: Path
    cert: Path
    key: Path


def certificates(folder: Path) -> Certificates:
    """Fresh ones, good for an hour."""
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "authority of a test")])
    ca = _signed(ca_name, ca_name, ca_key.public_key(), ca_key, is_ca=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "site")])
    cert = _signed(name, ca_name, key.public_key(), ca_key, is_ca=False)
    made = Certificates(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
    made.ca.write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    made.cert.write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    made.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return made


def _signed(
    name: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    by: ec.EllipticCurvePrivateKey,
    *,
    is_ca: bool,
) -> x509.Certificate:
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address(HOST))]), critical=False
        )
    )
    return builder.sign(by, hashes.SHA256())


async def program(server: LoopbackVtn, name: str = "curtailment", **more: Any) -> str:
    row = await server.post(ObjectType.PROGRAM, {"programName": name, **more})
    return str(row["id"])


def event(program_id: str, limit_kw: float = 500, **more: Any) -> dict[str, Any]:
    return {
        "programID": program_id,
        "intervalPeriod": {"start": START, "duration": "PT1H"},
        "payloadDescriptors": [
            {
                "objectType": "EVENT_PAYLOAD_DESCRIPTOR",
                "payloadType": "IMPORT_CAPACITY_LIMIT",
                "units": "KW",
            }
        ],
        "intervals": [
            {"id": 0, "payloads": [{"type": "IMPORT_CAPACITY_LIMIT", "values": [limit_kw]}]}
        ],
        **more,
    }


def stamp(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat().replace("+00:00", "Z")


def now_event(program_id: str, limit_kw: float, **more: Any) -> dict[str, Any]:
    """A limit that began a second ago, for an hour."""
    period = {"start": stamp(time.time() - 1), "duration": "PT1H"}
    return event(program_id, limit_kw, intervalPeriod=period, **more)


def usage(event_id: str, kwh: float = 1.5, **more: Any) -> Report:
    """A report of one interval's energy."""
    interval = Interval(id=0, payloads=(Payload(type="USAGE", values=(kwh,)),))
    return Report(
        event_id=event_id,
        client_name="my-site",
        name="usage",
        resources=(ReportResource(name="hall", intervals=(interval,)),),
        **more,
    )


async def grant(server: LoopbackVtn, who: Client, name: str, targets: list[str]) -> str:
    """A VEN of this client, with targets, as the business logic provisions it."""
    body = {
        "objectType": "BL_VEN_REQUEST",
        "clientID": who.id,
        "venName": name,
        "targets": targets,
    }
    row = await server.post(ObjectType.VEN, body)
    return str(row["id"])
