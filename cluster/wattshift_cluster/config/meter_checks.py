"""What no single value of a meter can tell: whether what its kind needs is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

from wattshift_cluster.config.draft import Draft, Finding
from wattshift_cluster.config.fields import is_loopback, split_address
from wattshift_cluster.config.meters import Meter, MeterValue

AT_URL = ("http", "prometheus")


def whole_meters(draft: Draft) -> Iterator[Finding]:
    """Every meter of a site file has what its kind needs: the site's, and those of feeders."""
    for path, meter in draft.all(Meter):
        yield from faults_of(path, meter)
    for path, section in draft.valid.items():
        behind = getattr(section, "meter", None)
        if isinstance(behind, Meter):
            yield from faults_of(f"{path}.meter", behind)


def faults_of(path: str, meter: Meter) -> Iterator[Finding]:
    """Every fault of one meter, under the path of its section."""
    needed = "url" if meter.kind in AT_URL else "address"
    if getattr(meter, needed) is None:
        yield f"{path}.{needed}", None, f"missing; a meter of kind {meter.kind} needs it"
    unused = "address" if needed == "url" else "url"
    if getattr(meter, unused) is not None:
        yield f"{path}.{unused}", getattr(meter, unused), f"kind {meter.kind} has {needed} instead"
    yield from _values(path, meter)
    yield from _login(path, meter)


def _values(path: str, meter: Meter) -> Iterator[Finding]:
    values = meter.values()
    if meter.kind == "http":
        for key in values:
            yield f"{path}.{key}", None, "a meter over HTTP names its values itself"
        return
    if meter.watts is None:
        if meter.kind != "modbus":
            yield f"{path}.watts", None, f"missing; a meter of kind {meter.kind} needs it"
        elif values:
            key = next(iter(values))
            yield f"{path}.{key}", None, "a register map needs watts too; without, it is SunSpec"
    for key, value in values.items():
        yield from _value(f"{path}.{key}", meter, value)


def _value(where: str, meter: Meter, value: MeterValue) -> Iterator[Finding]:
    if meter.kind == "modbus" and value.register_at is None:
        yield f"{where}.register", None, "missing; a Modbus value stands in a register"
    if meter.kind == "mqtt" and value.topic is None and meter.topic is None:
        yield f"{where}.topic", None, "missing; allowed: here, or as topic of the meter"
    if meter.kind == "prometheus" and value.query is None:
        yield f"{where}.query", None, "missing; Prometheus is asked for a value by a query"


def _login(path: str, meter: Meter) -> Iterator[Finding]:
    if (meter.username is None) != (meter.password_file is None):
        missing = "username" if meter.username is None else "password_file"
        yield f"{path}.{missing}", None, "missing; username and password_file go together"
    if meter.plaintext:
        return
    if meter.password_file is not None and not meter.tls and _leaves(meter.address):
        told = "a password, not encrypted; allowed: tls = true, or plaintext = true"
        yield f"{path}.tls", False, told
    if meter.bearer_file is not None and meter.url is not None:
        at = urlsplit(meter.url)
        if at.scheme == "http" and not is_loopback(at.hostname or ""):
            told = "a token, not encrypted; allowed: https://, or plaintext = true"
            yield f"{path}.url", meter.url, told


def _leaves(address: str | None) -> bool:
    """Whether what is sent there leaves this machine."""
    return address is not None and not is_loopback(split_address(address)[0])


CHECKS: tuple[Callable[[Draft], Iterator[Finding]], ...] = (whole_meters,)
