"""A real server with an in-memory controller behind it."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

_spec = importlib.util.spec_from_file_location("fakeport", Path(__file__).with_name("fakeport.py"))
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


@pytest.fixture
def call(served: Any) -> Iterator[Any]:
    """`call(method, path, role="operator", **request)` over one real connection."""
    # Plain http: loading the machine's certificates would cost each test 50 ms.
    plain = {"timeout": 10, "trust_env": False, "verify": False}
    with httpx2.Client(base_url=served.url, **plain) as http:

        def send(method: str, path: str, role: str | None = "operator", **request: Any) -> Any:
            headers = dict(request.pop("headers", {}))
            if role is not None:
                headers.setdefault("Authorization", f"Bearer {served.secrets[role]}")
            return http.request(method, path, headers=headers, **request)

        yield send
