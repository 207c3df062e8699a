"""The stand-in GPU, for the tests of this room and of the worker."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

_spec = importlib.util.spec_from_file_location("standin", Path(__file__).with_name("standin.py"))
assert _spec is not None
assert _spec.loader is not None
standin = importlib.util.module_from_spec(_spec)
sys.modules.setdefault("standin", standin)
_spec.loader.exec_module(standin)


@pytest.fixture(scope="session")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Any:
    one_block = standin.compiled(tmp_path_factory.mktemp("launch"))
    if one_block is None:
        pytest.skip("no g++ here: the CUDA source cannot be compiled as C++")
    return one_block


@pytest.fixture
def gpu(kernel: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A GPU that moves when a test says so, or when somebody waits for it."""
    device = standin.StandIn(kernel)
    monkeypatch.setitem(sys.modules, "cupy", device.cupy)
    monkeypatch.setattr("wattshift_kernels.gpu.ctypes.CDLL", lambda _name: device.driver)
    return device
