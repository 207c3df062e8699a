"""Limits through a daemon that speaks zeusd's routes on a Unix socket."""

import asyncio
import json
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from wattshift_cluster.agent.gpu import (
    FaultKind,
    GpuFault,
    Library,
    PowerLimits,
    ZeusdSetter,
    find_cards,
)
from wattshift_cluster.emulate.nvml import models
from wattshift_cluster.emulate.nvml.control import EmulatedDriver

ShowCards = Callable[..., EmulatedDriver]
TOKEN = "header.claims.signature"


class Daemon(socketserver.ThreadingUnixStreamServer):
    """What zeusd 0.5 does on these routes, on emulated cards: it holds the privilege, we do not."""

    def __init__(self, path: Path, driver: EmulatedDriver) -> None:
        super().__init__(str(path), Routes)
        self.driver = driver
        self.groups = ["gpu-control", "gpu-read"]
        self.token: str | None = None
        self.addresses = True
        self.sleep_s = 0.0
        self.answer: tuple[int, Any] | None = None
        self.asked: list[str] = []

    def handle_error(self, *_: object) -> None:
        """Who does not wait for an answer is gone by then."""

    def discovery(self) -> dict[str, Any]:
        gpus = []
        for place, card in enumerate(reversed(self.driver.cards)):
            row: dict[str, Any] = {"id": place, "name": card.model.name}
            if self.addresses:
                slot = len(self.driver.cards) - 1 - place
                row["pci_address"] = f"0000:{0x10 + slot:02x}:00.0"
            gpus.append(row)
        return {
            "gpus": gpus,
            "cpus": [],
            "enabled_api_groups": self.groups,
            "auth_required": self.token is not None,
        }


class Routes(BaseHTTPRequestHandler):
    server: Daemon
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        known = urlsplit(self.path).path == "/discover"
        self.say(200 if known else 404, self.server.discovery() if known else None)

    def do_POST(self) -> None:
        server = self.server
        time.sleep(server.sleep_s)
        server.asked.append(self.path)
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if server.answer is not None:
            self.say(*server.answer)
        elif server.token and self.headers.get("Authorization") != f"Bearer {server.token}":
            self.say(401, {"error": "Authentication required."})
        elif "gpu-control" not in server.groups:
            self.say(404, {"error": "API group 'gpu-control' is not enabled on this server."})
        elif url.path != "/gpu/set_power_limit" or set(query) != {
            *("gpu_ids", "power_limit_mw", "block")
        }:
            self.say(400, None)
        else:
            card = list(reversed(server.driver.cards))[int(query["gpu_ids"])]
            card.write_limit(int(query["power_limit_mw"]) / 1000)
            self.say(200, None)

    def say(self, status: int, body: Any) -> None:
        text = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def address_string(self) -> str:
        return "local"

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def daemon(show_cards: ShowCards, tmp_path: Path) -> Iterator[Daemon]:
    with Daemon(tmp_path / "zeusd.sock", show_cards(models.H200, models.A100)) as daemon:
        thread = threading.Thread(target=daemon.serve_forever, args=(0.01,))
        thread.start()
        yield daemon
        daemon.shutdown()
        thread.join()


@pytest.fixture
def setter(daemon: Daemon, tmp_path: Path) -> ZeusdSetter:
    return ZeusdSetter(tmp_path / "zeusd.sock")


def refusal(library: Library, setter: ZeusdSetter) -> GpuFault:
    card = find_cards(library)[0]
    with pytest.raises(GpuFault) as caught:
        setter.set_limit(card, 300.0, 5.0)
    return caught.value


def test_a_limit_goes_to_the_card_with_our_bus_address(
    daemon: Daemon, setter: ZeusdSetter, library: Library, tmp_path: Path
) -> None:
    cards = find_cards(library)
    limits = PowerLimits(library, cards, tmp_path / "state", setter, 10.0)
    assert limits.privileged
    result = asyncio.run(limits.set({cards[0].uuid: 300.0}))[cards[0].uuid]
    assert (result.enforced_w, result.error) == (300.0, None)
    assert daemon.asked == ["/gpu/set_power_limit?gpu_ids=1&power_limit_mw=300000&block=true"]
    assert asyncio.run(limits.release(cards[0].uuid)).enforced_w == 700.0


def test_without_addresses_number_and_name_must_agree(
    daemon: Daemon, setter: ZeusdSetter, library: Library
) -> None:
    daemon.addresses = False
    fault = refusal(library, setter)
    assert fault.kind is FaultKind.INVALID
    assert "zeusd has no card NVIDIA H200" in fault.text
    assert daemon.asked == []


def test_a_token_goes_along(
    daemon: Daemon, setter: ZeusdSetter, library: Library, tmp_path: Path
) -> None:
    daemon.token = TOKEN
    assert setter.refusal() == "zeusd asks for a token and none is configured"
    fault = refusal(library, setter)
    assert (fault.kind, fault.text) == (
        FaultKind.NO_PERMISSION,
        "zeusd: 401 Authentication required.",
    )
    token_file = tmp_path / "token"
    token_file.write_text(f"{TOKEN}\n", encoding="ascii")
    bearer = ZeusdSetter(tmp_path / "zeusd.sock", token_file)
    assert bearer.refusal() is None
    bearer.set_limit(find_cards(library)[0], 300.0, 5.0)
    assert find_cards(library)[0].limit_w == 300.0
    token_file.unlink()
    assert "zeusd's token" in str(bearer.refusal())


def test_a_group_that_is_switched_off_is_a_refusal(
    daemon: Daemon, setter: ZeusdSetter, library: Library
) -> None:
    daemon.groups = ["gpu-read"]
    assert setter.refusal() == "zeusd runs without the group gpu-control"
    assert refusal(library, setter).kind is FaultKind.NOT_SUPPORTED


@pytest.mark.parametrize(
    ("status", "body", "kind", "says"),
    [
        (403, {"errors": {"1": "NVML error: no permission"}}, "NO_PERMISSION", "no permission"),
        (400, {"error": "Invalid GPU index: x"}, "INVALID", "Invalid GPU index"),
        (500, {"errors": {"1": "a", "2": "b"}}, "UNKNOWN", "500 a; b"),
        (500, ["odd"], "UNKNOWN", '["odd"]'),
    ],
)
def test_its_errors_are_of_our_kinds(
    daemon: Daemon,
    setter: ZeusdSetter,
    library: Library,
    status: int,
    body: Any,
    kind: str,
    says: str,
) -> None:
    daemon.answer = status, body
    fault = refusal(library, setter)
    assert fault.kind is FaultKind[kind]
    assert says in fault.text


def test_a_daemon_that_hangs_or_is_not_there_is_a_refusal_in_time(
    daemon: Daemon, setter: ZeusdSetter, library: Library, tmp_path: Path
) -> None:
    card = find_cards(library)[0]
    daemon.sleep_s, daemon.answer = 0.4, (200, None)
    began_s = time.monotonic()
    with pytest.raises(GpuFault, match="timed out"):
        setter.set_limit(card, 300.0, 0.1)
    assert time.monotonic() - began_s < 3
    nobody = ZeusdSetter(tmp_path / "none.sock")
    assert "No such file" in str(nobody.refusal())
    with pytest.raises(GpuFault, match="No such file"):
        nobody.set_limit(card, 300.0, 1.0)
