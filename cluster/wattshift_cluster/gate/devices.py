"""Which gates a process joins: those of the GPUs it can use, of its gang, and of no known GPU.

A list of devices is written as CUDA_VISIBLE_DEVICES is (CUDA C++ Programming Guide, "CUDA
Environment Variables"): indices, `GPU-…` UUIDs in full or shortened, `MIG-…` UUIDs; `-1` ends the
list. Whatever cannot be understood means every gate: mining then yields too much, never too little.
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

VISIBLE_VARIABLE = "CUDA_VISIBLE_DEVICES"
ORDER_VARIABLE = "CUDA_DEVICE_ORDER"
CONTAINER_VARIABLE = "NVIDIA_VISIBLE_DEVICES"
GANG_VARIABLE = "WATTSHIFT_GANG"
ALL = "all"

CARDS_DIR = Path("/proc/driver/nvidia/gpus")
"""The driver's own list: one folder per card, named by its PCI address."""

_UUID = re.compile(r"(?:GPU|MIG|MIG-GPU)-([0-9a-f-]{1,36})(?:/\d+/\d+)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Identity:
    """What a gate says of its device; None is unknown, as of a CPU."""

    uuid: int | None
    index: int | None


UNKNOWN = Identity(None, None)


@dataclass(frozen=True, slots=True)
class Card:
    """A card in the driver's list."""

    model: str
    uuid: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a process uses.

    Attributes:
        everything: join every gate.
        prefixes: beginnings of UUIDs, 32 hexadecimal digits at most.
        slices: UUIDs of MIG slices, whose card is not known unless a gate is the slice's own.
        indices: NVML's, where the driver's list does not tell the UUID.
        words: names of gates.
        doubt: what was not understood; None when all was.
    """

    everything: bool = False
    prefixes: frozenset[str] = frozenset()
    slices: frozenset[str] = frozenset()
    indices: frozenset[int] = frozenset()
    words: frozenset[str] = frozenset()
    doubt: str | None = None

    def __or__(self, other: "Wanted") -> "Wanted":
        return Wanted(
            self.everything or other.everything,
            self.prefixes | other.prefixes,
            self.slices | other.slices,
            self.indices | other.indices,
            self.words | other.words,
            self.doubt or other.doubt,
        )

    def of(self, gates: Mapping[str, Identity]) -> frozenset[str]:
        """The names of those gates that are to be joined."""
        digits = {name: f"{one.uuid:032x}" for name, one in gates.items() if one.uuid is not None}
        if self.everything or not self.slices <= set(digits.values()):
            return frozenset(gates)
        begins = (*self.prefixes, *self.slices)
        return frozenset(
            name
            for name, one in gates.items()
            if name in self.words
            or name not in digits
            or digits[name].startswith(begins)
            or one.index in self.indices
        )


EVERYTHING = Wanted(everything=True)


def uuid_bits(uuid: str | None) -> int:
    """The 128 bits of `GPU-…` or `MIG-…`; 0 when there is none or it has another form."""
    found = _UUID.fullmatch(uuid) if uuid else None
    digits = found.group(1).replace("-", "") if found else ""
    return int(digits, 16) if len(digits) == 32 else 0


def wanted(
    devices: str | Sequence[str | int] | None = None,
    environ: Mapping[str, str] = os.environ,
    cards: Sequence[Card] | None = None,
) -> Wanted:
    """What a process with these variables uses.

    Args:
        devices: instead of CUDA_VISIBLE_DEVICES; may also hold names of gates, or "all".
        environ: variables of the process. WATTSHIFT_GANG adds the members of its gang; in a
            container NVIDIA_VISIBLE_DEVICES tells its cards if it lists nothing but UUIDs.
        cards: the driver's list in PCI order; None to read it.
    """
    cards = driver_cards() if cards is None else cards
    own = environ.get(VISIBLE_VARIABLE) if devices is None else devices
    if own is None:
        found = _container(environ) or EVERYTHING
    else:
        found = _listed(_entries(own), environ, cards, names=devices is not None)
    gang = environ.get(GANG_VARIABLE)
    if gang:
        found |= _listed(_entries(gang), environ, cards, names=True)
    return found


def driver_cards(folder: Path = CARDS_DIR) -> tuple[Card, ...]:
    """The cards that the driver shows to this process, in PCI order; none where it is silent."""
    found = []
    try:
        for place in sorted(folder.iterdir()):
            text = (place / "information").read_text(encoding="utf-8", errors="replace")
            fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
            found.append(Card(fields["Model"].strip(), fields["GPU UUID"].strip()))
    except (OSError, KeyError):
        return ()
    return tuple(found) if all(uuid_bits(card.uuid) for card in found) else ()


def _entries(devices: str | Sequence[str | int]) -> list[str]:
    parts = devices.split(",") if isinstance(devices, str) else [str(one) for one in devices]
    return [part.strip() for part in parts if part.strip()]


def _container(environ: Mapping[str, str]) -> Wanted | None:
    entries = _entries(environ.get(CONTAINER_VARIABLE, ""))
    if not entries or not all(_UUID.fullmatch(one) for one in entries):
        return None
    return _listed(entries, environ, (), names=False)


def _listed(
    entries: Iterable[str], environ: Mapping[str, str], cards: Sequence[Card], *, names: bool
) -> Wanted:
    found = Wanted()
    for entry in entries:
        if entry == "-1":
            break
        if entry.isascii() and entry.isdecimal():
            found |= _indexed(int(entry), environ, cards)
        elif match := _UUID.fullmatch(entry):
            digits = match.group(1).replace("-", "").lower()
            sliced = entry.upper().startswith("MIG-") and "/" not in entry
            ours = frozenset((digits,))
            found |= Wanted(slices=ours) if sliced else Wanted(prefixes=ours)
        elif names and entry.lower() == ALL:
            found |= EVERYTHING
        elif names:
            found |= Wanted(words=frozenset((entry,)))
        else:
            found |= Wanted(everything=True, doubt=f"{entry!r} names no device")
    return found


def _indexed(index: int, environ: Mapping[str, str], cards: Sequence[Card]) -> Wanted:
    """An index counts the cards that this process sees, and CUDA's order is not NVML's."""
    by_pci = environ.get(ORDER_VARIABLE) == "PCI_BUS_ID"
    if not by_pci and len({card.model for card in cards}) > 1:
        text = f"index {index}: cards of several kinds are in an order of CUDA's own"
        return Wanted(everything=True, doubt=f"{text}; set {ORDER_VARIABLE}=PCI_BUS_ID")
    if index < len(cards):
        return Wanted(prefixes=frozenset((f"{uuid_bits(cards[index].uuid):032x}",)))
    return _container(environ) or Wanted(indices=frozenset((index,)))
