"""`wattshift up --address`: an existing Ray cluster, and what would go unheeded."""

import socket
from pathlib import Path

import pytest
from tests.ports import free_port

from wattshift_cluster.demo.up import EmbeddedSite, PortInUse
from wattshift_cluster.errors import ConfigInvalid

SITE = """
[site]
name = "hall"
state_dir = "state"
[[feeders]]
name = "main"
limit = "3kW"
[compute]
name = "head"
token_file = "bridge.token"
bridge = "127.0.0.1:{bridge}"
serve = "127.0.0.1:{serve}"
watts_per_core = "6W"
gcs_storage = "gcs"
child = true
[[compute.nodes]]
name = "{first}"
feeder = "main"
max = "700W"
[[compute.nodes]]
name = "worker"
feeder = "main"
max = "900W"
[api]
listen = "127.0.0.1:{api}"
"""


def site(folder: Path, serve: int, first: str = "head") -> Path:
    ports = {"bridge": free_port(), "api": free_port(), "serve": serve, "first": first}
    (folder / "site.toml").write_text(SITE.format(**ports))
    return folder / "site.toml"


def argument(embedded: EmbeddedSite, name: str) -> str | None:
    (argv,) = [child.argv for child in embedded._parts() if child.name == "compute"]
    return argv[argv.index(name) + 1] if name in argv else None


def test_the_bridge_goes_to_the_cluster_that_is_named(tmp_path: Path) -> None:
    path = site(tmp_path, free_port())
    assert argument(EmbeddedSite(path), "--ray-address") == "local"
    assert argument(EmbeddedSite(path), "--gcs-storage") == str(tmp_path / "gcs")
    embedded = EmbeddedSite(path, "127.0.0.1:6379")
    assert argument(embedded, "--ray-address") == "127.0.0.1:6379"
    assert argument(embedded, "--watts-per-core") == "6.0"
    assert argument(embedded, "--power-w") == "700.0", "of the node that the bridge is on"
    assert argument(embedded, "--gcs-storage") is None, "the cluster keeps its own store"


def test_a_node_that_the_site_does_not_name_starts_with_no_watts(tmp_path: Path) -> None:
    assert argument(EmbeddedSite(site(tmp_path, free_port(), "other")), "--power-w") == "0.0"


def test_a_cluster_that_runs_may_serve_already(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as serving:
        path = site(tmp_path, serving.getsockname()[1])
        EmbeddedSite(path, "127.0.0.1:6379")._check_ports()
        with pytest.raises(PortInUse, match="services"):
            EmbeddedSite(path)._check_ports()


def test_an_address_that_would_go_unheeded_is_refused(tmp_path: Path) -> None:
    path = site(tmp_path, free_port())
    with pytest.raises(ConfigInvalid, match="host:port of its GCS"):
        EmbeddedSite(path, "ray://127.0.0.1:10001")
    text = path.read_text()
    path.write_text(text.replace("child = true", "child = false"))
    with pytest.raises(ConfigInvalid, match="started elsewhere"):
        EmbeddedSite(path, "127.0.0.1:6379")
    path.write_text(text.partition("[compute]")[0] + "[api]" + text.partition("[api]")[2])
    with pytest.raises(ConfigInvalid, match=r"no \[compute\]"):
        EmbeddedSite(path, "127.0.0.1:6379")
