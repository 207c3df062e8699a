"""`[frequency]` of `agent.toml`: what this host sheds when the grid's frequency falls.

Off unless the section is there, for it names the programme in which the site is enrolled.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from wattshift_cluster.config.fields import (
    FilePath,
    Host,
    Listen,
    Section,
    Switch,
    is_loopback,
    number,
    seconds,
    split_address,
    whole,
)
from wattshift_scheduler.frequency.terms import HIGHEST_PU, LEAST_RATE_HZ, LOWEST_PU, Sensor, Terms

MOST_REGISTERS = 120
"""Between the two values of a meter; one request of Modbus carries 125, and only values of one
request are of one instant."""


class FrequencyFeed(Section):
    """`[frequency.feed]`: a program beside the agent sends lines `HZ [PU [AGE_MS]]`.

    It connects to `socket`, a UNIX socket that the agent makes for its own user, or to `listen`, an
    address of loopback. `rate_hz` is how often it speaks.
    """

    socket: FilePath | None = None
    listen: Listen | None = None
    rate_hz: Annotated[float, number(LEAST_RATE_HZ, 200, " Hz")] = 10.0

    @model_validator(mode="after")
    def _one_door(self) -> Self:
        if (self.socket is None) == (self.listen is None):
            raise ValueError("a feed comes in by socket or by listen, one of them")
        if self.listen is not None and not is_loopback(split_address(self.listen)[0]):
            raise ValueError("listen is not of this machine; allowed: 127.0.0.1:port, [::1]:port")
        return self


class FrequencyRegister(Section):
    """A value of a meter: its address as in the request (the first is 0), its type, its unit.

    `scale` times the register is Hz or V.
    """

    address: Annotated[int, whole(0, 65_535)]
    type: Literal["u16", "i16", "u32", "i32", "f32"] = "f32"
    scale: Annotated[float, number(1e-9, 1e9)] = 1.0

    @property
    def words(self) -> int:
        """Registers that it takes."""
        return 1 if self.type.endswith("16") else 2


class FrequencyMeter(Section):
    """`[frequency.modbus]`: registers of a meter, read `rate_hz` times a second over Modbus TCP.

    The meter must measure as often as it is asked: many refresh a register once a second only.
    `nominal_v` is what its voltage register says at nominal voltage, V.
    """

    address: Host
    port: Annotated[int, whole(1, 65_535)] = 502
    unit: Annotated[int, whole(0, 255)] = 1
    table: Literal["holding", "input"] = "holding"
    word_order: Literal["big", "little"] = "big"
    rate_hz: Annotated[float, number(LEAST_RATE_HZ, 50, " Hz")] = 10.0
    deadline_s: Annotated[float, seconds(0.02, 1)] = Field(0.2, alias="deadline")
    hz: FrequencyRegister
    volts: FrequencyRegister | None = None
    nominal_v: Annotated[float, number(1, 1e6, " V")] | None = None

    @model_validator(mode="after")
    def _one_request(self) -> Self:
        if (self.volts is None) != (self.nominal_v is None):
            raise ValueError("volts and nominal_v go together")
        if self.volts is not None and abs(self.volts.address - self.hz.address) > MOST_REGISTERS:
            raise ValueError(f"hz and volts lie more than {MOST_REGISTERS} registers apart")
        return self


class FrequencyReplay(Section):
    """`[frequency.replay]`: a recorded day instead of a sensor, for trials; told as emulated.

    A CSV file, with .gz packed, of seconds, Hz and per unit in the columns `t_s`, `hz`, `v_pu`.
    """

    file: FilePath
    rate_hz: Annotated[float, number(LEAST_RATE_HZ, 200, " Hz")] = 10.0


class Frequency(Section):
    """`[frequency]`: enrolment, droop, emergency level, return, and the one sensor.

    `programme` names what the site is enrolled in. A frequency `dead_band_hz` below `nominal_hz`
    asks for nothing, one `full_at_hz` below for `most_share` of what may be shed, and one below
    `emergency_hz` for that at once, latched. Each must have lasted for `persist_cycles`. Nothing is
    shed outside of `low_pu` to `high_pu`, which can only be narrowed; `no_voltage` is the owner's
    word that the sensor tells none and that the response goes on without. Load returns when the
    frequency was back for `hold` and a random part of `delay`, over `return`. `accuracy_hz` and
    `window` are the sensor's class, by its maker's word: they limit what is claimed.
    """

    programme: Annotated[str, Field(min_length=1, max_length=120, pattern=r"\S")]
    nominal_hz: Annotated[int, whole(50, 60)]
    dead_band_hz: Annotated[float, number(0.01, 1, " Hz")]
    full_at_hz: Annotated[float, number(0.02, 5, " Hz")]
    emergency_hz: Annotated[float, number(45, 60, " Hz")] | None = None
    hysteresis_hz: Annotated[float, number(0.005, 0.5, " Hz")] = 0.02
    persist_cycles: Annotated[int, whole(2, 60)] = 3
    most_share: Annotated[float, number(0.01, 1)] = 1.0
    hold_s: Annotated[float, seconds(1, 3600)] = Field(10.0, alias="hold")
    delay_s: Annotated[float, seconds(0, 3600)] = Field(60.0, alias="delay")
    return_s: Annotated[float, seconds(1, 7200)] = Field(120.0, alias="return")
    low_pu: Annotated[float, number(LOWEST_PU, 1, " pu")] = LOWEST_PU
    high_pu: Annotated[float, number(1, HIGHEST_PU, " pu")] = HIGHEST_PU
    no_voltage: Switch = False
    stale_s: Annotated[float, seconds(0.5, 10)] = Field(1.0, alias="stale")
    frozen_s: Annotated[float, seconds(5, 3600)] = Field(60.0, alias="frozen")
    accuracy_hz: Annotated[float, number(0.0001, 0.1, " Hz")]
    window_s: Annotated[float, seconds(0.01, 1)] = Field(alias="window")
    feed: FrequencyFeed | None = None
    modbus: FrequencyMeter | None = None
    replay: FrequencyReplay | None = None

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.nominal_hz not in (50, 60):
            raise ValueError("nominal_hz is neither 50 nor 60")
        if self.full_at_hz <= self.dead_band_hz:
            raise ValueError("full_at_hz must be more than dead_band_hz")
        level_hz = self.emergency_hz
        if level_hz is not None and level_hz >= self.nominal_hz - self.dead_band_hz:
            raise ValueError("emergency_hz lies within the dead band")
        if 2 * self.accuracy_hz > self.dead_band_hz:
            raise ValueError("dead_band_hz is less than twice accuracy_hz: noise would be answered")
        if sum(one is not None for one in (self.feed, self.modbus, self.replay)) != 1:
            raise ValueError("one sensor: feed, modbus or replay")
        meter = self.modbus
        if meter is not None and meter.volts is None and not self.no_voltage:
            raise ValueError("modbus tells no voltage; volts, or no_voltage = true, is missing")
        return self

    @property
    def sensor(self) -> Sensor:
        """The class of its sensor."""
        source = self.feed or self.modbus or self.replay
        assert source is not None, "checked above"
        return Sensor(self.accuracy_hz, self.window_s, source.rate_hz)

    def terms(self, host: str) -> Terms:
        """What is offered; the name of the host makes its random delays its own, and repeatable."""
        throw = sha256(f"{self.programme}/{host}".encode()).digest()
        return Terms(
            nominal_hz=float(self.nominal_hz),
            dead_band_hz=self.dead_band_hz,
            full_at_hz=self.full_at_hz,
            emergency_hz=self.emergency_hz,
            hysteresis_hz=self.hysteresis_hz,
            persist_cycles=self.persist_cycles,
            most_share=self.most_share,
            hold_s=self.hold_s,
            delay_s=self.delay_s,
            return_s=self.return_s,
            low_pu=self.low_pu,
            high_pu=self.high_pu,
            needs_voltage=not self.no_voltage,
            stale_s=self.stale_s,
            frozen_s=self.frozen_s,
            accuracy_hz=self.accuracy_hz,
            dice=int.from_bytes(throw[:6], "big") / 2**48,
        )
