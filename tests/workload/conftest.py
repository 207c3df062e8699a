"""A real Ray cluster of three nodes for the tests of this room; one for each file that asks."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest


def _sibling(name: str) -> ModuleType:
    """A module beside this file, under one name for all files of this room."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


bench = _sibling("ray_cluster")
_sibling("batch_bench")


@pytest.fixture(scope="module")
def ray_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """A `ray_cluster.RayCluster`: nodes n0 (head), n1 and n2 with 300 W each."""
    pytest.importorskip("ray")
    with bench.RayCluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster
