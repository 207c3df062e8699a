"""When a peak counts: months of a season, hours of a day by the clock on a wall, working days."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

DAYS_MOST = 400
"""Of one question; nobody asks for more than a billing year."""

WORKING = frozenset(range(5))


@dataclass(frozen=True, slots=True)
class Season:
    """Rules of a tariff; days have 23, 24 or 25 hours.

    Attributes:
        months: 1 to 12; a peak counts in these.
        zone: of the tariff's calendar.
        hours: first hour and hour of the end, 0 to 24; a peak counts from the one to the other.
        working_days: whether only Mondays to Fridays count.
    """

    months: frozenset[int] = frozenset(range(1, 13))
    zone: tzinfo = UTC
    hours: tuple[int, int] = (0, 24)
    working_days: bool = False

    def period(self, at_s: float) -> int:
        """Number of the month at `at_s`: twelve of them are a year."""
        local = datetime.fromtimestamp(at_s, self.zone)
        return local.year * 12 + local.month - 1

    def day(self, at_s: float) -> int:
        """Number of the day at `at_s`."""
        return datetime.fromtimestamp(at_s, self.zone).toordinal()

    def counts(self, at_s: float) -> bool:
        """Whether a peak at `at_s` counts."""
        local = datetime.fromtimestamp(at_s, self.zone)
        first, end = self.hours
        return self._day_counts(local) and first <= local.hour < end

    def period_starts_s(self, at_s: float) -> float:
        """When the month of `at_s` began, s."""
        local = datetime.fromtimestamp(at_s, self.zone)
        return datetime(local.year, local.month, 1, tzinfo=self.zone).timestamp()

    def period_ends_s(self, at_s: float) -> float:
        """When the month of `at_s` ends, s."""
        local = datetime.fromtimestamp(at_s, self.zone)
        year, month = divmod(local.year * 12 + local.month, 12)
        return datetime(year, month + 1, 1, tzinfo=self.zone).timestamp()

    def spans(self, from_s: float, to_s: float) -> Iterator[tuple[float, float]]:
        """Spans between two times in which a peak counts; those that meet are one."""
        open_span: tuple[float, float] | None = None
        for starts_s, ends_s in self._windows(from_s, to_s):
            if open_span is not None and open_span[1] == starts_s:
                open_span = (open_span[0], ends_s)
                continue
            if open_span is not None:
                yield open_span
            open_span = (starts_s, ends_s)
        if open_span is not None:
            yield open_span

    def _windows(self, from_s: float, to_s: float) -> Iterator[tuple[float, float]]:
        midnight = datetime.fromtimestamp(from_s, self.zone).replace(
            hour=0, minute=0, second=0, microsecond=0, fold=0
        )
        first, end = self.hours
        for n in range(DAYS_MOST):
            day = midnight + timedelta(days=n)
            if day.timestamp() >= to_s:
                return
            if self._day_counts(day):
                starts_s = (day + timedelta(hours=first)).timestamp()
                ends_s = (day + timedelta(hours=end)).timestamp()
                if ends_s > from_s and starts_s < to_s:
                    yield max(starts_s, from_s), min(ends_s, to_s)

    def _day_counts(self, local: datetime) -> bool:
        return local.month in self.months and (not self.working_days or local.weekday() in WORKING)
