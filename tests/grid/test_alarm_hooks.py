"""Alarms told to a real server: signed, once, again where it fails, and never without bound."""

import asyncio
import hashlib
import hmac
import json
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from wattshift_cluster.config.utility import Alarms
from wattshift_cluster.errors import ConfigInvalid
from wattshift_cluster.grid import alarm_hooks
from wattshift_cluster.grid.alarm_hooks import AlarmHook
from wattshift_cluster.grid.serving import Certificate, serve
from wattshift_scheduler.state import Alarm

HOST = "127.9.0.5"
SECRET = "the two of us know it"


@dataclass
class Receiver:
    """A real HTTP server that keeps what came, and answers what a test wants."""

    answers: list[int] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    seen: list[dict[str, str]] = field(default_factory=list)
    url: str = ""

    @property
    def messages(self) -> list[dict[str, Any]]:
        return [json.loads(body) for body in self.bodies]

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ) -> None:
        body, more = b"", True
        while more:
            part = await receive()
            body, more = body + part.get("body", b""), part.get("more_body", False)
        self.bodies.append(body)
        self.seen.append({k.decode(): v.decode() for k, v in scope["headers"]})
        status = self.answers.pop(0) if self.answers else 204
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"x" * 100 if status != 204 else b""})


@asynccontextmanager
async def receiving(certificate: Certificate | None = None, **more: Any) -> AsyncIterator[Receiver]:
    made = Receiver(**more)
    serving = await serve(made, HOST, 0, name="alarms-test", certificate=certificate)
    made.url = serving.url + "/alarms"
    try:
        yield made
    finally:
        await serving.close()


@asynccontextmanager
async def hooked(folder: Path, url: str, **more: Any) -> AsyncIterator[AlarmHook]:
    hook = AlarmHook(config(folder, url, **more), "north", first_pause_s=0.01)
    task = asyncio.create_task(hook.run())
    try:
        yield hook
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def config(folder: Path, url: str, **more: Any) -> Alarms:
    secret = folder / "secret"
    if not secret.exists():
        secret.write_text(SECRET + "\n")
        secret.chmod(0o600)
    return Alarms(**({"url": url, "secret_file": secret} | more))


def alarm(name: str = "overdue", severity: str = "warning") -> dict[str, Alarm]:
    return {name: Alarm(name, severity, f"{name} is told", 1000.0)}


async def until(happened: Callable[[], bool]) -> None:
    for _ in range(2000):
        if happened():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("did not happen within 10 s")


def test_an_alarm_is_told_when_it_comes_and_when_it_goes(tmp_path: Path) -> None:
    async def test() -> None:
        async with receiving() as there, hooked(tmp_path, there.url) as hook:
            hook._config = hook._config.model_copy(update={"every_s": 0.0})
            hook.show(alarm())
            await until(lambda: hook.counts.told == 1)
            hook.show(alarm())
            hook.show({})
            await until(lambda: hook.counts.told == 2)
        first, second = there.messages
        at_s = first.pop("told_s")
        assert abs(at_s - time.time()) < 60
        assert first == {
            "version": 1, "site": "north", "alarm": "overdue", "state": "raised",
            "severity": "warning", "text": "overdue is told", "since_s": 1000.0, "changes": 1,
            "dropped": 0,
        }  # fmt: skip
        assert second["state"] == "cleared"
        for body, seen in zip(there.bodies, there.seen, strict=True):
            mac = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
            assert seen["wattshift-signature"] == f"sha256={mac}"
            assert SECRET not in str(seen)
        assert there.seen[0]["idempotency-key"] != there.seen[1]["idempotency-key"]

    asyncio.run(test())


def test_a_failure_is_tried_again_with_the_same_key_and_body(tmp_path: Path) -> None:
    async def test() -> None:
        async with (
            receiving(answers=[503, 429, 302, 500]) as there,
            hooked(tmp_path, there.url) as hook,
        ):
            hook.show(alarm("a"))
            # A redirect is followed by nobody: it is a refusal for good.
            await until(lambda: hook.counts.dropped == 1)
            hook.show(alarm("a") | alarm("b"))
            await until(lambda: hook.counts.told == 1)
        assert len(there.bodies) == 5
        assert len(set(there.bodies[:3])) == 1
        assert len({seen["idempotency-key"] for seen in there.seen[:3]}) == 1
        assert there.messages[-1]["alarm"] == "b"
        assert there.messages[-1]["dropped"] == 1, "the loss is told"
        assert hook._untold_drops == 0
        assert hook.counts.trouble is None

    asyncio.run(test())


def test_it_gives_up_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alarm_hooks, "TRIES_MOST", 3)

    async def test() -> None:
        async with receiving(answers=[500] * 3) as there, hooked(tmp_path, there.url) as hook:
            hook.show(alarm())
            await until(lambda: hook.counts.dropped == 1)
            assert (hook.counts.tries, hook.counts.trouble) == (3, "HTTP status 500")

    asyncio.run(test())


