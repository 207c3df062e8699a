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


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A GPU that moves when a test says so, or when somebody waits for it."""
    reason = standin.missing()
    if reason is not None:
        pytest.skip(reason)
    device = standin.StandIn()
    standin.put_in_place(monkeypatch, device)
    return device
