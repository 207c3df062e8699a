"""site.toml and agent.toml: a good file is read whole; every fault of a bad one is named."""

from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from wattshift_cluster.config.agent import agent_schema
from wattshift_cluster.config.load import load_agent, load_site, trace_agent, trace_site
from wattshift_cluster.config.site import SiteConfig, site_schema
from wattshift_cluster.errors import ConfigInvalid, Fault

SITE = """
[site]
name = "barn"
state_dir = "state"
tick = "1s"
other_load = "160W"

[[feeders]]
name = "main"
limit = "14kW"

[[feeders]]
name = "rack"
parent = "main"
amps = 16
phases = 3
min_voltage = 218
power_factor = 0.95

[[agents]]
name = "host"
address = "127.0.0.1:7401"
token_file = "agent.token"
feeder = "rack"

[compute]
token_file = "bridge.token"
feeder = "rack"
max = "300W"

[[services]]
name = "embed"
import_path = "wattshift_cluster.inference.app:app"
watts_per_replica = "60W"
max_replicas = 4
slo_p95 = "500ms"
"""

AGENT = """
[agent]
name = "host"
listen = "127.0.0.1:0"
token_file = "agent.token"
state_dir = "state"
gate_dir = "/dev/shm/wattshift"

[hashing]
devices = "cpu"

[pool]
url = "stratum+tcp://127.0.0.1:3333"
user = "barn"

[[asics]]
id = "rig-1"
address = "127.20.0.1"
emulated = true
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "site.toml"
    path.write_text(text)
    return path


def load(folder: Path, text: str, **environ: str) -> SiteConfig:
    return load_site(write(folder, text), environ=environ)


def faults(folder: Path, text: str, **environ: str) -> list[Fault]:
    with pytest.raises(ConfigInvalid) as caught:
        load(folder, text, **environ)
    assert caught.value.exit_code == 3
    assert len(str(caught.value).splitlines()) == len(caught.value.faults), "one line per fault"
    return [fault for fault in caught.value.faults if isinstance(fault, Fault)]


def only(found: list[Fault]) -> Fault:
    assert len(found) == 1, "\n".join(map(str, found))
    return found[0]


def test_a_good_site_is_read_in_base_units(tmp_path: Path) -> None:
    site = load(tmp_path, SITE)
    assert site.root.limit_w == 14_000.0
    assert site.feeders[1].limit_w == pytest.approx(16 * 3 * 218 * 0.95)
    assert site.site.lease_ttl_s == 15.0
    assert site.services[0].slo_p95_s == 0.5
    assert site.compute is not None
    assert site.compute.max_w == 300.0
    assert site.meter is None
    assert site.grid.default_price_usd_per_mwh is None, "an unknown price is not zero"
    assert site.site.state_dir == tmp_path / "state", "paths start at the file's folder"


def test_a_good_agent_is_read(tmp_path: Path) -> None:
    agent = load_agent(write(tmp_path, AGENT), environ={})
    assert agent.agent.gate_dir == Path("/dev/shm/wattshift")
    assert agent.hashing.cpu_w == 150.0
    assert agent.asics[0].nameplate_w is None


@pytest.mark.parametrize(
    ("old", "new", "path", "says"),
    [
        ('tick = "1s"', 'tik = "1s"', "site.tik", "did you mean tick"),
        ('tick = "1s"', 'tick = "1W"', "site.tick", "unknown unit W"),
        ('tick = "1s"', 'tick = "11s"', "site.tick", "allowed: 100ms to 10s"),
        ('limit = "14kW"', 'limit = "-14kW"', "feeders[0].limit", "allowed: 1W to"),
        ('limit = "14kW"', 'limit = "14kw"', "feeders[0].limit", "write kW"),
        ('limit = "14kW"', "limit = true", "feeders[0].limit", "not a power"),
        ('limit = "14kW"', 'limit = "100W"', "feeders[0].limit", "at least 163.265W"),
        ('limit = "14kW"', "", "feeders[0]", "has no limit"),
        ("amps = 16", 'amps = 16\nlimit = "1kW"', "feeders[1]", "both limit and amps"),
        ('parent = "main"', 'parent = "mian"', "feeders[1].parent", "no such feeder"),
        ('parent = "main"', "", "feeders[1].parent", "exactly one"),
        ('feeder = "rack"\n\n[comp', 'feeder = "x"\n\n[comp', "agents[0].feeder", "main, rack"),
        ("127.0.0.1:7401", "127.0.0.1:70000", "agents[0].address", "host:port"),
        ("127.0.0.1:7401", "127.0.0.1:7410", "compute.bridge", "agents[0]"),
        ('other_load = "160W"', 'lease_ttl = "6s"', "site.lease_ttl", "at least twice"),
        ("max_replicas = 4", "max_replicas = 0.5", "services[0].max_replicas", "whole number"),
        ("max_replicas = 4", "min_replicas = 2", "services[0].min_replicas", "above max_replicas"),
        ("max_replicas = 4", "min_replicas = 9\nmax_replicas = 9", "compute.max", "at least 540W"),
        ("inference.app:app", "inference.app", "services[0].import_path", "package.module:name"),
        ('name = "barn"', "", "site.name", "missing"),
        ('name = "barn"', 'name = "a b"', "site.name", "letters"),
        ('max = "300W"', 'max = "300W"\nidle = "400W"', "compute.idle", "above max"),
        ("[site]", "[sight]\n[site]", "sight", "did you mean site"),
    ],
)
def test_each_mistake_is_one_fault(
    tmp_path: Path, old: str, new: str, path: str, says: str
) -> None:
    assert old in SITE
    fault = only(faults(tmp_path, SITE.replace(old, new, 1)))
    assert fault.path == path
    assert says in fault.message
    assert fault.file == str(tmp_path / "site.toml")


def test_all_faults_are_found_in_one_reading(tmp_path: Path) -> None:
    text = SITE.replace('"14kW"', '"-1kW"').replace('feeder = "rack"', 'feeder = "no"')
    found = faults(tmp_path, text.replace("max_replicas = 4", "max_replicas = 0"))
    assert {fault.path for fault in found} == {
        "feeders[0].limit",
        "agents[0].feeder",
        "compute.feeder",
        "services[0].max_replicas",
    }


def test_a_loop_of_feeders_is_one_fault(tmp_path: Path) -> None:
    loop = "\n".join(
        f'[[feeders]]\nname = "{a}"\nparent = "{b}"\nlimit = 9' for a, b in ("pq", "qr", "rp")
    )
    fault = only(faults(tmp_path, SITE + loop))
    assert "p > q > r > p" in fault.message


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    assert "No such file" in only(_missing(tmp_path)).message
    assert "line 1" in only(faults(tmp_path, "[site\nname = 1")).message
    assert "1 MiB" in only(faults(tmp_path, "#" * (1 << 20) + "#")).message


def _missing(folder: Path) -> list[Fault]:
    with pytest.raises(ConfigInvalid) as caught:
        load_site(folder / "none.toml", environ={})
    return [fault for fault in caught.value.faults if isinstance(fault, Fault)]


def test_flag_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    path = write(tmp_path, SITE)
    environ = {
        "WATTSHIFT_SITE__TICK": "2s",
        "WATTSHIFT_FEEDERS__RACK__AMPS": "20",
        "WATTSHIFT_SITE__NAME": "shed",
        "WATTSHIFT_HASHING__NICE": "3",
        "WATTSHIFT_URL": "http://127.0.0.1:1",
    }
    traced = trace_site(path, flags={"site.name": "hall"}, environ=environ)
    assert traced.config.site.name == "hall"
    assert traced.config.site.tick_s == 2.0
    assert traced.config.feeders[1].amps_a == 20.0
    sources = {one.path: one.origin.source for one in traced.settings}
    assert sources["site.name"] == "flag"
    assert sources["site.tick"] == "environment"
    assert sources["feeders[1].amps"] == "environment"
    assert sources["feeders[0].limit"] == "file"
    assert sources["site.lease_ttl"] == "default"
    values = {one.path: one.value for one in traced.settings}
    assert values["site.tick"] == 2.0


def test_a_password_is_never_shown(tmp_path: Path) -> None:
    path = write(tmp_path, AGENT.replace("[pool]", '[pool]\npassword = "s3cret"'))
    shown = {one.path: one.value for one in trace_agent(path, environ={}).settings}
    assert shown["pool.password"] == "(hidden)"
    assert "s3cret" not in str(shown)


def test_a_bad_override_is_laid_at_the_right_door(tmp_path: Path) -> None:
    fault = only(faults(tmp_path, SITE, WATTSHIFT_SITE__TICK="100s"))
    assert (fault.file, fault.value) == ("environment", '"100s"')
    assert "WATTSHIFT_SITE__TICK" in fault.path
    assert "names no section" in only(faults(tmp_path, SITE, WATTSHIFT_SIGHT__TICK="1s")).message
    assert (
        "no row cellar" in only(faults(tmp_path, SITE, WATTSHIFT_FEEDERS__CELLAR__AMPS="1")).message
    )


@pytest.mark.parametrize(
    ("old", "new", "path"),
    [
        ('devices = "cpu"', 'devices = "gpu"', "hashing.devices"),
        ("stratum+tcp://127.0.0.1:3333", "http://127.0.0.1:3333", "pool.url"),
        ("stratum+tcp://127.0.0.1:3333", "stratum+tcp://127.0.0.1", "pool.url"),
        ("127.20.0.1", "127.20.0.999", "asics[0].address"),
        ("emulated = true", "emulated = 1.5", "asics[0].emulated"),
        ('[pool]\nurl = "stratum+tcp://127.0.0.1:3333"\nuser = "barn"', "", "pool"),
    ],
)
def test_each_mistake_of_an_agent_file(tmp_path: Path, old: str, new: str, path: str) -> None:
    assert old in AGENT
    with pytest.raises(ConfigInvalid) as caught:
        load_agent(write(tmp_path, AGENT.replace(old, new)), environ={})
    assert [fault.path for fault in caught.value.faults if isinstance(fault, Fault)] == [path]


def test_the_schemas_are_schemas_and_speak_the_file_s_keys() -> None:
    for schema in (site_schema(), agent_schema()):
        Draft202012Validator.check_schema(schema)
    keys = site_schema()["$defs"]["SiteSection"]["properties"]
    assert "lease_ttl" in keys
    assert "lease_ttl_s" not in keys
    assert site_schema()["$defs"]["SiteSection"]["additionalProperties"] is False


@pytest.mark.parametrize(
    "nested", ["[" * 20_000 + "]" * 20_000, "{a=" * 20_000 + "1" + "}" * 20_000]
)
def test_a_file_nested_beyond_any_use_is_one_fault(tmp_path: Path, nested: str) -> None:
    fault = only(faults(tmp_path, f"a = {nested}"))
    assert "is not TOML" in fault.message


def test_of_many_feeders_a_fault_names_those_like_the_wanted_one(tmp_path: Path) -> None:
    rows = "".join(
        f'[[feeders]]\nname = "f{i}"\nparent = "main"\nlimit = "1kW"\n' for i in range(99)
    )
    wrong = SITE.replace('feeder = "rack"\n\n[comp', 'feeder = "rakc"\n\n[comp')
    fault = only(faults(tmp_path, f"{wrong}\n{rows}"))
    assert fault.message.startswith("no such feeder; allowed: rack, main, f0, ")
    assert fault.message.endswith("and 89 more")