def test_nobody_there_and_nobody_answering_are_failures_with_a_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alarm_hooks, "TRIES_MOST", 1)

    async def test() -> None:
        async with hooked(tmp_path, f"http://{HOST}:9/") as hook:
            hook.show(alarm())
            await until(lambda: hook.counts.dropped == 1)
            assert hook.counts.trouble == "ConnectError"

        async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            # Each byte comes in time; all of them together do not.
            for letter in b"HTTP/1.1 204 No Content":
                writer.write(bytes([letter]))
                await asyncio.sleep(0.2)

        server = await asyncio.start_server(drip, HOST, 0)
        url = f"http://{HOST}:{server.sockets[0].getsockname()[1]}/"
        async with hooked(tmp_path, url, deadline=0.5) as hook:
            began_s = time.monotonic()
            hook.show(alarm())
            await until(lambda: hook.counts.dropped == 1)
            assert hook.counts.trouble == "no answer within 0.5 s"
            assert time.monotonic() - began_s < 3.0
        server.close()

    asyncio.run(test())


def test_one_alarm_is_told_at_most_once_in_a_while_with_its_newest_state(tmp_path: Path) -> None:
    clock = [100.0]

    async def test() -> None:
        async with receiving() as there:
            hook = AlarmHook(
                config(tmp_path, there.url, every="60s"), "north", steady_s=lambda: clock[0]
            )
            task = asyncio.create_task(hook.run())
            hook.show(alarm())
            await until(lambda: hook.counts.told == 1)
            for _ in range(50):
                hook.show({})
                hook.show(alarm())
            hook.show({})
            hook.show(alarm("other"))
            await until(lambda: hook.counts.told == 2)
            assert [one["alarm"] for one in there.messages] == ["overdue", "other"]
            clock[0] += 60.0
            hook.show({})
            await until(lambda: hook.counts.told == 4)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        held = there.messages[2]
        assert (held["alarm"], held["state"], held["changes"]) == ("overdue", "cleared", 101)

    asyncio.run(test())


def test_where_too_many_wait_the_oldest_is_dropped_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alarm_hooks, "WAITING_MOST", 3)

    async def test() -> None:
        async with receiving() as there:
            hook = AlarmHook(config(tmp_path, there.url), "north")
            flood = {f"a{n}": Alarm(f"a{n}", "warning", "", 0.0) for n in range(5)}
            hook.show(flood)
            task = asyncio.create_task(hook.run())
            await until(lambda: hook.counts.told == 3)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert [one["alarm"] for one in there.messages] == ["a2", "a3", "a4"]
        assert [one["dropped"] for one in there.messages] == [2, 0, 0]

    asyncio.run(test())


def test_only_the_wanted_severities_are_told_and_a_change_of_one_is(tmp_path: Path) -> None:
    hook = AlarmHook(config(tmp_path, f"http://{HOST}/", severities=("critical",)), "north")
    hook.show(alarm())
    assert not hook._waiting
    hook.show(alarm(severity="critical"))
    assert [one.state for one in hook._waiting.values()] == ["raised"]
    hook.show(alarm())
    assert [(one.state, one.changes) for one in hook._waiting.values()] == [("cleared", 2)]
    asyncio.run(hook._client.aclose())


def certificate(folder: Path) -> Certificate:
    """A certificate of nobody's authority, for HOST."""
    from datetime import UTC, datetime, timedelta
    from ipaddress import ip_address

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "alarms")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(HOST))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = folder / "cert.pem", folder / "key.pem"
    cert_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return Certificate(cert_file, key_file)


def test_a_server_without_a_known_certificate_is_told_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alarm_hooks, "TRIES_MOST", 1)
    shown = certificate(tmp_path)

    async def test() -> None:
        async with receiving(shown) as there:
            assert there.url.startswith("https://")
            async with hooked(tmp_path, there.url) as hook:
                hook.show(alarm())
                await until(lambda: hook.counts.dropped == 1)
            assert there.bodies == []
            async with hooked(tmp_path, there.url, ca_file=shown.cert) as hook:
                hook.show(alarm())
                await until(lambda: hook.counts.told == 1)

    asyncio.run(test())


def test_the_secret_is_read_anew_and_a_bad_file_is_found_at_the_start(tmp_path: Path) -> None:
    async def test() -> None:
        async with receiving() as there, hooked(tmp_path, there.url) as hook:
            (tmp_path / "secret").write_text("another")
            hook.show(alarm())
            await until(lambda: hook.counts.told == 1)
            mac = hmac.new(b"another", there.bodies[0], hashlib.sha256).hexdigest()
            assert there.seen[0]["wattshift-signature"] == f"sha256={mac}"

    asyncio.run(test())
    (tmp_path / "secret").chmod(0o644)
    with pytest.raises(ConfigInvalid, match="chmod 600"):
        AlarmHook(config(tmp_path, "https://alarms.example/"), "north")
    (tmp_path / "secret").chmod(0o600)
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(ConfigInvalid, match=r"ca\.pem"):
        AlarmHook(config(tmp_path, "https://alarms.example/", ca_file=tmp_path / "ca.pem"), "north")


def test_plain_http_stays_on_this_machine(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="not encrypted"):
        config(tmp_path, "http://alarms.example/")
    assert config(tmp_path, "http://alarms.example/", plaintext=True).plaintext
    assert config(tmp_path, f"http://{HOST}/").url
    assert ssl.HAS_TLSv1_2
