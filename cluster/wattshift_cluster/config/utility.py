"""`[utility.modbus]`, `[solar]`, `[[drills]]` and `[alarms]` of site.toml.

A utility's own way in, the sun's, the owner's own trials, and where alarms are told outside.
"""

from __future__ import annotations

import re
from datetime import time
from ipaddress import ip_network
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from wattshift_cluster.config.fields import (
    FilePath,
    HttpUrl,
    Listen,
    Name,
    Section,
    Switch,
    is_loopback,
    seconds,
    watts,
    whole,
)
from wattshift_cluster.config.settlement import Zone

PEERS_MOST = 32
DRILLS_MOST = 50
PRIORITY_LOWEST = 1_000_000
"""Of the sun's target: whatever the grid asks for at the same time goes before it."""

WEEK = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
Severity = Literal["warning", "critical"]


def _cidr(value: str) -> str:
    try:
        network = ip_network(value)
    except ValueError as wrong:
        raise ValueError(
            f"not a range of addresses ({wrong}); write for example 10.1.2.0/28"
        ) from (None)
    if network.prefixlen == 0:
        raise ValueError("everybody is no list of peers; write for example 10.1.2.0/28")
    return str(network)


def _clock_time(value: str) -> str:
    if not re.fullmatch(r"\d{2}:\d{2}", value):
        raise ValueError("not a time of day; write for example 14:30")
    try:
        time.fromisoformat(value)
    except ValueError:
        raise ValueError("not a time of day; allowed: 00:00 to 23:59") from None
    return value


Cidr = Annotated[str, AfterValidator(_cidr)]
ClockTime = Annotated[str, AfterValidator(_clock_time)]


class UtilityModbus(Section):
    """`[utility.modbus]`: a Modbus TCP server in which the utility's master writes a cap.

    `peers` are the addresses that may connect, as CIDR; Modbus knows no login, so the network is
    the lock. The master must change the heartbeat register within `heartbeat`, else `fallback`
    holds beside the last set point, whichever is lower. docs/utility.md has the registers.
    """

    listen: Listen
    peers: Annotated[tuple[Cidr, ...], Field(min_length=1, max_length=PEERS_MOST)]
    fallback_w: Annotated[float, watts(0)] = Field(alias="fallback")
    heartbeat_s: Annotated[float, seconds(1, 3600)] = Field(30.0, alias="heartbeat")


class Utility(Section):
    """`[utility]`: the utility's own way in, beside OpenADR."""

    modbus: UtilityModbus | None = None


class Solar(Section):
    """`[solar]`: mining follows what the site would otherwise export at its grid connection.

    Mining begins once `floor` and `hysteresis` are to spare, and rises in steps of `hysteresis`;
    it falls at once. It stays on for `min_on` and off for `min_off`, but never while more than
    `import_bound` would be imported for it. `export_kept` goes out all the same. Every `period`
    the meter is asked; older than `stale_after` is unknown, and then nothing mines. A target of
    the grid goes before this one unless `priority` (0 is highest) says otherwise.
    """

    import_bound_w: Annotated[float, watts(0)] = Field(0.0, alias="import_bound")
    export_kept_w: Annotated[float, watts(0)] = Field(0.0, alias="export_kept")
    floor_w: Annotated[float, watts(0)] = Field(0.0, alias="floor")
    hysteresis_w: Annotated[float, watts(0)] = Field(0.0, alias="hysteresis")
    min_on_s: Annotated[float, seconds(0, 86_400)] = Field(300.0, alias="min_on")
    min_off_s: Annotated[float, seconds(0, 86_400)] = Field(300.0, alias="min_off")
    period_s: Annotated[float, seconds(0.2, 300)] = Field(5.0, alias="period")
    stale_after_s: Annotated[float, seconds(0.2, 3600)] = Field(10.0, alias="stale_after")
    priority: Annotated[int, whole(0, 1_000_000)] = PRIORITY_LOWEST


class Drill(Section):
    """`[[drills]]`: a cap for practice, every week on `days` at the clock time `at` in `zone`.

    `limit` is the cap; or `shed` is taken off what the site draws when it begins. `notice` is how
    long before it is told; 0 is unannounced. It never runs while a real event does.
    """

    name: Name
    days: Annotated[tuple[Weekday, ...], Field(min_length=1, max_length=len(WEEK))]
    at: ClockTime
    zone: Zone = "UTC"
    duration_s: Annotated[float, seconds(10, 43_200)] = Field(alias="duration")
    limit_w: Annotated[float, watts(0)] | None = Field(None, alias="limit")
    shed_w: Annotated[float, watts(1)] | None = Field(None, alias="shed")
    notice_s: Annotated[float, seconds(0, 86_400)] = Field(0.0, alias="notice")

    @model_validator(mode="after")
    def _one_depth(self) -> Drill:
        if (self.limit_w is None) == (self.shed_w is None):
            raise ValueError("a drill has either a limit or a shed")
        return self


class Alarms(Section):
    """`[alarms]`: alarms told outside, by a signed POST to `url` whenever one comes or goes.

    `secret_file` holds the key of the signature. One alarm is told at most once every `every`,
    with its newest state; only those of `severities` are. http outside this machine needs
    `plaintext`; `ca_file` names authorities of your own.
    """

    url: HttpUrl
    secret_file: FilePath
    severities: Annotated[tuple[Severity, ...], Field(min_length=1)] = ("warning", "critical")
    every_s: Annotated[float, seconds(1, 86_400)] = Field(60.0, alias="every")
    deadline_s: Annotated[float, seconds(0.5, 60)] = Field(10.0, alias="deadline")
    ca_file: FilePath | None = None
    plaintext: Switch = False

    @model_validator(mode="after")
    def _encrypted(self) -> Alarms:
        at = urlsplit(self.url)
        if at.scheme == "http" and not self.plaintext and not is_loopback(at.hostname or ""):
            raise ValueError("url is not encrypted; allowed: https://, or plaintext = true")
        return self
