"""What no single value of `[[openadr]]` and `[[openadr2]]` can tell."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

from wattshift_cluster.config.draft import Draft, Finding, duplicates
from wattshift_cluster.config.fields import is_loopback
from wattshift_cluster.config.openadr import OpenAdr, OpenAdr2


def unique_names(draft: Draft) -> Iterator[Finding]:
    """Sources are told apart by name, and resources of one VTN too."""
    yield from duplicates(draft.names("openadr"), "openadr", "name")
    yield from duplicates(draft.names("openadr2"), "openadr2", "name")
    for path, vtn in draft.all(OpenAdr):
        names = [resource.name for resource in vtn.resources]
        yield from duplicates(names, f"{path}.resources", "name")


def whole_login(draft: Draft) -> Iterator[Finding]:
    """A login has an id and a secret, and a certificate its key."""
    for path, vtn in draft.all(OpenAdr):
        yield from _both(path, "client_id", vtn.client_id, "secret_file", vtn.secret_file)
        if vtn.webhook is not None:
            hook = vtn.webhook
            where = f"{path}.webhook"
            yield from _both(where, "certificate", hook.certificate, "key", hook.key)
        if vtn.mqtt and vtn.version == "3.0":
            yield f"{path}.mqtt", True, "OpenADR 3.0 has no MQTT; allowed: false"
    for path, old in draft.all(OpenAdr2):
        yield from _both(path, "certificate", old.certificate, "key", old.key)


def in_the_clear(draft: Draft) -> Iterator[Finding]:
    """Credentials and caps travel encrypted, or on this machine, or because the owner says so."""
    for path, vtn in draft.all(OpenAdr):
        urls = {"url": vtn.url, "token_url": vtn.token_url}
        if vtn.webhook is not None:
            urls["webhook.url"] = vtn.webhook.url
        for key, url in urls.items():
            if url is not None and not vtn.plaintext:
                yield from _clear(f"{path}.{key}", url)
    for path, old in draft.all(OpenAdr2):
        if not old.plaintext:
            yield from _clear(f"{path}.url", old.url)


def _clear(where: str, url: str) -> Iterator[Finding]:
    at = urlsplit(url)
    if at.scheme == "http" and not is_loopback(at.hostname or ""):
        yield where, url, "not encrypted; allowed: https://, or plaintext = true beside it"


def _both(path: str, key: str, value: object, other: str, beside: object) -> Iterator[Finding]:
    if (value is None) != (beside is None):
        missing = key if value is None else other
        yield f"{path}.{missing}", None, f"missing; {key} and {other} go together"


CHECKS: tuple[Callable[[Draft], Iterator[Finding]], ...] = (
    unique_names,
    whole_login,
    in_the_clear,
)
