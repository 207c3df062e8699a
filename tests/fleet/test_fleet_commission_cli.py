"""`wattshift commission` against a real server with an in-memory controller behind it."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from wattshift_cluster.cli import commission as module
from wattshift_cluster.cli.main import main
from wattshift_cluster.errors import TryLater

FAKEPORT = Path(__file__).parents[1] / "api" / "fakeport.py"
_spec = importlib.util.spec_from_file_location("fakeport", FAKEPORT)
fakeport = importlib.util.module_from_spec(_spec)
sys.modules.setdefault("fakeport", fakeport)
_spec.loader.exec_module(fakeport)


class Metered(fakeport.FakePort):
    """A site whose meter shows what its machines draw, and 5 kW that never move."""

    cap_origin = "connection"

    def site(self):
        watts_w = [rig.watts_w for rig in self.asics.values()]
        return super().site() | {
            "power_w": 5_000.0 + sum(watts_w),
            "power_age_s": 0.1,
            "cap_origin": self.cap_origin,
        }


@pytest.fixture
def served(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(module, "PULSE_S", (0.1, 3600.0))
    monkeypatch.setattr(module, "PERIOD_S", 0.02)
    port = Metered()
    port.asics = {"rig-1": fakeport.FakeAsic()}
    with fakeport.serving(tmp_path, port) as running:
        yield running


def run(served, *args, answer=None):
    options = ("--url", served.url, "--token", served.secrets["admin"], "--devices", "rig-*")
    return CliRunner().invoke(main, ["commission", *options, *args], input=answer)


def test_a_site_is_commissioned_and_written_down(served, tmp_path):
    path = tmp_path / "record.json"
    done = run(served, "--pulse", "1200ms", "--yes", "--record", str(path), "-o", "json")
    assert done.exit_code == 0, done.output
    record = json.loads(path.read_text())
    assert [one["verdict"] for one in record["devices"]] == ["confirmed above its feeder"]
    assert record["devices"][0]["step_w"] == pytest.approx(3_275.0, abs=60.0)
    assert json.loads(done.stdout)["devices"] == record["devices"]
    assert " ± " in module.record_text(record)
    assert "wrong feeders cannot be found: root has the only meter" in done.stderr
    orders = [(one["action"], one["devices"]) for one in served.port.orders]
    assert orders == [("sleep", ["rig-1"]), ("wake", ["rig-1"])]
    assert served.port.orders[0]["reason"].startswith("commissioning")
    (told,) = served.port.taught
    assert (told["device"], told["by"]) == ("rig-1", "admin")
    assert told["reason"] == "commissioning, record.json"
    assert told["learnt"] == record["devices"][0]["learnt"]
    assert "1 of 1 machines are leased by what was found" in done.stderr
    (point,) = told["learnt"]["points"].values()
    assert point["mean"] == pytest.approx(3_300.0, abs=60.0)
    assert told["learnt"]["rates"]["profile-2"]["mean"] == 96.2e12, "at what it hashed meanwhile"


def test_findings_stay_where_nobody_wants_or_should_learn_them(served, tmp_path, monkeypatch):
    options = ("--pulse", "1200ms", "--yes", "--record", str(tmp_path / "record.json"))
    assert run(served, *options, "--no-teach").exit_code == 0
    assert served.port.taught == []
    quality = {"power_quality": "modelled"}
    site = served.port.site
    monkeypatch.setattr(served.port, "site", lambda: site() | quality)
    assert run(served, *options).exit_code == 0
    assert served.port.taught == [], "a model teaches nobody what a machine draws"


def test_what_was_learnt_is_no_reading_to_hold_against_a_meter():
    port = fakeport.FakePort()
    (one, *_) = port.devices()
    look = module.look_of(port.site(), [{**one, "watts_source": "learnt"}], 0.0)
    assert look.devices[0].watts_w is None
    look = module.look_of(port.site(), [{**one, "watts_source": "estimate"}], 0.0)
    assert look.devices[0].watts_w == 2_950.0
    assert look.devices[0].hashrate_h_per_s == 96.2e12


def test_a_table_tells_people(served, tmp_path):
    served.port.asics["rig-1"].watts_w, served.port.asics["rig-1"].held = 25.0, True
    done = run(served, "--pulse", "1200ms", "--yes", "--record", str(tmp_path / "r.json"))
    assert done.exit_code == 1, "one machine was not checked"
    assert "it is not awake" in done.stdout


@pytest.mark.parametrize("args", [("--dry-run",), ()])
def test_nothing_is_commanded_unasked(served, args, tmp_path):
    path = tmp_path / "record.json"
    done = run(served, *args, "--record", str(path), answer="n\n")
    assert done.exit_code == (0 if args else 130), "a no is an interrupt"
    assert served.port.orders == []
    assert not path.exists()


def test_a_cap_in_force_is_the_wrong_moment(served, tmp_path):
    served.port.cap_origin = "schedule"
    path = tmp_path / "record.json"
    done = run(served, "--yes", "--record", str(path))
    assert done.exit_code == TryLater.exit_code
    assert not path.exists(), "it is said before anything begins"
    assert "schedule" in done.stderr
    assert served.port.orders == []


def test_a_pulse_too_short_for_any_machine_is_refused(served, monkeypatch):
    monkeypatch.setattr(module, "PULSE_S", (20.0, 3600.0))
    assert run(served, "--pulse", "5s").exit_code == 2


def test_ctrl_c_wakes_the_machine_and_keeps_the_record(served, tmp_path):
    path = tmp_path / "record.json"
    program = (
        "from wattshift_cluster.cli import commission as module\n"
        "module.PULSE_S, module.PERIOD_S = (0.1, 3600.0), 0.02\n"
        "module.commission()\n"
    )
    options = ("--devices", "rig-*", "--pulse", "20s", "--yes", "--record", str(path))
    # The level before takes half a pulse: it is cut short by hand, the pulse itself is long.
    program = program.replace("module.commission()", "").strip() + (
        "\nfrom wattshift_cluster.fleet.site_port import Plan\n"
        "Plan.window_s = property(lambda plan: 0.4)\nmodule.commission()\n"
    )
    reach = {"WATTSHIFT_URL": served.url, "WATTSHIFT_TOKEN": served.secrets["admin"]}
    child = subprocess.Popen(
        [sys.executable, "-c", program, *options],
        env={**os.environ, **reach},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        end_s = time.monotonic() + 30.0
        while not served.port.asics["rig-1"].held:
            assert time.monotonic() < end_s, "it was never put to sleep"
            assert child.poll() is None, child.communicate()
            time.sleep(0.02)
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=20)
    finally:
        child.kill()
    assert child.returncode == 130
    assert not served.port.asics["rig-1"].held
    assert json.loads(path.read_text())["stopped"] == "interrupted"
