"""Columns that are worked out when they are read."""

from typing import Any

import numpy as np

from wattshift_scheduler.picked import Later, Picked, PickedLater


def test_a_pick_reads_as_the_texts_that_it_picks() -> None:
    column = np.array(["a", "b", "c"], dtype=np.object_)
    late = PickedLater(lambda: (column, np.array([2, 0])))
    for picked in (Picked(column, np.array([2, 0])), late):
        assert list(picked) == ["c", "a"] == [picked[0], picked[1]]
        assert picked == ("c", "a")
        assert picked != ("a", "c")
        assert picked[1:] == ["a"]
        assert len(picked) == 2
    made: list[float] = []

    def make() -> Any:
        made.append(4.0)
        return np.array(made)

    figures = Later(make)
    assert made == []
    assert (figures[0], float(np.sum(figures)), made) == (4.0, 4.0, [4.0])
