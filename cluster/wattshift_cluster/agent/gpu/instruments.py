"""All that is read of one card again and again, as calls that are prepared once.

Eight cards at 20 Hz are 160 looks a second, so a look must cost some microseconds: arguments and
buffers are made when the card is bound, and one call brings all that changes fast. The rest takes
turns: no look makes more than one call beside that, so a slow card is slow by one call, too.
"""

import ctypes
import struct
from collections.abc import Callable
from functools import partial
from typing import Any

from wattshift_cluster.agent.gpu.library import SUCCESS, FaultKind, Library

ENERGY, AVERAGE, INSTANT = 83, 185, 186
"""Field ids (nvml.h): energy in mJ since the driver's start, watts in mW."""

_HEAD = struct.Struct("=IIqqIi8x")
"""nvmlFieldValue_t: id, scope, time stamp, latency, type of the value, code, value."""

_VALUE = {0: "d", 1: "I4x", 2: "Q", 3: "Q", 4: "q", 5: "i4x", 6: "H6x"}
"""Layout of the value by nvmlValueType_t."""

_USUAL_TYPE = {ENERGY: 3, AVERAGE: 1, INSTANT: 1}
_AVERAGED_FROM = (8, 6)
"""Compute capability from which nvmlDeviceGetPowerUsage is a mean over 1 s: Ampere except GA100
(nvml.h, nvmlDeviceGetPowerUsage)."""

_CLOCK_SM, _SENSOR_GPU, _TEMPERATURE_V1 = 1, 0, 0x100000C

_UTILISATION, _CLOCK, _CELSIUS, _LIMIT, _REASONS = range(5)
_ORDER = (_UTILISATION, _LIMIT, _REASONS, _CELSIUS, -1, _UTILISATION, _CLOCK, -1, -1, -1)
"""Whose turn it is beside the nth look; all had theirs, utilisation twice, after ten."""

TURNS = len(_ORDER)

Slow = tuple[tuple[int, int] | None, int | None, int | None, int | None, int | None]
"""Utilisation and memory utilisation in %, SM clock in MHz, °C, enforced limit in mW, reasons."""

_WITHOUT = (FaultKind.NOT_SUPPORTED, FaultKind.INVALID)
_OF_THE_CARD = frozenset({1, 2, 6, 9, 15, 16, 18, 28})
"""Codes that say of the card, not of one reading, that it cannot be had (`FaultKind`)."""


class Call:
    """One function with its buffer. Calling it returns NVML's code; `value` holds the result."""

    __slots__ = ("_read", "buffer")

    def __init__(
        self, function: Callable[..., int], handle: Any, *before: Any, buffer: Any
    ) -> None:
        """Args: before: arguments between handle and buffer."""
        self.buffer = buffer
        self._read = partial(function, handle, *before, ctypes.byref(buffer))

    def __call__(self) -> int | None:
        """The value now; None where the driver refuses."""
        return self.buffer.value if self._read() == SUCCESS else None

    def code(self) -> int:
        """Read it; NVML's code."""
        return self._read()


