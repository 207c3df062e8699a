"""`[meter]` of site.toml, and `meter` of a feeder: how a meter is read and what is possible there.

A feeder's may be given as the bare URL of a meter over HTTP.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from wattshift_cluster.config.fields import (
    FilePath,
    HttpUrl,
    Peer,
    Section,
    Switch,
    number,
    seconds,
    watts,
    whole,
)

Topic = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^#+\x00]+$")]
Pointer = Annotated[str, Field(max_length=256, pattern=r"^(/.*)?$")]
QueryText = Annotated[str, Field(min_length=1, max_length=2000)]
Apart = Annotated[float, watts(1)]
Login = Annotated[str, Field(min_length=1, max_length=128)]


class MeterValue(Section):
    """`[meter.watts]`, `[meter.energy]`, `[meter.frequency]`, `[[meter.voltages]]`: one value.

    Modbus has it in `register` (the address in the request; the first is 0) of a `table`, as
    `type`, its registers in `word_order`. MQTT has it on `topic` (none: the meter's) at the JSON
    `pointer` (none: the message is the number). Prometheus gives it for `query`; an expression
    needs `time_query` for the unix time of its samples. What stands there times `scale` is W, Wh,
    Hz or V; `negate` turns its sign.
    """

    register_at: Annotated[int, whole(0, 65_535)] | None = Field(None, alias="register")
    table: Literal["holding", "input"] = "holding"
    encoding: Literal[
        "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"
    ] = Field("float32", alias="type")
    word_order: Literal["big", "little"] = "big"
    topic: Topic | None = None
    pointer: Pointer = ""
    query: QueryText | None = None
    time_query: QueryText | None = None
    scale: Annotated[float, number(1e-9, 1e9)] = 1.0
    negate: Switch = False


class Meter(Section):
    """`[meter]`: the site meter; a reading older than `stale_after_s` is unknown.

    `kind` is how it is spoken to: `http` and `prometheus` at `url`, `modbus` and `mqtt` at
    `address`. A Modbus meter without `watts` is a SunSpec one (`negate` turns its sign, `base` is
    where it begins if not at a usual place), else `watts`, `energy`, `frequency` and `voltages`
    tell where its values stand; so they do for MQTT (`topic`, `time_pointer`) and Prometheus.
    `password_file` and `bearer_file` may be read by their owner alone; unencrypted they leave this
    machine only with `plaintext`.

    `exports`: power may flow out. `frozen_after` is how long it may stand still after devices have
    moved. It disagrees with the devices where both are apart by more than `disagree_pct` and
    `disagree`, for `disagree_after`.
    """

    kind: Literal["http", "modbus", "mqtt", "prometheus"] = "http"
    url: HttpUrl | None = None
    address: Peer | None = None
    unit: Annotated[int, whole(0, 255)] = 1
    base: Annotated[int, whole(0, 65_533)] | None = None
    negate: Switch = False
    topic: Topic | None = None
    time_pointer: Pointer | None = None
    username: Login | None = None
    password_file: FilePath | None = None
    bearer_file: FilePath | None = None
    tls: Switch = False
    ca_file: FilePath | None = None
    plaintext: Switch = False
    watts: MeterValue | None = None
    energy: MeterValue | None = None
    frequency: MeterValue | None = None
    voltages: Annotated[tuple[MeterValue, ...], Field(max_length=3)] = ()
    quality: Literal["measured", "emulated", "modelled"] = "measured"
    stale_after_s: Annotated[float, seconds(0.2, 3600)] = Field(3.0, alias="stale_after")
    deadline_s: Annotated[float, seconds(0.1, 60)] = Field(1.0, alias="deadline")
    exports: Switch = False
    frozen_after_s: Annotated[float, seconds(5, 3600)] = Field(30.0, alias="frozen_after")
    disagree_pct: Annotated[float, number(1, 100, "%")] = 10.0
    disagree_w: Apart = Field(500.0, alias="disagree")
    disagree_after_s: Annotated[float, seconds(5, 3600)] = Field(60.0, alias="disagree_after")

    @model_validator(mode="before")
    @classmethod
    def _bare_url(cls, written: object) -> object:
        return {"url": written} if isinstance(written, str) else written

    def values(self) -> dict[str, MeterValue]:
        """The values that are named, by key."""
        named = {"watts": self.watts, "energy": self.energy, "frequency": self.frequency}
        named |= {f"voltages[{at}]": one for at, one in enumerate(self.voltages)}
        return {key: one for key, one in named.items() if one is not None}
