"""A table in slices: built in order, again what was stopped, anew for another height, freed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattshift_kernels.hasher import HasherFailed
from wattshift_kernels.tables import FREE_MARGIN_BYTES, Plan, Slice, SlicedTable, Stage


class Heap:
    """Memory with as many bytes as a test says."""

    def __init__(self, size: int = 1 << 40) -> None:
        self.left, self.held, self.taken = size, dict[int, int](), 0

    def take(self, size: int) -> int:
        self.taken += 1
        self.held[self.taken << 12] = size
        self.left -= size
        return self.taken << 12

    def free(self, address: int) -> None:
        self.left += self.held.pop(address)

    def free_bytes(self) -> int:
        return self.left


def plan(height: int) -> Plan:
    """Two heights share a table, as blocks of an epoch do; it grows with the epoch."""
    epoch = height // 2
    stages = (Stage(10, 4, weight=0.5, ordered=True), Stage(100 + epoch, 30))
    return Plan(epoch, 1000 + 8 * epoch, stages)


def build_all(table: SlicedTable) -> list[tuple[int, int, int]]:
    pieces = []
    while not table.ready:
        piece = table.next()
        assert piece is not None
        pieces.append((piece.stage, piece.first, piece.count))
        table.landed(piece, built=True)
    return pieces


def test_stages_are_built_in_order_and_progress_says_how_far() -> None:
    table = SlicedTable(plan, Heap())
    assert (table.progress, table.address, table.size_bytes) == (1.0, 0, 0)
    assert not table.want(0)
    assert (table.progress, table.size_bytes) == (0.0, 1000)
    first = table.next()
    assert first is not None
    assert table.next() is None, "an ordered stage has one slice out at a time"
    table.landed(first, built=True)
    assert table.progress == pytest.approx(2 / 105)
    assert build_all(table) == [
        *((0, 4, 4), (0, 8, 2)),
        *((1, 0, 30), (1, 30, 30), (1, 60, 30), (1, 90, 10)),
    ]
    assert table.progress == 1.0
    assert table.want(0)
    assert table.want(1), "the same table"


def test_the_next_stage_waits_for_slices_that_are_out() -> None:
    table = SlicedTable(lambda _: Plan(0, 8, (Stage(2, 1), Stage(1, 1))), Heap())
    table.want(0)
    out = [table.next(), table.next()]
    assert table.next() is None
    for piece in out:
        assert piece is not None
        table.landed(piece, built=True)
    last = table.next()
    assert last is not None
    assert (last.stage, last.first) == (1, 0)


def test_a_stopped_slice_is_built_again() -> None:
    table = SlicedTable(plan, Heap())
    table.want(0)
    piece = table.next()
    assert piece is not None
    table.landed(piece, built=False)
    assert table.progress == 0.0
    assert (again := table.next()) is not None
    assert (again.first, again.count) == (piece.first, piece.count)


def test_another_height_begins_anew_and_old_slices_say_nothing() -> None:
    heap = Heap()
    table = SlicedTable(plan, heap)
    table.want(0)
    build_all(table)
    assert not table.want(2)
    old = table.next()
    assert old is not None
    assert not table.want(4)
    table.landed(old, built=True)
    assert table.progress == 0.0
    assert heap.held == {table.address: 1016}, "one table at a time"
    build_all(table)
    assert table.want(5)


def test_a_table_that_does_not_fit_is_refused_with_the_sizes_in_words() -> None:
    heap = Heap(FREE_MARGIN_BYTES + 1007)
    table = SlicedTable(plan, heap)
    assert not table.want(0)
    build_all(table)
    with pytest.raises(HasherFailed, match=r"takes 0\.00 GiB .* 0\.25 GiB are free"):
        table.want(2)
    assert heap.held == {}, "the old one made room"
    assert not table.want(0), "and can be built again"


def test_closing_frees_it() -> None:
    heap = Heap()
    table = SlicedTable(plan, heap)
    table.want(0)
    build_all(table)
    table.close()
    table.close()
    assert (heap.held, table.address, table.size_bytes) == ({}, 0, 0)
    assert not table.want(0)


@given(
    rows=st.lists(st.integers(1, 50), min_size=1, max_size=3),
    per_slice=st.integers(1, 20),
    fates=st.lists(st.tuples(st.booleans(), st.booleans()), max_size=80),
)
def test_every_row_is_built_once_whatever_is_stopped(
    rows: list[int], per_slice: int, fates: list[tuple[bool, bool]]
) -> None:
    stages = tuple(Stage(count, per_slice, ordered=i == 0) for i, count in enumerate(rows))
    table = SlicedTable(lambda _: Plan(1, 64, stages), Heap())
    table.want(0)
    out: list[Slice] = []
    built: list[tuple[int, int]] = []
    steps = iter(fates)
    while not table.ready:
        another, stays = next(steps, (False, True))
        piece = table.next() if len(out) < (2 if another else 1) else None
        if piece is not None:
            out.append(piece)
            if another:
                continue
        landed = out.pop(0)
        table.landed(landed, built=stays)
        if stays:
            built += ((landed.stage, landed.first + i) for i in range(landed.count))
    assert sorted(built) == [(i, row) for i, count in enumerate(rows) for row in range(count)]
    assert not out
