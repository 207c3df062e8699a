"""Which of several pools to mine for: the owner's order, and how each has behaved. Pure.

A pool that was given up must be well for a while before it is trusted again, so that one that comes
and goes does not take the hash rate with it. Time is the caller's, s.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for what, s.

    Attributes:
        give_up_s: a pool that cannot be had so long is given up, and the next one is tried.
        return_after_s: one that was given up is trusted again after being well so long.
        boundary_s: a switch between two pools that are well waits so long for a new job.
        linger_s: a pool that was left may answer its last shares so long.
    """

    give_up_s: float = 30.0
    return_after_s: float = 300.0
    boundary_s: float = 60.0
    linger_s: float = 15.0


@dataclass(slots=True)
class Standing:
    """How one pool has behaved.

    Attributes:
        up_since_s: since when it has had work for us; None while it has none.
        ill_since_s: since when it has not shown that it works; None while it works.
        trusted: False once it was given up, until it has been well for long enough.
    """

    up_since_s: float | None = None
    ill_since_s: float | None = None
    trusted: bool = True

    @property
    def up(self) -> bool:
        """Whether it has work for us."""
        return self.up_since_s is not None

    def look(
        self, now_s: float, patience: Patience, *, up: bool, sound: bool, refused: bool
    ) -> None:
        """Take in what is seen now.

        Args:
            up: it has given us a job.
            sound: its session has lasted, or had a share accepted.
            refused: it does not want us.
        """
        if not up:
            self.up_since_s = None
            self.ill_since_s = now_s if self.ill_since_s is None else self.ill_since_s
            if refused or now_s - self.ill_since_s >= patience.give_up_s:
                self.trusted = False
            return
        self.up_since_s = now_s if self.up_since_s is None else self.up_since_s
        if sound:
            self.ill_since_s = None
        if not self.trusted and now_s - self.up_since_s >= patience.return_after_s:
            self.trusted, self.ill_since_s = True, None


def choose(pools: Sequence[Standing], active: int | None) -> int | None:
    """The pool to mine for; None where none has work.

    The one we mine for is left for another only when it is lost, or for one before it in the
    owner's order that is trusted.
    """
    up = [index for index, pool in enumerate(pools) if pool.up]
    trusted = [index for index in up if pools[index].trusted]
    if active is not None and active in up:
        return next((index for index in trusted if index < active), active)
    return next(iter(trusted or up), None)


def needed(pools: Sequence[Standing], active: int | None) -> frozenset[int]:
    """The pools to hold a session with: all down to the first that is trusted, and the active."""
    last = next((i for i, pool in enumerate(pools) if pool.trusted), len(pools) - 1)
    return frozenset(range(last + 1)) | ({active} if active is not None else frozenset())
