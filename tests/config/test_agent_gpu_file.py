"""The GPU side of agent.toml: what it says by default, and one clear error for each fault."""

import re
from pathlib import Path
from typing import Any

import pytest

from wattshift_cluster.config.agent import AgentConfig, GpuSection, Server
from wattshift_cluster.config.load import load_agent
from wattshift_cluster.errors import ConfigInvalid, Fault

EXAMPLE = Path(__file__).parents[2] / "examples" / "agent-gpu.toml"
PLAIN = """
[agent]
name = "host"
listen = "127.0.0.1:0"
token_file = "agent.token"
state_dir = "state"
gate_dir = "/dev/shm/wattshift"

[pool]
url = "stratum+tcp://127.0.0.1:3333"
user = "barn"
"""

FULL = (
    PLAIN
    + """
[hashing]
emulated = true

[gpu]
sample_hz = 10
power_limits = "zeusd"
zeusd_socket = "zeusd.sock"
zeusd_token_file = "zeusd.token"
strangers = "when_quiet"
exclusive = true
steady = "0.45kW"
steady_ramp = "50W"

[[servers]]
name = "chat"
kind = "vllm"
url = "http://127.0.0.1:8000/metrics"
devices = ["host-gpu0", "host-gpu1"]
opt_in = true
period = "1s"
quiet = "10s"
stale = "4s"

[[servers]]
name = "embed"
kind = "triton"
url = "http://127.0.0.1:8002/metrics"
devices = ["host-gpu2"]
"""
)


def load(folder: Path, text: str, **environ: str) -> AgentConfig:
    path = folder / "agent.toml"
    path.write_text(text)
    return load_agent(path, environ=environ)


def faults(folder: Path, text: str) -> list[Fault]:
    with pytest.raises(ConfigInvalid) as caught:
        load(folder, text)
    return [fault for fault in caught.value.faults if isinstance(fault, Fault)]


def test_by_default_nothing_is_opted_into(tmp_path: Path) -> None:
    config = load(tmp_path, PLAIN)
    assert config.hashing.emulated is False
    assert (config.gpu.sample_hz, config.gpu.power_limits) == (20, "nvml")
    assert (config.gpu.strangers, config.gpu.exclusive) == ("never", False)
    assert config.gpu.steady_w is None, "no steady draw, which is not one of 0 W"
    assert config.gpu.zeusd_token_file is None
    assert config.servers == ()


def test_all_of_it_is_read_in_base_units(tmp_path: Path) -> None:
    config = load(tmp_path, FULL)
    gpu, (chat, embed) = config.gpu, config.servers
    assert config.hashing.emulated is True
    assert (gpu.sample_hz, gpu.steady_w, gpu.steady_ramp_w_per_s) == (10, 450.0, 50.0)
    assert gpu.zeusd_socket == tmp_path / "zeusd.sock", "paths start at the file's folder"
    assert gpu.zeusd_token_file == tmp_path / "zeusd.token"
    assert (chat.period_s, chat.quiet_s, chat.stale_s) == (1.0, 10.0, 4.0)
    assert chat.devices == ("host-gpu0", "host-gpu1")
    assert (embed.opt_in, embed.period_s, embed.quiet_s, embed.stale_s) == (False, 0.5, 5.0, 2.0)


def test_the_environment_reaches_it(tmp_path: Path) -> None:
    environ = {
        "WATTSHIFT_GPU__STEADY": "0.3kW",
        "WATTSHIFT_GPU__EXCLUSIVE": "false",
        "WATTSHIFT_SERVERS__CHAT__OPT_IN": "false",
    }
    config = load(tmp_path, FULL, **environ)
    assert (config.gpu.steady_w, config.gpu.exclusive) == (300.0, False)
    assert config.servers[0].opt_in is False


