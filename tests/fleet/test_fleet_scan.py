"""Sweeps over real sockets, and the command; the machines are emulated in another process."""

import asyncio
import itertools
import json
import socket
import time
import tomllib

import click
import pytest
from click.testing import CliRunner
from tests.ports import own_address, own_net

from wattshift_cluster.cli import fleet_scan
from wattshift_cluster.cli.main import Wattshift
from wattshift_cluster.errors import TryLater
from wattshift_cluster.fleet import scan
from wattshift_cluster.fleet.ranges import parse_ranges
from wattshift_cluster.fleet.scan import Limits, Scan, affordable, knock, look


def swept(ranges, limits=None):
    async def main():
        # A starved machine may be late to open a port; one that is closed refuses at once.
        sweep = Scan(parse_ranges(ranges), limits or Limits(knock_s=10.0))
        return {one.address: one async for one in sweep.sightings()}, sweep.counts

    return asyncio.run(main())


def mixed(many, kinds=("luxos", "whatsminer")):
    turns = itertools.cycle(kinds)
    return [{"kind": next(turns), "address": i} for i in range(1, many + 1)]


def test_a_sweep_finds_every_machine_with_what_it_is_and_draws(machines):
    prefix = machines(mixed(60))
    found, counts = swept([f"{prefix}.0/24"])
    assert len(found) == counts.found == counts.answered == 60
    assert counts.knocked == counts.total == 254
    assert counts.skipped == 0
    assert len({one.mac for one in found.values()}) == 60
    lux, whats = found[f"{prefix}.1"], found[f"{prefix}.2"]
    assert (lux.kind, lux.model, lux.identified) == ("luxos", "Antminer S19k Pro", True)
    assert lux.drivable
    assert "password" not in lux.control
    assert lux.watts_w == pytest.approx(2794, rel=0.05)
    assert lux.hashrate_h_per_s == pytest.approx(121.8e12, rel=0.05)
    assert (whats.kind, whats.model) == ("whatsminer", "M60S_VK40")
    assert "needs its password" in whats.control


def test_machines_of_every_kind_are_found_in_one_sweep(machines):
    from wattshift_cluster.emulate.kinds import KINDS

    try:
        prefix = machines(mixed(len(KINDS), tuple(KINDS)))
    except (ValueError, AssertionError):
        pytest.skip("ports below 1024 need net.ipv4.ip_unprivileged_port_start")
    found, counts = swept([f"{prefix}.0/26"])
    assert counts.found == len(KINDS)
    for number, kind in enumerate(KINDS, 1):
        one = found[f"{prefix}.{number}"]
        assert one.identified, one.control
        assert kind.startswith(one.kind)
        assert one.drivable == (kind != "bitaxe_2_9")
        assert ("password" in one.control) == (one.kind not in ("luxos", "bitaxe"))


async def _mute(reader, writer):
    await asyncio.sleep(60)


async def _junk(reader, writer):
    writer.write(b"\xff\x00 junk")


async def _flood(reader, writer):
    for _ in range(2000):
        writer.write(b"B" * 65536)
        await writer.drain()


async def _printer(reader, writer):
    body = b"<title>A printer</title>"
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))


async def _half(reader, writer):
    await reader.read(100)
    writer.write(b'{"VERSION": [{"LUXminer": "2025", "Type": "Antm')


def test_what_misbehaves_is_told_and_holds_nobody_up(machines, listen):
    prefix = machines(mixed(4, ("luxos",)))
    nonsense = {50: _mute, 51: _junk, 52: _flood, 53: _half}

    async def main():
        async with asyncio.timeout(30):
            began = time.monotonic()
            first_s = {}
            sweep = Scan(parse_ranges([f"{prefix}.0/26"]), Limits(deadline_s=1.0, knock_s=3.0))
            async for one in sweep.sightings():
                first_s[one.address] = (time.monotonic() - began, one)
            return first_s, time.monotonic() - began

    async def with_servers(left):
        if not left:
            return await main()
        number, serve = left[0]
        async with listen(f"{prefix}.{number}", 4028, serve):
            return await with_servers(left[1:])

    seen, took_s = asyncio.run(with_servers(list(nonsense.items())))
    assert len(seen) == 8
    assert took_s < 8
    for number in nonsense:
        _, one = seen[f"{prefix}.{number}"]
        assert one.kind is None
        assert not one.drivable
        assert one.watts_w is None
        assert len(one.control) < 200
    assert "no answer within 1 s" in seen[f"{prefix}.50"][1].control
    for number in range(1, 5):
        after_s, one = seen[f"{prefix}.{number}"]
        assert one.kind == "luxos"
        assert after_s < seen[f"{prefix}.50"][0], "a good machine waited for the mute one"


def test_a_web_server_that_is_no_miner_is_named(listen):
    address = own_address()

    async def main():
        async with listen(address, 80, _printer):
            return await look(address, 1.0)

    try:
        one = asyncio.run(main())
    except PermissionError:
        pytest.skip("port 80 needs net.ipv4.ip_unprivileged_port_start")
    assert one.kind is None
    assert "a printer" in one.control


