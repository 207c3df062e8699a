"""A real server with an in-memory controller behind it."""

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from wattshift_cluster.cli.main import main

FAKEPORT = Path(__file__).parents[1] / "api" / "fakeport.py"
_spec = importlib.util.spec_from_file_location("fakeport", FAKEPORT)
assert _spec is not None
assert _spec.loader is not None
fakeport = importlib.util.module_from_spec(_spec)
sys.modules.setdefault("fakeport", fakeport)
_spec.loader.exec_module(fakeport)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with fakeport.serving(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def served(server: Any) -> Any:
    server.reset()
    return server


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test finds a controller that really runs on this machine."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    for name in ("WATTSHIFT_URL", "WATTSHIFT_TOKEN", "WATTSHIFT_STATE_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def wattshift() -> Callable[..., Result]:
    """`wattshift("status", "-o", "json")` through click, as the installed command would."""
    return lambda *args: CliRunner().invoke(main, [str(arg) for arg in args])


@pytest.fixture
def reach(served: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A server that the commands find by environment, as an admin."""
    monkeypatch.setenv("WATTSHIFT_URL", served.url)
    monkeypatch.setenv("WATTSHIFT_TOKEN", served.secrets["admin"])
    return served
