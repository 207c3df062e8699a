"""Mining backs off where a card holds its clocks down: inference would start on slow ones.

Halved at once when a card throttles, given back slowly after it has been clear for a while. Pure.
"""

HALVE_EVERY_S = 1.0
CLEAR_S = 10.0
REGAIN_PER_S = 0.05


class BackOff:
    """The share of its intensity that a device may use now.

    Attributes:
        share: 0 to 1.
        reasons: why it is below 1, as the card names them; () when it is not.
    """

    def __init__(self) -> None:
        """All of it."""
        self.share = 1.0
        self.reasons: tuple[str, ...] = ()
        self._halved_s = float("-inf")
        self._bad_s = float("-inf")
        self._seen_s: float | None = None

    def update(self, now_s: float, reasons: tuple[str, ...], *, mining: bool) -> float:
        """The share from now on.

        Args:
            now_s: any clock that never goes back, s.
            reasons: why the card throttles; () when it does not.
            mining: whether it hashed lately: what throttles without mining is not mining's to mend.
        """
        passed_s = 0.0 if self._seen_s is None else now_s - self._seen_s
        self._seen_s = now_s
        if reasons and (mining or self.share < 1.0):
            self._bad_s, self.reasons = now_s, reasons
            if now_s - self._halved_s >= HALVE_EVERY_S:
                self.share, self._halved_s = self.share / 2, now_s
        elif now_s - self._bad_s >= CLEAR_S and self.share < 1.0:
            self.share = min(1.0, self.share + REGAIN_PER_S * passed_s)
            if self.share == 1.0:
                self.reasons = ()
        return self.share
