"""From the site file to a meter that is read and guarded."""

import time
from collections.abc import Callable

import httpx2

from wattshift_cluster.config.fields import split_address
from wattshift_cluster.config.meter_checks import faults_of
from wattshift_cluster.config.meters import Meter as Section
from wattshift_cluster.config.meters import MeterValue
from wattshift_cluster.errors import ConfigInvalid, Fault
from wattshift_cluster.grid.meters import mqtt, prometheus
from wattshift_cluster.grid.meters.compare import Bounds
from wattshift_cluster.grid.meters.guard import Rules
from wattshift_cluster.grid.meters.guarded import GuardedMeter
from wattshift_cluster.grid.meters.http import HttpMeter
from wattshift_cluster.grid.meters.modbus import ModbusMeter, RegisterPlan
from wattshift_cluster.grid.meters.pointer import parts_of
from wattshift_cluster.grid.meters.reading import Meter
from wattshift_cluster.grid.meters.registers import Place
from wattshift_cluster.grid.meters.sunspec import SunSpecPlan


def build(
    section: Section,
    limit_w: float,
    *,
    name: str = "meter",
    devices_w: Callable[[], float | None] = lambda: None,
    client: httpx2.AsyncClient | None = None,
    wall_s: Callable[[], float] = time.time,
    steady_s: Callable[[], float] = time.monotonic,
) -> GuardedMeter:
    """A meter of the kind that its section names. Nothing is asked before its first poll.

    Args:
        section: `[meter]`, or a feeder's.
        limit_w: of the feeder that it measures, W.
        name: of the section, in faults.
        devices_w: what the devices behind it draw by their own word, W; None while unknown.
        client: of the caller's, for meters over HTTP; stays open.
        wall_s: unix time, s.
        steady_s: a clock that nobody sets, s.

    Raises:
        ConfigInvalid: something that the kind needs is missing.
    """
    faults = [
        Fault("site file", path, None if value is None else str(value), why)
        for path, value, why in faults_of(name, section)
    ]
    if faults:
        raise ConfigInvalid(faults)
    rules = Rules(limit_w, section.exports, section.frozen_after_s)
    meter = _of_kind(section, name, client, wall_s, steady_s)
    return GuardedMeter(meter, rules, devices_w=devices_w, steady_s=steady_s)


def bounds_of(section: Section) -> Bounds:
    """When this meter and the devices behind it are taken to disagree."""
    share = section.disagree_pct / 100.0
    return Bounds(share, section.disagree_w, section.disagree_after_s)


def _of_kind(
    section: Section,
    name: str,
    client: httpx2.AsyncClient | None,
    wall_s: Callable[[], float],
    steady_s: Callable[[], float],
) -> Meter:
    stale_s, deadline_s = section.stale_after_s, section.deadline_s
    if section.kind == "http":
        return HttpMeter(
            str(section.url),
            stale_after_s=stale_s,
            deadline_s=deadline_s,
            client=client,
            wall_s=wall_s,
            steady_s=steady_s,
        )
    if section.kind == "prometheus":
        return prometheus.PrometheusMeter(
            str(section.url),
            _queries(section, name),
            stale_after_s=stale_s,
            deadline_s=deadline_s,
            quality=section.quality,
            token_file=section.bearer_file,
            wall_s=wall_s,
            steady_s=steady_s,
        )
    host, port = split_address(str(section.address))
    if section.kind == "mqtt":
        password_file, ca_file = section.password_file, section.ca_file
        return mqtt.MqttMeter(
            mqtt.Broker(host, port, section.username, password_file, section.tls, ca_file),
            _spots(section, name),
            stale_after_s=stale_s,
            quality=section.quality,
            wall_s=wall_s,
            steady_s=steady_s,
        )
    return ModbusMeter(
        host,
        port,
        section.unit,
        _plan(section),
        stale_after_s=stale_s,
        deadline_s=deadline_s,
        quality=section.quality,
        wall_s=wall_s,
        steady_s=steady_s,
    )


def _scale(value: MeterValue) -> float:
    return -value.scale if value.negate else value.scale


def _plan(section: Section) -> SunSpecPlan | RegisterPlan:
    if section.watts is None:
        return SunSpecPlan(section.base, section.negate)
    energy, frequency = section.energy, section.frequency
    return RegisterPlan(
        _place(section.watts),
        None if energy is None else _place(energy),
        None if frequency is None else _place(frequency),
        tuple(_place(one) for one in section.voltages),
    )


def _place(value: MeterValue) -> Place:
    assert value.register_at is not None, "checked above"
    return Place(value.register_at, value.encoding, value.table, value.word_order, _scale(value))


def _spots(section: Section, name: str) -> mqtt.Spots:
    def spot(key: str, value: MeterValue) -> mqtt.Spot:
        topic = value.topic or section.topic
        assert topic is not None, "checked above"
        steps = _steps(f"{name}.{key}.pointer", value.pointer)
        return mqtt.Spot(topic, steps, _scale(value))

    found = {key: spot(key, value) for key, value in section.values().items()}
    at = section.time_pointer
    return mqtt.Spots(
        found["watts"],
        found.get("energy"),
        found.get("frequency"),
        tuple(one for key, one in found.items() if key.startswith("voltages")),
        None if at is None else _steps(f"{name}.time_pointer", at),
    )


def _steps(path: str, pointer: str) -> tuple[str, ...]:
    try:
        return parts_of(pointer)
    except ValueError as wrong:
        raise ConfigInvalid([Fault("site file", path, pointer, str(wrong))]) from None


def _queries(section: Section, name: str) -> prometheus.Queries:
    def query(key: str, value: MeterValue) -> prometheus.Query:
        text = str(value.query)
        if value.time_query is None and not prometheus.is_selector(text):
            why = "an expression; time_query has to give the time of its samples"
            raise ConfigInvalid([Fault("site file", f"{name}.{key}.query", text, why)])
        return prometheus.Query(text, value.time_query, _scale(value))

    found = {key: query(key, value) for key, value in section.values().items()}
    return prometheus.Queries(
        found["watts"],
        found.get("energy"),
        found.get("frequency"),
        tuple(one for key, one in found.items() if key.startswith("voltages")),
    )
