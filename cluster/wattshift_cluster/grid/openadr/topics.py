"""MQTT of a VTN: where its broker is, how it wants to be greeted, and which topics concern a VEN.

`GET notifiers` names the broker; each `GET notifiers/mqtt/topics/...` the topics of one collection
(OpenADR 3.1.1). A VTN that keeps targeted objects private tells of them under `vens/{venID}/...`
alone, so a VEN follows both those and the public ones.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from urllib.parse import quote, urlsplit

from wattshift_cluster.grid.openadr.failures import VtnNonsense, VtnRefused

MAX_TOPICS = 512
MAX_TOPIC_CHARACTERS = 1024
MAX_URIS = 8
MAX_PEM_CHARACTERS = 64 * 1024
PORTS = {"mqtts": 8883, "mqtt": 1883}
NOT_OURS = (400, 401, 403, 404, 405, 501)
"""A collection that is not told to this client is left out; the others still count."""

Ask = Callable[[str], Awaitable[Any]]
"""GET of a path; the parsed answer."""


class Greeting(StrEnum):
    """How a broker wants to know who connects."""

    ANONYMOUS = "ANONYMOUS"
    OAUTH2_BEARER_TOKEN = "OAUTH2_BEARER_TOKEN"
    CERTIFICATE = "CERTIFICATE"


@dataclass(frozen=True, slots=True)
class Address:
    """One way to the broker; `tls` tells whether it is an encrypted one."""

    host: str
    port: int
    tls: bool


@dataclass(frozen=True, slots=True)
class Broker:
    """The VTN's broker.

    Attributes:
        addresses: to be tried in this order.
        greeting: how to log in.
        username: with a bearer token; "{clientID}" stands for the client's own.
        ca_pem, cert_pem, key_pem: with a certificate.
    """

    addresses: tuple[Address, ...]
    greeting: Greeting
    username: str | None = None
    ca_pem: str | None = field(default=None, repr=False)
    cert_pem: str | None = field(default=None, repr=False)
    key_pem: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Topics:
    """A broker and the topics to subscribe to, wildcards among them."""

    broker: Broker
    names: tuple[str, ...]


async def find_topics(
    ask: Ask, *, secure: bool, ven_id: str | None, program_ids: Sequence[str]
) -> Topics | None:
    """The topics that tell of programs and events; None where the VTN has no MQTT for us.

    Args:
        ask: how to ask the VTN.
        secure: take encrypted ways to the broker alone: a notice of a plain one can be forged.
        ven_id: of this site, for what is targeted at it.
        program_ids: whose events are wanted.

    Raises:
        VtnUnreachable, VtnNonsense: of the asking, or an answer that the schema does not allow.
    """
    try:
        said = await ask("notifiers")
    except VtnRefused as no:
        if no.status in NOT_OURS:
            return None
        raise
    if not isinstance(said, dict):
        raise VtnNonsense("notifiers: the answer is not an object")
    if said.get("MQTT") is None:
        return None
    broker = _broker(said["MQTT"], secure)
    paths = ["programs", *(f"programs/{quote(one, safe='')}/events" for one in program_ids)]
    if ven_id is not None:
        mine = f"vens/{quote(ven_id, safe='')}"
        paths += [f"{mine}/events", f"{mine}/programs"]
    names: dict[str, None] = {}
    for path in paths:
        try:
            said = await ask(f"notifiers/mqtt/topics/{path}")
        except VtnRefused as no:
            if no.status not in NOT_OURS:
                raise
        else:
            names |= dict.fromkeys(_names(path, said))
        if len(names) > MAX_TOPICS:
            raise VtnNonsense(f"notifiers: more than {MAX_TOPICS} topics")
    return Topics(broker, tuple(names)) if names and broker.addresses else None


def _names(path: str, said: Any) -> list[str]:
    topics = said.get("topics") if isinstance(said, dict) else None
    if not isinstance(topics, dict):
        raise VtnNonsense(f"notifiers: no topics of {path}")
    if topics.get("ALL"):
        found = [topics["ALL"]]
    else:
        found = [topics[key] for key in ("CREATE", "UPDATE", "DELETE") if topics.get(key)]
    for name in found:
        if not isinstance(name, str) or not 0 < len(name) <= MAX_TOPIC_CHARACTERS or "\0" in name:
            raise VtnNonsense(f"notifiers: a topic of {path} is no text")
    return found


def _broker(said: Any, secure: bool) -> Broker:
    if not isinstance(said, dict) or not isinstance(said.get("URIS"), list):
        raise VtnNonsense("notifiers: MQTT without URIS")
    if said.get("serialization", "JSON") != "JSON":
        raise VtnNonsense("notifiers: MQTT in another form than JSON")
    greets = said.get("authentication")
    method = greets.get("method") if isinstance(greets, dict) else None
    if not isinstance(greets, dict) or method not in list(Greeting):
        raise VtnNonsense("notifiers: MQTT with an unknown authentication")
    found = [_address(uri) for uri in said["URIS"][:MAX_URIS]]
    return Broker(
        tuple(address for address in found if address and (address.tls or not secure)),
        Greeting(method),
        _text(greets, "username"),
        _text(greets, "caCert"),
        _text(greets, "clientCert"),
        _text(greets, "clientKey"),
    )


def _address(uri: Any) -> Address | None:
    """Host and port of an address; None where it is of no kind that is spoken here."""
    try:
        at = urlsplit(uri if isinstance(uri, str) else "")
        if at.scheme not in PORTS or not at.hostname:
            return None
        return Address(at.hostname, at.port or PORTS[at.scheme], at.scheme == "mqtts")
    except ValueError:
        return None


def _text(row: dict[str, Any], key: str) -> str | None:
    value = row.get(key)
    if value is None:
        return None
    if not isinstance(value, str) or not 0 < len(value) <= MAX_PEM_CHARACTERS:
        raise VtnNonsense(f"notifiers: {key} is no text")
    return value
