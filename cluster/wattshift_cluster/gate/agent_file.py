"""The agent's file of a gate: what the device may do, and until when.

    word 3  sequence, odd while the words below are being written
    word 4  epoch of the lease                word 5  leased power, mW
    word 6  expiry on the boot clock, ns      word 7  intensity while no client is busy, %
    word 8  intensity while one is busy, %    word 9  stop: anything but 0 closes the gate
    word 10, 11  the GPU's UUID, 0: unknown or no GPU      word 12  its index + 1, 0: unknown

The sequence is a seqlock: a reader that meets an odd or changed one reads again, so it never joins
the expiry of one lease with the intensity of another.
"""

from dataclasses import dataclass
from pathlib import Path

from wattshift_cluster.errors import Refused
from wattshift_cluster.gate.devices import UNKNOWN, Identity, uuid_bits
from wattshift_cluster.gate.layout import HEADER_WORDS, GateInvalid, MappedWords, try_lock

MAGIC = b"WSHGATE\0"
WORDS = 16
SUFFIX = ".gate"

_SEQUENCE = HEADER_WORDS
_FIRST, _END = HEADER_WORDS + 1, HEADER_WORDS + 10
_IDENTITY = HEADER_WORDS + 7
_WORD_MASK = (1 << 64) - 1
_READ_ATTEMPTS = 16


@dataclass(frozen=True, slots=True)
class GateState:
    """One consistent reading of the agent's file."""

    epoch: int
    leased_w: float
    expires_boot_ns: int
    intensity_idle_pct: int
    intensity_busy_pct: int
    stop: bool

    def duty_pct(self, now_ns: int, *, busy: bool) -> int:
        """Share of time in which the worker may launch, %; 0 when stopped or expired."""
        if self.stop or now_ns >= self.expires_boot_ns:
            return 0
        duty_pct = self.intensity_busy_pct if busy else self.intensity_idle_pct
        return duty_pct if 0 <= duty_pct <= 100 else 0


class AgentGate:
    """The writing end; one per device and agent."""

    def __init__(self, path: Path) -> None:
        """Create or take over the file, stopped.

        Raises:
            Refused: another agent writes this gate.
            GateInvalid: the file cannot be created.
        """
        self.path = Path(path)
        self._file = MappedWords.create(self.path, WORDS, mode=0o644)
        if not try_lock(self._file.fd, 0):
            self._file.close()
            raise Refused(f"another agent writes {self.path}")
        self._closed = False
        self._file.words[_SEQUENCE] &= ~1  # a predecessor may have died while writing
        self.close_gate()
        self.identify(None, None)
        self._file.write_header(MAGIC)

    def identify(self, uuid: str | None, index: int | None) -> None:
        """Say which GPU this is, so that only its own users join; unknown means everybody joins.

        Args:
            uuid: as NVML names it, `GPU-` or `MIG-` and 32 hexadecimal digits; another form counts
                as unknown.
            index: NVML's, in PCI order.
        """
        bits = uuid_bits(uuid)
        words = self._file.words
        words[_SEQUENCE] += 1
        words[_IDENTITY] = bits >> 64
        words[_IDENTITY + 1] = bits & _WORD_MASK
        words[_IDENTITY + 2] = 0 if index is None else index + 1
        words[_SEQUENCE] += 1

    def write(
        self,
        *,
        epoch: int,
        leased_w: float,
        expires_boot_ns: int,
        intensity_idle_pct: int,
        intensity_busy_pct: int = 0,
        stop: bool = False,
    ) -> None:
        """Say what the worker may do from now on, in force with its next launch.

        Args:
            epoch: of the lease.
            leased_w: watts of the lease, W.
            expires_boot_ns: end of the lease on the boot clock, ns.
            intensity_idle_pct, intensity_busy_pct: 0 to 100, without and with busy clients.
            stop: close the gate whatever the rest says.
        """
        for pct in (intensity_idle_pct, intensity_busy_pct):
            assert 0 <= pct <= 100, "an intensity is a percentage"
        words = self._file.words
        words[_SEQUENCE] += 1
        words[_FIRST] = epoch
        words[_FIRST + 1] = max(0, round(leased_w * 1000))
        words[_FIRST + 2] = max(0, expires_boot_ns)
        words[_FIRST + 3] = intensity_idle_pct
        words[_FIRST + 4] = intensity_busy_pct
        words[_FIRST + 5] = int(stop)
        words[_SEQUENCE] += 1

    def close_gate(self) -> None:
        """Stop the worker; the gate's safe point."""
        self.write(epoch=0, leased_w=0.0, expires_boot_ns=0, intensity_idle_pct=0, stop=True)

    def close(self) -> None:
        """Stop the worker and let go of the file, which stays for the next agent; repeatable."""
        if not self._closed:
            self._closed = True
            self.close_gate()
            self._file.close()


class GateReader:
    """The reading end of the agent's file."""

    def __init__(self, path: Path) -> None:
        """Map the file. Raises: GateInvalid when it is missing or short."""
        self._file = MappedWords.open(Path(path), WORDS, writable=False)

    def read(self) -> GateState:
        """A consistent state.

        Raises:
            GateInvalid: another version or boot, or the writer died while writing.
        """
        epoch, leased_mw, expires_ns, idle_pct, busy_pct, stop, *_ = self._consistent()
        return GateState(epoch, leased_mw / 1000, expires_ns, idle_pct, busy_pct, stop != 0)

    def identity(self) -> Identity:
        """Which GPU it is. Raises: GateInvalid, as `read`."""
        high, low, number = self._consistent()[_IDENTITY - _FIRST :]
        return Identity((high << 64 | low) or None, number - 1 if number else None)

    def _consistent(self) -> list[int]:
        if not self._file.has_header(MAGIC):
            raise GateInvalid(f"{self._file.path} is no gate of this version and boot")
        words = self._file.words
        for _ in range(_READ_ATTEMPTS):
            before = words[_SEQUENCE]
            fields = words[_FIRST:_END].tolist()
            if before % 2 == 0 and words[_SEQUENCE] == before:
                return fields
        raise GateInvalid(f"{self._file.path} is being written and never gets ready")

    def close(self) -> None:
        """Unmap."""
        self._file.close()


def read_gate(path: Path) -> GateState:
    """One look at a gate, for a report. Raises: GateInvalid."""
    reader = GateReader(path)
    try:
        return reader.read()
    finally:
        reader.close()


def read_identity(path: Path) -> Identity:
    """Which GPU a gate is, by any of its files; one that cannot be read might be any: unknown."""
    try:
        reader = GateReader(path.with_suffix(SUFFIX))
    except GateInvalid:
        return UNKNOWN
    try:
        return reader.identity()
    except GateInvalid:
        return UNKNOWN
    finally:
        reader.close()
