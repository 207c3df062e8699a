"""Which address claims which hardware address: two that claim one are a doubt about both."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

MOST_CLAIMED = 4096
"""Hardware addresses that are remembered of machines that are none of ours."""


@dataclass(frozen=True, slots=True)
class _Claim:
    address: str
    until_s: float


class Claims:
    """What our machines tell of themselves while they answer, and what was heard elsewhere.

    Hardware addresses are in upper case. What was heard counts for a while; what a machine of ours
    tells counts until it is withdrawn.
    """

    def __init__(self, heard_s: float) -> None:
        """Args: heard_s: how long what was heard counts, s."""
        self._heard_s = heard_s
        self._claims: dict[str, dict[str, _Claim]] = {}
        self._ours: dict[str, str] = {}

    def claim(self, device: str, mac: str, address: str) -> None:
        """A machine of ours has told its hardware address at this address."""
        if self._ours.get(device) != mac:
            self.withdraw(device)
        self._ours[device] = mac
        self._claims.setdefault(mac, {})[device] = _Claim(address, math.inf)

    def withdraw(self, device: str) -> None:
        """It answers no more, or as another."""
        mac = self._ours.pop(device, None)
        if mac is not None:
            self._drop(mac, device)

    def heard(self, mac: str, address: str, now_s: float) -> None:
        """Whatever answers at this address has told that hardware address."""
        if mac not in self._claims and len(self._claims) >= MOST_CLAIMED:
            self._tidy(now_s)
            if len(self._claims) >= MOST_CLAIMED:
                return
        claims = self._claims.setdefault(mac, {})
        if all(one.address != address for name, one in claims.items() if name in self._ours):
            claims[_elsewhere(address)] = _Claim(address, now_s + self._heard_s)

    def unheard(self, mac: str, address: str) -> None:
        """It was asked again and tells it no more, or a machine of ours is known to be there."""
        self._drop(mac, _elsewhere(address))

    def at(self, mac: str, now_s: float) -> tuple[str, ...]:
        """Where this hardware address was heard of, beside what our own machines tell."""
        return tuple(
            one.address
            for name, one in self._claims.get(mac, {}).items()
            if name not in self._ours and now_s < one.until_s
        )

    def rivals(self, mac: str, address: str, now_s: float) -> tuple[str, ...]:
        """Other addresses that claim this hardware address."""
        claims = self._claims.get(mac)
        if claims is None or len(claims) < 2:
            return ()
        valid = (one.address for one in claims.values() if now_s < one.until_s)
        return tuple(dict.fromkeys(one for one in valid if one != address))

    def owner(self, mac: str) -> str | None:
        """The machine of ours that tells it now."""
        return next(self._owners(mac), None)

    def _owners(self, mac: str) -> Iterator[str]:
        return (name for name in self._claims.get(mac, {}) if name in self._ours)

    def _tidy(self, now_s: float) -> None:
        for mac, claims in list(self._claims.items()):
            for name, one in list(claims.items()):
                if now_s >= one.until_s:
                    self._drop(mac, name)

    def _drop(self, mac: str, claimant: str) -> None:
        claims = self._claims.get(mac, {})
        claims.pop(claimant, None)
        if not claims:
            self._claims.pop(mac, None)


def _elsewhere(address: str) -> str:
    """A claimant that is none of ours; no device has a blank in its name."""
    return f"at {address}"
