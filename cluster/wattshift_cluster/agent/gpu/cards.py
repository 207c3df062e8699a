"""The GPUs of this host: what is known of each before anything is sampled."""

from dataclasses import dataclass
from typing import Any

import structlog

from wattshift_cluster.agent.gpu.library import GpuFault, Library

log = structlog.get_logger()

IDLE_SHARE = 0.2
"""Idle draw as a share of the limit, where it cannot be read; modelled."""

MOST_IDLE_SHARE = 0.3
"""A card that was found at work shows no idle draw; this much of its limit bounds what is taken."""

MOST_SLICES = 16


@dataclass(frozen=True, slots=True)
class Card:
    """One GPU of this host.

    Attributes:
        index, uuid, name, driver: as NVML names them.
        limit_w: enforced power limit when it was found, W.
        limit_least_w, limit_most_w: range that may be set, W; None is unknown.
        limit_default_w: limit after a start of the driver, W; None is unknown.
        idle_w: draw when it was found, at most 30 % of the limit, W.
        mig: names of its slices; () when it is not cut up, or cut up with no slice made yet.
        compute_mode: nvmlComputeMode_t: 0 any process, 2 none, 3 one alone; None is unknown.
        pci: bus address in the driver's form; None is unknown.
    """

    index: int
    uuid: str
    name: str
    driver: str
    limit_w: float
    idle_w: float
    limit_least_w: float | None = None
    limit_most_w: float | None = None
    limit_default_w: float | None = None
    mig: tuple[str, ...] = ()
    compute_mode: int | None = None
    pci: str | None = None


def find_cards(library: Library) -> tuple[Card, ...]:
    """The GPUs of this host that have a power limit; empty without library, driver or GPU.

    A lost card that the driver still counts is skipped, with a warning.
    """
    try:
        library.open()
        driver = _text(library.ask("nvmlSystemGetDriverVersion"))
        count = int(library.ask("nvmlDeviceGetCount"))
    except GpuFault as fault:
        log.info("gpu.none", reason=str(fault))
        return ()
    found = (_find(library, index, driver) for index in range(count))
    return tuple(card for card in found if card is not None)


def _find(library: Library, index: int, driver: str) -> Card | None:
    try:
        handle = library.ask("nvmlDeviceGetHandleByIndex", index)
        uuid = _text(library.ask("nvmlDeviceGetUUID", handle))
        name = _text(library.ask("nvmlDeviceGetName", handle))
    except GpuFault as fault:
        log.warning("gpu.unreadable", index=index, reason=str(fault))
        return None
    limit_w = _watts(library.ask_or_none("nvmlDeviceGetEnforcedPowerLimit", handle))
    if not limit_w:
        log.warning("gpu.no_limit", index=index, reason="without a limit its draw has no bound")
        return None
    draw_w = _watts(library.ask_or_none("nvmlDeviceGetPowerUsage", handle))
    span = library.ask_or_none("nvmlDeviceGetPowerManagementLimitConstraints", handle)
    least_w, most_w = (None, None) if span is None else (_watts(span[0]), _watts(span[1]))
    mode = library.ask_or_none("nvmlDeviceGetComputeMode", handle)
    pci = library.ask_or_none("nvmlDeviceGetPciInfo", handle)
    return Card(
        index=index,
        uuid=uuid,
        name=name,
        driver=driver,
        limit_w=limit_w,
        idle_w=IDLE_SHARE * limit_w if draw_w is None else min(draw_w, MOST_IDLE_SHARE * limit_w),
        limit_least_w=least_w,
        limit_most_w=most_w,
        limit_default_w=_watts(
            library.ask_or_none("nvmlDeviceGetPowerManagementDefaultLimit", handle)
        ),
        mig=_slices(library, handle),
        compute_mode=None if mode is None else int(mode),
        pci=None if pci is None else _text(pci.busId),
    )


def _slices(library: Library, handle: Any) -> tuple[str, ...]:
    mode = library.ask_or_none("nvmlDeviceGetMigMode", handle)
    if mode is None or mode[0] == 0:
        return ()
    most = library.ask_or_none("nvmlDeviceGetMaxMigDeviceCount", handle) or 0
    names = []
    for place in range(min(int(most), MOST_SLICES)):
        slice_handle = library.ask_or_none("nvmlDeviceGetMigDeviceHandleByIndex", handle, place)
        if slice_handle is not None:  # places are sparse
            name = library.ask_or_none("nvmlDeviceGetUUID", slice_handle)
            if name is not None:
                names.append(_text(name))
    return tuple(names)


def _watts(milliwatts: Any) -> float | None:
    return None if milliwatts is None else float(milliwatts) / 1000


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
