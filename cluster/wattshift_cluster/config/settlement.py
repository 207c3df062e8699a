"""`[settlement]` of site.toml: what was agreed for the programs' events, and for hosted machines.

These terms are also written into the evidence log, so that a settlement rests on the log alone.
"""

from __future__ import annotations

import tomllib
from datetime import UTC, date, tzinfo
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field, ValidationError, model_validator

from wattshift_cluster.config.fields import Glob, Name, Section, Switch, number, seconds, watts
from wattshift_cluster.errors import ConfigInvalid, Fault, NotFound

PROGRAMS_MOST = 100
HOSTED_MOST = 1_000
DEVICES_MOST = 10_000
HOLIDAYS_MOST = 1_000
TERMS_BYTES_MOST = 1 << 20

HOUR_S = 3600.0


def _zone(value: str) -> str:
    zone_of(value)
    return value


def zone_of(name: str) -> tzinfo:
    """The time zone of an IANA name. Raises: ValueError."""
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        raise ValueError("unknown time zone; allowed: a name such as America/Chicago") from None


Label = Annotated[str, Field(min_length=1, max_length=128)]
Zone = Annotated[str, Field(max_length=64), AfterValidator(_zone)]


class SettledProgram(Section):
    """`[[settlement.programs]]`: how the events of one program are measured and paid.

    `method` is the baseline: the firm service level `fsl`; the meter's mean over `window` that ends
    `lead` before the start; the mean of ten days adjusted by a factor; the higher five of ten days
    adjusted by watts. `commitment` holds for events that name none. `price` is per MWh, in
    `currency`. Rule `linear` pays what was reduced, up to the commitment; `dfs` pays the commitment
    times NESO's factor K. An event is void where the site drew, between notice and start, more than
    its plan before the notice by 2 % and `void_above`.
    """

    name: Label
    method: Literal["fsl", "before_after", "high_10_of_10", "high_5_of_10"]
    interval_s: Annotated[float, seconds(60, HOUR_S)] = Field(300.0, alias="interval")
    commitment_w: Annotated[float, watts(1)] | None = Field(None, alias="commitment")
    price_per_mwh: Annotated[float, number(-1e6, 1e6)] = Field(alias="price")
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] = "USD"
    rule: Literal["linear", "dfs"] = "linear"
    fsl_w: Annotated[float, watts(0)] | None = Field(None, alias="fsl")
    window_s: Annotated[float, seconds(60, 86_400)] = Field(900.0, alias="window")
    lead_s: Annotated[float, seconds(0, 86_400)] = Field(0.0, alias="lead")
    void_above_w: Annotated[float, watts(0)] = Field(0.0, alias="void_above")

    @model_validator(mode="after")
    def _whole(self) -> SettledProgram:
        if HOUR_S % self.interval_s:
            raise ValueError("interval must divide an hour, such as 5m, 15m or 30m")
        if self.method == "before_after" and self.window_s % self.interval_s:
            raise ValueError("window must be a whole number of intervals")
        if self.method == "fsl" and self.fsl_w is None:
            raise ValueError("method fsl needs fsl")
        return self


class Hosted(Section):
    """`[[settlement.hosted]]`: machines of a tenant, and the overhead that its contract lets pass.

    The tenant bears its share of what the site meter shows beyond all devices, up to `overhead_pct`
    of its own energy. With `credited` it gets its share of what events pay.
    """

    tenant: Name
    devices: Annotated[tuple[Glob, ...], Field(min_length=1, max_length=DEVICES_MOST)]
    overhead_pct: Annotated[float, number(0, 100, "%")] = 0.0
    credited: Switch = True


class Settlement(Section):
    """`[settlement]`: the resource's name at the programs, its zone, and how its meter is read.

    `zone` is that of the programs' calendar, in which days are compared; `holidays` count as
    weekends. Samples further apart than `meter_gap` leave the time between them unknown; more than
    `meter_most` or a step of more than `meter_jump` is flagged as a fault of the meter.
    `generates` says that the meter may truly show negative watts.
    """

    resource: Label = "site"
    zone: Zone = "UTC"
    holidays: Annotated[tuple[date, ...], Field(max_length=HOLIDAYS_MOST)] = ()
    meter_gap_s: Annotated[float, seconds(1, 900)] = Field(60.0, alias="meter_gap")
    meter_most_w: Annotated[float, watts(1)] | None = Field(None, alias="meter_most")
    meter_jump_w: Annotated[float, watts(1)] | None = Field(None, alias="meter_jump")
    generates: Switch = False
    programs: Annotated[tuple[SettledProgram, ...], Field(max_length=PROGRAMS_MOST)] = ()
    hosted: Annotated[tuple[Hosted, ...], Field(max_length=HOSTED_MOST)] = ()

    @model_validator(mode="after")
    def _named_once(self) -> Settlement:
        for kind, names in (
            ("programs", [one.name for one in self.programs]),
            ("hosted", [one.tenant for one in self.hosted]),
        ):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"{kind} named twice: {', '.join(twice)}")
        return self

    def program(self, name: str) -> SettledProgram | None:
        """The terms of one program; None where none were agreed."""
        return next((one for one in self.programs if one.name == name), None)


def settlement_at(path: Path) -> Settlement:
    """The `[settlement]` of a TOML file, whatever else is in it.

    Raises: NotFound: no such file, or none in it. ConfigInvalid: every fault of it.
    """
    try:
        with path.open("rb") as file:
            body = tomllib.loads(file.read(TERMS_BYTES_MOST).decode())
    except OSError as fault:
        raise NotFound(f"{path}: {fault.strerror}") from None
    except (ValueError, RecursionError) as fault:
        raise ConfigInvalid([Fault(str(path), "", None, f"not TOML: {fault}")]) from None
    if "settlement" not in body:
        raise NotFound(f"{path}: it holds no [settlement]")
    try:
        return Settlement.model_validate(body["settlement"])
    except ValidationError as wrong:
        raise ConfigInvalid([_fault(path, one) for one in wrong.errors()]) from None


def _fault(path: Path, error: object) -> Fault:
    assert isinstance(error, dict), "pydantic lists its errors as mappings"
    where = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in error["loc"])
    return Fault(str(path), f"settlement{where}", None, str(error["msg"]))
