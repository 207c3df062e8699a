"""`[[compute.nodes]]` and `[[tenants]]`: read whole, each mistake named, and what the core gets."""

import math
from pathlib import Path

import pytest

from wattshift_cluster.config import blueprint
from wattshift_cluster.config.advice import advice
from wattshift_cluster.config.load import load_site
from wattshift_cluster.errors import ConfigInvalid, Fault
from wattshift_scheduler.site import Node, Tenant

SITE = """
[site]
name = "hall"
state_dir = "state"
other_load = "100W"

[[feeders]]
name = "main"
limit = "10kW"

[[feeders]]
name = "rack"
parent = "main"
limit = "3kW"

[[agents]]
name = "one"
address = "127.0.0.1:7401"
token_file = "agent.token"
feeder = "rack"
config = "agent.toml"

[compute]
name = "ray"
token_file = "bridge.token"

[[compute.nodes]]
name = "gpu-1"
feeder = "rack"
max = "2kW"
idle = "150W"
gpus = 8
labels = { "ray.io/accelerator-type" = "H100" }

[[compute.nodes]]
name = "cpu-1"
feeder = "main"
max = "500W"
idle = "50W"

[[tenants]]
name = "research"
weight = 2
quota = "1.5kW"
quota_gpus = 4
borrow = false

[[tenants]]
name = "ops"

[[services]]
name = "embed"
import_path = "a.b:app"
watts_per_replica = "300W"
min_replicas = 2
max_replicas = 4
"""

AGENT = """
[agent]
name = "one"
listen = "127.0.0.1:0"
token_file = "agent.token"
state_dir = "state"
gate_dir = "gates"
host = "gpu-1"
[hashing]
devices = "cpu"
[pool]
url = "stratum+tcp://127.0.0.1:3333"
user = "hall"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "agent.toml").write_text(AGENT)
    return tmp_path


def write(folder: Path, text: str) -> Path:
    path = folder / "site.toml"
    path.write_text(text)
    return path


def test_nodes_and_tenants_reach_the_core(folder: Path) -> None:
    config = load_site(write(folder, SITE), environ={})
    site = blueprint.site_of(config)
    labels = {"ray.io/accelerator-type": "H100"}
    assert site.nodes == (
        Node("gpu-1", "rack", 2000.0, 8.0, labels),
        Node("cpu-1", "main", 500.0, 0.0, {}),
    )
    assert site.tenants == (
        Tenant("research", 2.0, 1500.0, 4.0, borrows=False),
        Tenant("ops", 1.0, math.inf, math.inf, borrows=True),
    )
    assert site.rules.other_load_w == 100.0 + 150.0 + 50.0, "every node's idle draw"
    assert advice(config) == []


def test_a_site_without_a_list_has_the_one_node(folder: Path) -> None:
    head, _, rest = SITE.partition("[[compute.nodes]]")
    tenants = rest[rest.index("[[tenants]]") :]
    one = f'{head}feeder = "rack"\nmax = "700W"\nidle = "40W"\n{tenants}'
    site = blueprint.site_of(load_site(write(folder, one), environ={}))
    assert site.nodes == (Node("ray", "rack", 700.0),)
    assert site.rules.other_load_w == 140.0


@pytest.mark.parametrize(
    ("old", "new", "path", "says"),
    [
        ('name = "ray"', 'feeder = "rack"', "compute.feeder", "[[compute.nodes]]"),
        ('name = "ray"', 'max = "1kW"', "compute.max", "[[compute.nodes]]"),
        ('name = "ray"', 'idle = "1W"', "compute.idle", "[[compute.nodes]]"),
        ('name = "cpu-1"', 'name = "gpu-1"', "compute.nodes[1].name", "compute.nodes[0]"),
        ('name = "ops"', 'name = "research"', "tenants[1].name", "tenants[0]"),
        ('"main"\nmax', '"mian"\nmax', "compute.nodes[1].feeder", "allowed: main, rack"),
        ('max = "2kW"', 'max = "4kW"', "compute.nodes[0].max", "at most 3kW"),
        ('idle = "50W"', 'idle = "600W"', "compute.nodes[1].idle", "0W to 500W"),
        ("gpus = 8", "gpu = 8", "compute.nodes[0].gpu", "did you mean gpus?"),
        ("gpus = 8", "gpus = -1", "compute.nodes[0].gpus", "allowed: 0 to 64"),
        ("weight = 2", "weight = 0", "tenants[0].weight", "allowed: 0.001"),
        ('quota = "1.5kW"', 'quotas = "1kW"', "tenants[0].quotas", "did you mean quota"),
        ('a = "300W"', 'a = "1.2kW"', "services[0].min_replicas", "hold 1 replicas of 1.2kW"),
        ("min_replicas = 2", "min_replicas = 20", "compute.nodes", "at least 6kW"),
    ],
)  # fmt: skip
def test_each_mistake_is_named(folder: Path, old: str, new: str, path: str, says: str) -> None:
    assert old in SITE
    text = SITE.replace(old, new, 1).replace("max_replicas = 4", "max_replicas = 40")
    with pytest.raises(ConfigInvalid) as caught:
        load_site(write(folder, text), environ={})
    (fault,) = caught.value.faults
    assert isinstance(fault, Fault)
    assert fault.path == path, str(fault)
    assert says in fault.message, str(fault)


def test_half_a_compute_section_names_both_ways(folder: Path) -> None:
    text = SITE.partition("[[compute.nodes]]")[0]
    with pytest.raises(ConfigInvalid) as caught:
        load_site(write(folder, text), environ={})
    found = [fault for fault in caught.value.faults if isinstance(fault, Fault)]
    assert [fault.path for fault in found] == ["compute.feeder", "compute.max"]
    assert all("[[compute.nodes]]" in fault.message for fault in found)


def test_nodes_at_rest_count_on_their_own_feeder(folder: Path) -> None:
    text = SITE.replace('limit = "3kW"', 'limit = "2kW"').replace('"150W"', '"1.99kW"')
    with pytest.raises(ConfigInvalid, match=r"feeders\[1\]\.limit.*at rest \(1\.99kW"):
        load_site(write(folder, text), environ={})


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('quota = "1.5kW"', 'quota = "3kW"', "research: its quota of 3kW is more than the 2.5kW"),
        ('name = "ops"', 'name = "ops"\nquota = "1.2kW"', "come to 2.7kW, the site has 2.5kW"),
        ("quota_gpus = 4", "quota_gpus = 9", "9 GPUs; the nodes have 8"),
        ('limit = "3kW"', 'limit = "2kW"', None),
        ('feeder = "main"\nmax = "500W"', 'feeder = "rack"\nmax = "1.5kW"', "may ask for 3.5kW"),
    ],
)  # fmt: skip
def test_what_is_odd_is_told_and_stops_nothing(
    folder: Path, old: str, new: str, says: str | None
) -> None:
    assert old in SITE
    told = advice(load_site(write(folder, SITE.replace(old, new, 1)), environ={}))
    assert (told == []) if says is None else (len(told) == 1 and says in told[0]), told


def test_a_host_that_is_no_node_is_told(folder: Path) -> None:
    (folder / "agent.toml").write_text(AGENT.replace('host = "gpu-1"', 'host = "gpu-l"'))
    (told,) = advice(load_site(write(folder, SITE), environ={}))
    assert "host = gpu-l, which is no compute node (cpu-1, gpu-1)" in told
    open_gates = SITE.replace('name = "ray"', "gated_by_host = false")
    assert advice(load_site(write(folder, open_gates), environ={})) == []