def test_a_silent_address_costs_one_knock():
    """A full backlog: the kernel drops what comes after, as a firewall would."""
    address = own_address()
    held = []
    try:
        for port in scan.KNOCKED:
            server = socket.socket()
            held.append(server)
            try:
                server.bind((address, port))
            except PermissionError:
                continue
            server.listen(0)
            for _ in range(3):
                client = socket.socket()
                client.setblocking(False)
                client.connect_ex((address, port))
                held.append(client)
        time.sleep(0.05)
        began = time.monotonic()
        assert not asyncio.run(knock(address, 0.4))
        assert 0.35 < time.monotonic() - began < 2
    finally:
        for sock in held:
            sock.close()


def test_a_sweep_ends_in_time_and_counts_what_it_did_not_get_to(listen):
    prefix = own_net()

    async def main():
        async with listen(f"{prefix}.1", 4028, _mute):
            limits = Limits(concurrency=1, deadline_s=0.2, sweep_s=0.1)
            sweep = Scan(parse_ranges([f"{prefix}.0/25"]), limits)
            seen = [one async for one in sweep.sightings()]
            return seen, sweep.counts

    began = time.monotonic()
    seen, counts = asyncio.run(main())
    assert time.monotonic() - began < 5
    assert len(seen) == 1
    assert counts.skipped > 100
    assert counts.knocked + counts.skipped == counts.total == 126


def test_a_consumer_that_leaves_stops_the_sweep(machines):
    prefix = machines(mixed(20, ("luxos",)))

    async def main():
        sweep = Scan(parse_ranges([f"{prefix}.0/24"]), Limits(concurrency=4))
        results = sweep.sightings()
        await anext(results)
        await results.aclose()
        after = sweep.counts.knocked
        await asyncio.sleep(0.2)
        assert sweep.counts.knocked == after < 254
        assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []

    asyncio.run(main())


def test_no_more_is_done_at_once_than_was_allowed(monkeypatch):
    now, most = 0, 0

    async def counted(address, knock_s):
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.005)
        now -= 1
        return False

    monkeypatch.setattr(scan, "knock", counted)
    swept([f"{own_net()}.0/24"], Limits(concurrency=7))
    assert most == 7


def test_a_host_without_files_left_says_so_and_calls_nobody_silent():
    import resource

    prefix = own_net()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = []

    async def main():
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
        try:
            while True:
                held.append(socket.socket())
        except OSError:
            pass
        assert affordable(256) == 1
        with pytest.raises(TryLater, match="cannot open more"):
            async for _ in Scan(parse_ranges([f"{prefix}.0/28"])).sightings():
                pass

    try:
        asyncio.run(main())
    finally:
        for sock in held:
            sock.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_concurrency_is_lowered_to_the_files_that_may_be_open(monkeypatch):
    monkeypatch.setattr(scan.resource, "getrlimit", lambda _: (1024, 4096))
    assert affordable(256) == 208
    assert affordable(100) == 100


def run(*words):
    """The command as `wattshift` runs it, errors mapped to exit codes."""

    class Alone(Wattshift):
        def get_command(self, ctx, cmd_name):
            return fleet_scan.scan

        def resolve_command(self, ctx, args):
            return click.Group.resolve_command(self, ctx, args)

    return CliRunner().invoke(Alone(name="wattshift"), ["scan", *map(str, words)])


def test_the_command_shows_writes_and_remembers(machines, tmp_path):
    prefix = machines(mixed(4))
    toml, book = tmp_path / "agent.toml", tmp_path / "fleet.json"
    told = run(f"{prefix}.0/28", "--write", toml, "--inventory", book)
    assert told.exit_code == 0, told.output
    head, *lines = told.stdout.splitlines()
    assert head.split() == [
        "ADDRESS",
        "KIND",
        "MODEL",
        "FIRMWARE",
        "MAC",
        "WATTS",
        "HASHRATE",
        "CONTROL",
    ]
    assert [line.split()[0] for line in lines] == [f"{prefix}.{i}" for i in range(1, 5)]
    assert told.stderr.count("new: mac:") == 4
    assert len(tomllib.loads(toml.read_text())["asics"]) == 4
    again = run(f"{prefix}.0/28", "--write", toml, "--inventory", book, "-o", "json")
    answer = json.loads(again.stdout)
    assert answer["changes"] == []
    assert len(answer["machines"]) == 4
    assert answer["addresses"]["total"] == 14
    assert len(tomllib.loads(toml.read_text())["asics"]) == 4


def test_the_command_s_exit_codes(tmp_path):
    empty = run(f"{own_net()}.0/30")
    assert empty.exit_code == 4
    assert empty.stdout == "no miners\n"
    assert "no miner found at 2 addresses" in empty.stderr
    assert run("8.8.8.0/24").exit_code == 3
    assert run("10.0.0.0/8").exit_code == 3
    assert run("nonsense").exit_code == 2
    assert run().exit_code == 2
    assert run("127.0.0.0/30", "--concurrency", "0").exit_code == 2
    damaged = tmp_path / "fleet.json"
    damaged.write_text("{")
    assert run("127.0.0.0/30", "--inventory", damaged).exit_code == 3
    assert damaged.read_text() == "{"


def test_nobody_is_missing_where_the_time_was_over(machines, tmp_path):
    prefix = machines(mixed(2, ("luxos",)))
    book = tmp_path / "fleet.json"
    run(f"{prefix}.0/28", "--inventory", book)
    told = run(f"{prefix}.0/28", "--inventory", book, "--within", "0s")
    assert told.exit_code == 4
    assert "14 of 14 addresses were not looked at" in told.stderr
    assert "missing" not in told.stderr
    assert len(json.loads(book.read_text())["machines"]) == 2
