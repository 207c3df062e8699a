"""Who may do what, and what the token file keeps."""

import json
import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from wattshift_cluster.api.tokens import Role, TokenStore
from wattshift_cluster.errors import ConfigInvalid, NotFound

READS = [
    "/v1/site", "/v1/devices", "/v1/jobs", "/v1/signals", "/v1/caps", "/v1/decisions",
    "/v1/flexibility", "/v1/overrides", "/v1/stream", "/metrics", "/openapi.json",
]  # fmt: skip
WRITES = [
    ("POST", "/v1/jobs"), ("POST", "/v1/jobs/x:cancel"), ("POST", "/v1/caps"),
    ("DELETE", "/v1/caps"), ("DELETE", "/v1/caps/x"), ("POST", "/v1/signals"),
    ("DELETE", "/v1/overrides"),
]  # fmt: skip
GOVERNS = [
    ("GET", "/v1/tokens"), ("POST", "/v1/tokens"), ("DELETE", "/v1/tokens/x"),
    ("POST", "/v1/overrides"),
]  # fmt: skip


@pytest.mark.parametrize("path", READS)
def test_reading_needs_a_token(call: Any, path: str) -> None:
    answer = call("GET", path, role=None)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.json()["type"].endswith("unauthorized")


@pytest.mark.parametrize("path", [path for path in READS if path != "/v1/stream"])
def test_a_viewer_reads(call: Any, path: str) -> None:
    assert call("GET", path, role="viewer").status_code == 200


@pytest.mark.parametrize(("method", "path"), WRITES)
def test_a_viewer_writes_nothing(call: Any, method: str, path: str) -> None:
    assert call(method, path, role=None, json={}).status_code == 401
    answer = call(method, path, role="viewer")
    assert answer.status_code == 403
    assert answer.json()["type"].endswith("forbidden")


@pytest.mark.parametrize(("method", "path"), GOVERNS)
def test_only_an_admin_governs_tokens(call: Any, method: str, path: str) -> None:
    assert call(method, path, role="operator").status_code == 403


def test_wrong_schemes_and_secrets(call: Any, served: Any) -> None:
    good = served.secrets["admin"]
    for header in (f"Basic {good}", good, "Bearer", f"Bearer {good}x", "Bearer é"):
        headers = {"Authorization": header.encode()}
        assert call("GET", "/v1/site", None, headers=headers).status_code == 401, header
    headers = {"Authorization": f"bEaReR {good}"}
    assert call("GET", "/v1/site", None, headers=headers).status_code == 200


def test_only_the_page_and_the_probes_are_open(call: Any) -> None:
    for path in ("/healthz", "/readyz", "/", "/page/page.js", "/page/page.css"):
        assert call("GET", path, role=None).status_code == 200, path
    assert call("GET", "/page/../app.py", role=None).status_code == 404
    assert call("GET", "/page/%2e%2e%2fapp.py", role=None).status_code == 404
    assert call("GET", "/docs", role=None).status_code == 404


def test_a_token_made_over_http_works_until_it_is_revoked(call: Any) -> None:
    made = call("POST", "/v1/tokens", role="admin", json={"name": "ci", "role": "viewer"})
    assert made.status_code == 201
    assert made.headers["cache-control"] == "no-store"
    mine = {"Authorization": f"Bearer {made.json()['secret']}"}
    assert call("GET", "/v1/site", None, headers=mine).status_code == 200
    listed = call("GET", "/v1/tokens", role="admin").text
    assert made.json()["id"] in listed
    assert made.json()["secret"] not in listed
    assert call("DELETE", f"/v1/tokens/{made.json()['id']}", role="admin").status_code == 204
    assert call("GET", "/v1/site", None, headers=mine).status_code == 401


def test_a_running_server_sees_what_another_process_changes(call: Any, served: Any) -> None:
    other = TokenStore(served.store.path.parent)
    secret, token = other.create("late", Role.VIEWER)
    headers = {"Authorization": f"Bearer {secret}"}
    assert call("GET", "/v1/site", None, headers=headers).status_code == 200
    other.revoke(token.id)
    assert call("GET", "/v1/site", None, headers=headers).status_code == 401


def test_the_file_holds_hashes_and_is_private(tmp_path: Path) -> None:
    store = TokenStore(tmp_path)
    secret, token = store.create("me", Role.ADMIN)
    text = store.path.read_text()
    assert secret not in text
    assert token.sha256 in text
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_file_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    store = TokenStore(tmp_path)
    secret, _ = store.create("me", Role.ADMIN)
    os.chmod(store.path, mode)
    with pytest.raises(ConfigInvalid, match="chmod 600"):
        TokenStore(tmp_path).find(secret)


@pytest.mark.parametrize("text", ["", "[]", '{"tokens": [{}]}', '{"tokens": 3}'])
def test_a_broken_file_lets_nobody_in(tmp_path: Path, text: str) -> None:
    store = TokenStore(tmp_path)
    secret, _ = store.create("me", Role.ADMIN)
    store.path.write_text(text)
    with pytest.raises(ConfigInvalid):
        TokenStore(tmp_path).find(secret)


def test_a_token_ends(tmp_path: Path) -> None:
    store = TokenStore(tmp_path)
    assert store.find(store.create("short", Role.VIEWER, ttl_s=-1.0)[0]) is None
    assert store.find(store.create("long", Role.VIEWER, ttl_s=60.0)[0]) is not None


def test_revoking_nothing_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        TokenStore(tmp_path).revoke("nobody")


def test_makers_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    def make(name: str) -> None:
        for i in range(5):
            TokenStore(tmp_path).create(f"{name}{i}", Role.VIEWER)

    threads = [threading.Thread(target=make, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(json.loads((tmp_path / "tokens.json").read_text())["tokens"]) == 20
