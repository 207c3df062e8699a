"""The emulator as a process: ready line, truth, faults, the real pyasic, exit codes."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest
from tests.ports import own_address

LUX = own_address()
WHATS = own_address()
COMMAND = [sys.executable, "-m", "wattshift_cluster.emulate.process"]


def machines(*rows):
    keys = ("id", "kind", "address", "seed", "start")
    return {"machines": [dict(zip(keys, row, strict=False)) for row in rows]}


@contextmanager
def emulator(tmp_path, config):
    file = tmp_path / "emulator.json"
    file.write_text(json.dumps(config))
    child = subprocess.Popen(
        [*COMMAND, "--config", str(file), "--truth", "127.0.0.1:0"], stdout=subprocess.PIPE
    )
    try:
        assert child.stdout is not None
        ready = json.loads(child.stdout.readline())
        assert ready["ready"] is True
        yield child, f"http://{ready['truth']}"
    finally:
        child.terminate()
        child.wait(10)
        child.stdout.close()


def get(url):
    with urllib.request.urlopen(url, timeout=5) as answer:
        return json.load(answer)


def post(url, body):
    request = urllib.request.Request(url, data=json.dumps(body).encode(), method="POST")
    return get(request)


def failed_run(tmp_path, config, truth="127.0.0.1:0"):
    file = tmp_path / "emulator.json"
    file.write_text(config if isinstance(config, str) else json.dumps(config))
    return subprocess.run(
        [*COMMAND, "--config", str(file), "--truth", truth],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_truth_faults_and_a_clean_end(tmp_path):
    config = machines(("a", "luxos", LUX, 1, "full"), ("b", "whatsminer", WHATS))
    with emulator(tmp_path, config) as (child, url):
        rows = {row["id"]: row for row in get(f"{url}/v1/truth")["machines"]}
        assert rows["a"]["watts_w"] == pytest.approx(2794, rel=0.011)
        assert rows["a"]["mode"] == "default"
        assert rows["a"]["hashrate_h_per_s"] == pytest.approx(121.8e12)
        assert rows["b"]["watts_w"] < 30
        assert rows["b"]["mode"] == "sleep"
        assert post(f"{url}/v1/faults", {"id": "a", "fault": "refuse"})["fault"] == "refuse"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((LUX, 4028), timeout=2)
        assert post(f"{url}/v1/faults", {"id": "a", "fault": "none"})["fault"] == "none"
        socket.create_connection((LUX, 4028), timeout=2).close()
        for body, status in (({"id": "z", "fault": "mute"}, 404), ({"id": "a", "fault": "?"}, 400)):
            with pytest.raises(urllib.error.HTTPError) as refused:
                post(f"{url}/v1/faults", body)
            assert refused.value.code == status
            refused.value.close()
        child.send_signal(signal.SIGTERM)
        assert child.wait(5) == 0


def test_pyasic_identifies_reads_stops_resumes_and_limits_both_kinds(tmp_path):
    async def client(address, backend, limits_w):
        import pyasic

        miner = await pyasic.get_miner(address)
        assert type(miner.rpc).__name__ == backend
        data = await miner.get_data(include=["wattage", "hashrate", "hashboards", "fw_ver"])
        assert data.wattage > 2700
        assert float(data.hashrate) > 100
        full = await miner.get_data()
        assert full.wattage_limit > 2700
        assert await miner.set_power_limit(2000)
        assert (await miner.get_data(include=["wattage_limit"])).wattage_limit == limits_w
        assert await miner.stop_mining()
        await asyncio.sleep(5)
        asleep = await miner.get_data(include=["wattage", "hashrate", "is_mining"])
        assert asleep.wattage < 35
        assert asleep.is_mining is True, "pyasic's flag is known to be wrong here"
        assert await miner.resume_mining()
        await asyncio.sleep(8)
        data = await miner.get_data(include=["wattage"])
        assert data.wattage == pytest.approx(limits_w, rel=0.03)

    async def both():
        await asyncio.gather(
            client(LUX, "LUXMinerRPCAPI", 1916), client(WHATS, "BTMinerV3RPCAPI", 2000)
        )

    config = machines(("a", "luxos", LUX, 1, "full"), ("b", "whatsminer", WHATS, 2, "full"))
    with emulator(tmp_path, config):
        asyncio.run(both())


def test_a_used_port_is_said_plainly(tmp_path):
    with socket.create_server((LUX, 4028)):
        done = failed_run(tmp_path, machines(("a", "luxos", LUX)))
    assert done.returncode == 1
    assert f"cannot listen on {LUX}" in done.stderr
    assert "in use" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (machines(("a", "luxos", "10.0.0.1")), "127.a.b.c"),
        (machines(("a", "abacus", LUX)), "no such kind"),
        (machines(("a", "luxos", LUX), ("b", "luxos", LUX)), "address used twice"),
        (machines(("a", "luxos", LUX, 1, "half")), "start"),
        ({"machines": [], "extra": 1}, "extra"),
        ("{", "Invalid JSON"),
    ],
)
def test_a_wrong_configuration_starts_nothing(tmp_path, config, said):
    done = failed_run(tmp_path, config)
    assert done.returncode == 3
    assert said in done.stderr
    assert done.stdout == ""


def test_it_ends_with_its_parent(tmp_path):
    file = tmp_path / "emulator.json"
    file.write_text(json.dumps(machines(("a", "luxos", LUX))))
    parent = (
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen({[*COMMAND, '--config', str(file), '--truth', '127.0.0.1:0']!r},"
        " stdout=subprocess.PIPE)\n"
        "print(child.stdout.readline().decode(), flush=True)\n"
        "time.sleep(60)\n"
    )
    started = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    assert started.stdout is not None
    truth = json.loads(started.stdout.readline())["truth"]
    assert get(f"http://{truth}/v1/truth")["machines"]
    started.kill()
    started.wait(5)
    started.stdout.close()
    host, port = truth.split(":")
    deadline = time.monotonic() + 10.0
    while time.monotonic() < deadline:
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
        except OSError:
            return
        time.sleep(0.05)
    pytest.fail("the emulator outlived its parent")