class Instruments:
    """The readings of one card; valid for one generation of the library.

    Attributes:
        instant_mw, average_mw, energy_mj: of the last look; None is unknown.
        power_code: why both powers are unknown, NVML's code; 0 when one is known.
        slow: the newest of each slow reading.
    """

    __slots__ = (
        *("_at_average", "_at_energy", "_at_instant", "_averaged", "_buffer", "_energy", "_fields"),
        *("_readers", "_slow", "_unpack", "_usage"),
        *("average_mw", "energy_mj", "instant_mw", "power_code", "slow"),
    )

    def __init__(self, library: Library, uuid: str) -> None:
        """Bind to the card and find out what it offers.

        Raises:
            GpuFault: it is not there now.
        """
        handle = library.handle(uuid)
        capability = library.ask_or_none("nvmlDeviceGetCudaComputeCapability", handle)
        self._averaged = capability is None or tuple(capability) >= _AVERAGED_FROM
        self.instant_mw: int | None = None
        self.average_mw: int | None = None
        self.energy_mj: int | None = None
        self.power_code = SUCCESS
        self._slow: list[Any] = [None] * 5
        self.slow: Any = tuple(self._slow)
        self._usage = _call(library, "nvmlDeviceGetPowerUsage", handle, buffer=ctypes.c_uint())
        self._energy: Call | None = None
        self._bind_fields(library, handle)
        self._bind_slow(library, handle)

    def look(self) -> int:
        """Read power and energy; NVML's code, which says of the card itself whether it is there."""
        energy_mj: int | None = None
        instant_mw: int | None = None
        average_mw: int | None = None
        power_code = SUCCESS
        if self._fields is not None:
            code = self._fields()
            if code != SUCCESS:
                return code
            found = self._unpack(self._buffer)
            at = self._at_energy
            if at >= 0 and found[at] == SUCCESS:
                energy_mj = found[at + 1]
            at = self._at_average
            if at >= 0:
                power_code = found[at]
                average_mw = found[at + 1] if power_code == SUCCESS else None
            at = self._at_instant
            if at >= 0:
                power_code = found[at]
                instant_mw = found[at + 1] if power_code == SUCCESS else None
        if instant_mw is None and average_mw is None and self._usage is not None:
            power_code = self._usage.code()
            if power_code == SUCCESS:
                if self._averaged:
                    average_mw = self._usage.buffer.value
                else:
                    instant_mw = self._usage.buffer.value
            elif power_code in _OF_THE_CARD:
                return power_code
        if self._energy is not None:
            energy_mj = self._energy()
        self.energy_mj, self.instant_mw, self.average_mw = energy_mj, instant_mw, average_mw
        self.power_code = power_code
        return SUCCESS

    def take_turn(self, turn: int) -> None:
        """Read the slow reading whose turn it is, if any."""
        place = _ORDER[turn % TURNS]
        if place >= 0:
            self._slow[place] = self._readers[place]()
            self.slow = tuple(self._slow)

    def _bind_fields(self, library: Library, handle: Any) -> None:
        self._at_energy = self._at_average = self._at_instant = -1
        self._fields: Callable[[], int] | None = None
        function = library.function("nvmlDeviceGetFieldValues")
        kinds = {} if function is None else _offered(library, function, handle)
        if ENERGY not in kinds:
            self._energy = _call(
                library,
                "nvmlDeviceGetTotalEnergyConsumption",
                handle,
                buffer=ctypes.c_ulonglong(),
            )
            if self._energy is not None and self._energy() is None:
                self._energy = None
        places = {field: 2 * place for place, field in enumerate(kinds)}
        self._at_energy = places.get(ENERGY, -1)
        self._at_average = places.get(AVERAGE, -1)
        self._at_instant = places.get(INSTANT, -1)
        self._buffer = _fields_buffer(tuple(kinds))
        self._unpack = struct.Struct(
            "=" + "".join(f"28xi{_VALUE[kind]}" for kind in kinds.values())
        ).unpack_from
        if function is not None and kinds:
            self._fields = partial(
                function, handle, ctypes.c_int(len(kinds)), ctypes.byref(self._buffer)
            )

    def _bind_slow(self, library: Library, handle: Any) -> None:
        def number(name: str, *before: Any, long: bool = False) -> Call | None:
            buffer = ctypes.c_ulonglong() if long else ctypes.c_uint()
            return _call(library, name, handle, *before, buffer=buffer)

        reasons = number("nvmlDeviceGetCurrentClocksEventReasons", long=True) or number(
            "nvmlDeviceGetCurrentClocksThrottleReasons", long=True
        )
        self._readers: tuple[Callable[[], Any], ...] = (
            _activity(library, handle),
            number("nvmlDeviceGetClockInfo", ctypes.c_uint(_CLOCK_SM)) or _nothing,
            _thermometer(library, handle),
            number("nvmlDeviceGetEnforcedPowerLimit") or _nothing,
            reasons or _nothing,
        )


def _nothing() -> None:
    """What a reading says that this driver does not have."""


def _call(library: Library, name: str, handle: Any, *before: Any, buffer: Any) -> Call | None:
    function = library.function(name)
    return None if function is None else Call(function, handle, *before, buffer=buffer)


def _fields_buffer(fields: tuple[int, ...]) -> Any:
    buffer = ctypes.create_string_buffer(max(1, len(fields)) * _HEAD.size)
    for place, field in enumerate(fields):
        _HEAD.pack_into(buffer, place * _HEAD.size, field, 0, 0, 0, 0, 0)
    return buffer


def _offered(library: Library, function: Callable[..., int], handle: Any) -> dict[int, int]:
    """Fields that the card has, with the type of each one's value. Raises: GpuFault."""
    asked = (ENERGY, INSTANT, AVERAGE)
    buffer = _fields_buffer(asked)
    code = function(handle, ctypes.c_int(len(asked)), ctypes.byref(buffer))
    if code != SUCCESS:
        fault = library.explain(code)
        if fault.kind in _WITHOUT:
            return {}
        raise fault
    kinds = {}
    for place, field in enumerate(asked):
        *_, kind, answer = _HEAD.unpack_from(buffer, place * _HEAD.size)
        if answer == SUCCESS:
            kinds[field] = kind if kind in _VALUE else _USUAL_TYPE[field]
        elif library.explain(answer).kind not in _WITHOUT:
            kinds[field] = _USUAL_TYPE[field]  # it has the field and cannot tell it now
    return kinds


def _activity(library: Library, handle: Any) -> Callable[[], tuple[int, int] | None]:
    pair = (ctypes.c_uint * 2)()
    call = _call(library, "nvmlDeviceGetUtilizationRates", handle, buffer=pair)
    if call is None:
        return _nothing
    return lambda: (pair[0], pair[1]) if call.code() == SUCCESS else None


def _thermometer(library: Library, handle: Any) -> Callable[[], int | None]:
    """How the temperature is had: CUDA 14 drops the old function, old drivers lack the new."""
    record = (ctypes.c_uint * 3)(_TEMPERATURE_V1, _SENSOR_GPU, 0)
    new = _call(library, "nvmlDeviceGetTemperatureV", handle, buffer=record)
    if new is not None and new.code() == SUCCESS:
        return lambda: record[2] if new.code() == SUCCESS else None
    old = _call(
        *(library, "nvmlDeviceGetTemperature", handle, ctypes.c_uint(_SENSOR_GPU)),
        buffer=ctypes.c_uint(),
    )
    return old or _nothing
