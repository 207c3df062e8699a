"""The table of algorithms: what each hashes, how that is checked, and who can search it.

Each has a room of its own, whose module `algorithm` holds its record as ALGORITHM. A room is loaded
when it is first asked for, so a worker carries the one that it hashes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module

from wattshift_kernels.hasher import Hasher, Range, Work

Maker = Callable[[], Hasher]
"""Makes a hasher; raises whatever it likes where it cannot run."""

TRIAL_NONCES = 4_000


@dataclass(frozen=True, slots=True)
class Known:
    """A search whose outcome is known from elsewhere: a published block or vector.

    Attributes:
        name: for the report of one who gets it wrong.
        work, nonces: what is searched.
        hits: all that are there to find, as (nonce, roll), by nonce.
    """

    name: str
    work: Work
    nonces: Range
    hits: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Algorithm:
    """One proof of work.

    Attributes:
        name: as it is written in files and on the wire.
        digest: (work, nonce, roll) to the final hash, by an implementation that no kernel shares.
        value: a digest as the integer that is held against the target.
        known: published vectors, for the self-test; built when asked for. Where a table is read,
            all works of the self-test read the smallest, since it is built before there is a lease.
        makers: (backend, maker), fastest first; "cpu" stands for the best of several on the CPU.
        proof: (work, nonce) to what a share carries beside the nonce; None where it is nothing.
        check: (work, nonce) to whether the hash is good for this work beside its target; None
            where the target is all.
        trial: a number to a work made up from it, for the self-test; its target lets about one
            nonce in 250 through. Works of equal numbers are equal.
        trials: how many there are with different features; they repeat with other bytes.
        trial_nonces: of a trial that `digest` can be asked about within a second or so.
    """

    name: str
    digest: Callable[[Work, int, int], bytes]
    value: Callable[[bytes], int]
    known: Callable[[], Sequence[Known]]
    makers: Sequence[tuple[str, Maker]]
    proof: Callable[[Work, int], bytes] | None = None
    check: Callable[[Work, int], bool] | None = None
    trial: Callable[[int], Work] | None = None
    trials: int = 2
    trial_nonces: int = TRIAL_NONCES


ROOMS = ("sha256d", "autolykos2", "etchash", "kheavyhash", "blake3")


class _Table(Mapping[str, Algorithm]):
    def __getitem__(self, name: str) -> Algorithm:
        if name not in ROOMS:
            raise KeyError(name)
        found: Algorithm = import_module(f"wattshift_kernels.{name}.algorithm").ALGORITHM
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(ROOMS)

    def __len__(self) -> int:
        return len(ROOMS)


ALGORITHMS: Mapping[str, Algorithm] = _Table()


def by_name(name: str) -> Algorithm:
    """The record of an algorithm. Raises ValueError, which names those that are known."""
    if name not in ROOMS:
        raise ValueError(f"algorithm {name!r} is not one of {', '.join(ROOMS)}")
    return ALGORITHMS[name]