@pytest.mark.parametrize(
    ("old", "new", "path", "says"),
    [
        ("sample_hz = 10", "sample_hz = 9", "gpu.sample_hz", "allowed: 10 to 20"),
        ("sample_hz = 10", "sample_hz = 21", "gpu.sample_hz", "allowed: 10 to 20"),
        ("sample_hz = 10", "sample_hz = 12.5", "gpu.sample_hz", "not a whole number"),
        ("sample_hz = 10", "sampling = 10", "gpu.sampling", "unknown key"),
        ('"zeusd"', '"root"', "gpu.power_limits", "'nvml', 'zeusd' or 'read_only'"),
        ('"zeusd.sock"', '""', "gpu.zeusd_socket", "not a path"),
        ('"zeusd.token"', "7", "gpu.zeusd_token_file", "not a path"),
        ('"when_quiet"', '"always"', "gpu.strangers", "'never' or 'when_quiet'"),
        ("exclusive = true", 'exclusive = "mine"', "gpu.exclusive", "bool"),
        ('"0.45kW"', '"0W"', "gpu.steady", "allowed: 1W to 10kW"),
        ('"0.45kW"', '"11kW"', "gpu.steady", "allowed: 1W to 10kW"),
        ('"0.45kW"', '"450mW"', "gpu.steady", "unknown unit mW; write MW"),
        ('steady = "0.45kW"', 'steady_w = "450W"', "gpu.steady_w", "unknown key; did you mean"),
        ('"50W"', '"0.5W"', "gpu.steady_ramp", "allowed: 1W to 10kW"),
        ("emulated = true", "emulated = 2", "hashing.emulated", "bool"),
        ("[gpu]", "[gpus]", "gpus", "did you mean gpu"),
        ('name = "chat"', 'name = "a chat"', "servers[0].name", "not a name"),
        ('name = "chat"', 'name = "embed"', "servers[1].name", "given before by servers[0]"),
        ('name = "chat"', "", "servers[0].name", "missing"),
        ('"vllm"', '"ollama"', "servers[0].kind", "'vllm', 'sglang', 'triton', 'tgi'"),
        ("http://127.0.0.1:8000", "127.0.0.1:8000", "servers[0].url", "allowed: http://host"),
        ('["host-gpu2"]', "[]", "servers[1].devices", "at least 1"),
        ('["host-gpu2"]', '"host-gpu2"', "servers[1].devices", "valid"),
        ('["host-gpu2"]', '["host-gpu2", "a b"]', "servers[1].devices[1]", "not a name"),
        ("opt_in = true", 'opt_in = "yes!"', "servers[0].opt_in", "bool"),
        ('"1s"', '"50ms"', "servers[0].period", "allowed: 100ms to 10s"),
        ('"1s"', '"1W"', "servers[0].period", "unknown unit W"),
        ('"10s"', '"2h"', "servers[0].quiet", "allowed: 100ms to 1h"),
        ('"10s"', '"500ms"', "servers[0].quiet", "too short for period; allowed: at least 1s"),
        ('"4s"', '"61s"', "servers[0].stale", "allowed: 200ms to 1m"),
        ('"4s"', '"1.9s"', "servers[0].stale", "too short for period; allowed: at least 2s"),
        ('stale = "4s"', "", "servers[0].stale", ""),
        ('"1s"', '"3s"', "servers[0].stale", "too short for period; allowed: at least 6s"),
    ],
)
def test_each_mistake_is_one_fault(
    tmp_path: Path, old: str, new: str, path: str, says: str
) -> None:
    assert old in FULL
    text = FULL.replace(old, new, 1)
    if says == "":
        text = text.replace('period = "1s"', 'period = "1.5s"')
        says = "too short for period; allowed: at least 3s"
    found = faults(tmp_path, text)
    assert [fault.path for fault in found] == [path], "\n".join(map(str, found))
    assert says in found[0].message
    assert found[0].file == str(tmp_path / "agent.toml")


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    text = FULL.replace("sample_hz = 10", "sample_hz = 50").replace('"4s"', '"100ms"')
    found: dict[str, Any] = {
        fault.path: fault.message for fault in faults(tmp_path, text.replace('"50W"', '"50V"'))
    }
    assert set(found) == {"gpu.sample_hz", "gpu.steady_ramp", "servers[0].stale"}


def test_the_example_shows_every_key_and_changes_nothing(tmp_path: Path) -> None:
    config = load_agent(EXAMPLE, environ={})
    assert config.gpu == GpuSection(), "what stands in the example is the default"
    text = EXAMPLE.read_text()
    for section in (GpuSection, Server):
        for name, field in section.model_fields.items():
            key = field.alias or name
            assert re.search(rf"^(# )?{key} = ", text, re.MULTILINE), key
    opened = re.sub(r"^# (steady|zeusd_token_file) = ", r"\1 = ", text, flags=re.MULTILINE)
    assert load(tmp_path, opened).gpu.steady_w == 450.0


def test_one_bad_item_of_a_list_is_one_fault(tmp_path: Path) -> None:
    text = 'name = "chat"\nkind = "vllm"\nurl = "http://127.0.0.1:1/m"\ndevices = ["no way"]\n'
    (fault,) = faults(tmp_path, f"{PLAIN}[[servers]]\n{text}")
    assert fault.path == "servers[0].devices[0]"
