"""Where the emulated NVML is built, once for all tests of a run."""

from pathlib import Path

import pytest

from wattshift_cluster.emulate.nvml import find_compiler


@pytest.fixture
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if find_compiler() is None:
        pytest.skip("no C compiler here: NVML cannot be emulated")
    return tmp_path_factory.getbasetemp().parent / "emulated-nvml"
