"""A command line that can pay nobody but the owner, and answers that may be anything."""

import json
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from wattshift_cluster.agent.consent import Surroundings
from wattshift_cluster.agent.external.build import why_not
from wattshift_cluster.agent.external.commands import orders_for, refused_extras
from wattshift_cluster.agent.external.miners import MINERS, Ask, Told
from wattshift_cluster.agent.external.orders import Orders, OrdersInvalid
from wattshift_cluster.agent.external.talk import MOST_BYTES, ProgramSilent, Summary, ask, summary
from wattshift_cluster.config.agent import AgentConfig, Miner

CONSENT = """
owner = "Jane"
mining = true
payout = ["wallet"]
pools = ["stratum+tcp://10.9.9.9:3333"]
"""


def miner(path: Path, **more: object) -> Miner:
    section = {
        "device": "gpu0", "program": "t-rex", "path": path, "algorithm": "kawpow",
        "url": "stratum+tcp://10.9.9.9:3333", "user": "wallet.rig", "password": "hidden",
    }  # fmt: skip
    return Miner.model_validate({**section, **more})


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program"
    path.write_text("#!/bin/true\n")
    path.chmod(0o755)
    return path


def agreed(folder: Path, consent: str) -> AgentConfig:
    (folder / "consent.toml").write_text(consent)
    agent = {
        "name": "host", "listen": "127.0.0.1:1", "token_file": folder / "t",
        "state_dir": folder, "gate_dir": folder, "consent_file": folder / "consent.toml",
    }  # fmt: skip
    return AgentConfig.model_validate({"agent": agent})


def around(folder: Path) -> Surroundings:
    """As if another user ran the service; no cloud provider here."""
    return Surroundings(service_uid=4711, installer_uid=os.getuid(), dmi_dir=folder)


@pytest.mark.parametrize(
    ("consent", "more", "expected"),
    [
        ('developer_fees = ["t-rex"]', {}, None),
        ("", {}, "must name it in developer_fees"),
        ('developer_fees = ["xmrig"]', {}, "must name it in developer_fees"),
        ('developer_fees = ["t-rex"]', {"user": "thief.rig"}, "the payout account thief.rig"),
        ('developer_fees = ["t-rex"]', {"url": "stratum+tcp://10.9.9.8:3333"}, "the pool"),
        ('developer_fees = ["t-rex"]', {"arguments": ["-o=stratum+tcp://x:1"]}, "'-o'"),
        ('developer_fees = ["t-rex"]', {"arguments": ["--intensity=20"]}, None),
        ("", {"program": "command", "arguments": ["-x"]}, "this command line"),
    ],
)
def test_nothing_runs_that_the_owner_has_not_agreed_to(
    tmp_path: Path, program: Path, consent: str, more: dict[str, object], expected: str | None
) -> None:
    config = agreed(tmp_path, CONSENT + consent)
    reason = why_not(miner(program, **more), config, around(tmp_path))
    assert (reason is None) if expected is None else (reason is not None and expected in reason)


def test_a_command_of_the_owners_is_run_word_for_word(tmp_path: Path, program: Path) -> None:
    config = agreed(tmp_path, f"{CONSENT}commands = ['{program} -u wallet']")
    own = miner(program, program="command", arguments=["-u", "wallet"])
    assert why_not(own, config, around(tmp_path)) is None
    assert orders_for(own, "GPU-1", tmp_path).command == (str(program), "-u", "wallet")


def test_a_program_that_others_can_change_is_not_run(tmp_path: Path, program: Path) -> None:
    config = agreed(tmp_path, CONSENT + 'developer_fees = ["t-rex"]')
    program.chmod(0o777)
    assert "can be changed by others" in str(why_not(miner(program), config, around(tmp_path)))


def test_secrets_stay_off_the_command_line_where_there_is_a_file(
    tmp_path: Path, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATTSHIFT_TOKEN", "secret")
    orders = orders_for(miner(program, program="xmrig", api_port=4999), "GPU-1", tmp_path)
    file = Path(orders.command[-1])
    config = json.loads(file.read_text())
    assert orders.command[1:-1] == ("--config",)
    assert config["pools"][0]["user"] == "wallet.rig"
    assert config["http"]["port"] == 4999
    assert config["http"]["access-token"] == orders.api_token
    assert len(orders.api_token or "") == 32
    assert "WATTSHIFT_TOKEN" not in orders.environment
    orders.write(tmp_path / "orders")
    assert [path.stat().st_mode & 0o777 for path in (file, tmp_path / "orders")] == [0o600, 0o600]
    assert Orders.read(tmp_path / "orders") == orders


def test_no_row_takes_an_option_that_could_name_another_payee() -> None:
    naming = ("-o", "-u", "-p", "-w", "-c", "--url", "--user", "--pool", "--wallet", "--config")
    for row in MINERS.values():
        assert not row.extras & set(naming)
        if row.name != "command":
            assert all(refused_extras(row.name, (f"{name}=x",)) for name in naming)


def test_orders_that_cannot_be_read_say_so(tmp_path: Path) -> None:
    for text in ("", "[]", '{"command": []}', '{"command": ["a"], "more": 1}'):
        (tmp_path / "orders").write_text(text)
        with pytest.raises(OrdersInvalid):
            Orders.read(tmp_path / "orders")


@pytest.fixture
def answering() -> Callable[[bytes], int]:
    """A server on loopback that sends one answer, whatever it is asked; its port."""

    def serve(answer: bytes) -> int:
        listener = socket.create_server(("127.0.0.1", 0))

        def once() -> None:
            with listener, listener.accept()[0] as talk:
                talk.recv(4096)
                talk.sendall(answer)

        threading.Thread(target=once, daemon=True).start()
        return int(listener.getsockname()[1])

    return serve


def ok(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


PAUSE = MINERS["t-rex"].pause


@pytest.mark.parametrize(
    "answer",
    [
        b"", b"garbage\r\n\r\n", b"HTTP/1.1 500 no\r\nContent-Length: 0\r\n\r\n", ok(b"[" * 9000),
        ok(b"\xff"), ok(b"{}"), ok(b'{"success": 0}'), ok(b" " * (MOST_BYTES + 1)),
    ],
)  # fmt: skip
def test_what_is_no_proof_of_a_pause_is_none(
    answering: Callable[[bytes], int], answer: bytes
) -> None:
    assert PAUSE is not None
    with pytest.raises(ProgramSilent):
        ask(answering(answer), PAUSE)


def test_a_proof_is_taken(answering: Callable[[bytes], int]) -> None:
    assert PAUSE is not None
    ask(answering(ok(b'{"success": 1}')), PAUSE)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"a": [{"r": 2.5}], "n": 3}', Summary(2500.0, 3, None)),
        (b'{"a": [], "n": true}', Summary(None, None, None)),
        (b'{"a": [{"r": NaN}], "n": -1}', Summary(None, None, None)),
        (b'{"a": [{"r": 1e300}], "n": "3"}', Summary(None, None, None)),
        (b"[]", Summary(None, None, None)),
    ],
)
def test_a_summary_is_read_where_it_is_a_number(
    answering: Callable[[bytes], int], body: bytes, expected: Summary
) -> None:
    told = Told(Ask("/"), ("a", 0, "r"), 1000.0, ("n",), ("m",))
    assert summary(answering(ok(body)), told) == expected
