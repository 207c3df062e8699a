"""The device source of a variant: sha256d.cuh, the rounds written out one by one, and sha256d.cu.

What the rounds leave out and why it is right (every miner since 2010 has some of it):

- Rounds 0 to 2 of the first hash know no nonce and are the host's; round 3 only adds it twice.
- Words of the schedule that are known, or known in part, come with the job; zeros are left out.
- The versions of a job differ in their midstate alone, so they share the schedule of the second
  block, to whose words K is added once.
- The second hash begins with constants, and ends where the last word is known: h after round 63 is
  e after round 60, so rounds 61 to 63 never run and 57 to 60 make no new a.

What is placed where: see `Variant`. A value is an int where it is known here, and else an
expression of C; sums of known values are done here.
"""

from wattshift_kernels.sha256d.midstate import INITIAL, ROUND
from wattshift_kernels.sha256d.variants import ALL_ADDS, EVERY_SECOND, TWO_INPUT, Variant
from wattshift_kernels.sha256d.words import (
    BIG_0,
    BIG_1,
    DIGEST_BITS,
    END,
    HEADER_BITS,
    MASK,
    SMALL_0,
    SMALL_1,
    Turns,
    big,
    ch,
    maj,
    small,
)
from wattshift_kernels.texts import text

Value = int | str
State = tuple[Value, ...]
"""a to h; a is 0 where nobody needs it."""

SHARE_OF = 64
"""What `Variant.rotates` is a part of."""

MOVABLE = (19, 20)
"""Rotations that may be moved. Each kind takes a constant more; these two are enough."""

PASSES = [
    "#ifdef __CUDACC__",
    "#pragma unroll 1",
    "#endif",
    "for (ws_u32 at = job.ways * sizeof(WsWay); at != 0;) {",
    "at -= sizeof(WsWay);",
]

LAST_ROUND, LAST_FULL_ROUND = 60, 56
"""Of the second hash, where its last word is enough."""


def source(variant: Variant) -> str:
    """CUDA, and plain C++ with a few macros of the host's: `ws_search` of sha256d.cu, one text."""
    bounds = (
        f"#define WS_THREADS {variant.threads}\n#define WS_BLOCKS_PER_SM {variant.blocks_per_sm}\n"
    )
    return "\n".join(
        (bounds, text("sha256d", "sha256d.cuh"), rounds(variant), text("sha256d", "sha256d.cu"))
    )


def rounds(variant: Variant) -> str:
    """`ws_try`: a bit for each way of the job whose hash of this nonce meets the target.

    The nonce comes as SHA-256 reads it. With `WS_LANES`, a vector of them.
    """
    writer = _Writer(variant)
    words = writer.first_schedule("n")
    lines = ["WS_DEVICE ws_w ws_try(const WsJob& job, ws_w& n) {", "ws_w found = {};"]
    added: dict[int, tuple[Value, ...]] = {i: (words[i], ROUND[i]) for i in range(18, 64)}
    if variant.loop:
        added = {i: (writer.add(*both),) for i, both in added.items()}
    n19 = _c(writer.add(*added[19]))
    lines += [*writer.taken(), f"ws_w n19 = {n19};", "WS_FORGET(n19);"]
    added[19] = ("n19",)
    lines += PASSES if variant.loop else ["{ const ws_u32 at = 0;"]
    writer.powers = "job.late"
    lines += ["const WsWay& from = *(const WsWay*)((const char*)job.way + at);"]
    hit = writer.second_hash(writer.first_hash(added))
    lines += [*writer.taken(), f"found = found + found + ({hit} & 1u);", "}"]
    return "\n".join((*lines, "n = n19 - job.n19;", "return found;", "}"))


def _c(value: Value) -> str:
    return f"{value:#x}u" if isinstance(value, int) else value


class _Writer:
    """Writes statements, one value each, and remembers how many of a kind were moved."""

    def __init__(self, variant: Variant) -> None:
        self._variant = variant
        self._lines: list[str] = []
        self._values = self._sums = self._rotations = 0
        self.powers = "job.early"

    def taken(self) -> list[str]:
        """The statements since the last call."""
        lines, self._lines = self._lines, []
        return lines

    def first_schedule(self, n: str) -> dict[int, Value]:
        """Words 16 to 63 of the second block, nonce `n`; their known parts are the job's."""
        w: dict[int, Value] = dict.fromkeys(range(4, 16), 0)
        w |= {3: n, 4: END, 15: HEADER_BITS, 16: "job.w16", 17: "job.w17"}
        w[18] = self._plain(self._sigma(n, SMALL_0), "job.c18")
        w[19] = self._plain(n, "job.c19")
        for i in range(20, 64):
            if i in (31, 32):
                known: tuple[Value, ...] = (f"job.c{i}",)
            else:
                known = (w[i - 16], self._sigma(w[i - 15], SMALL_0))
            terms = (*known, w[i - 7], self._sigma(w[i - 2], SMALL_1))
            known_part = any(str(term).startswith("job.") for term in terms)
            w[i] = self._plain(*terms) if known_part else self.add(*terms)
        return w

    def first_hash(self, added: dict[int, tuple[Value, ...]]) -> list[Value]:
        """The eight words of the first digest; `added` are words and their K, to be summed."""
        a, b, c, e, f, g = (f"from.kept[{i}]" for i in range(6))
        state: State = (
            self.add("n19", "from.a3"), a, b, c, self.add("n19", "from.e3"), e, f, g,
        )  # fmt: skip
        known = {i: (ROUND[i],) for i in range(5, 15)}
        known |= {4: (ROUND[4] + END & MASK,), 15: (ROUND[15] + HEADER_BITS & MASK,)}
        for i in range(4, 64):
            words = known.get(i) or added.get(i) or (f"job.k{i}",)
            state = self._round(state, words, last=False)
        return [self.add(state[i], f"from.mid[{i}]") for i in range(8)]

    def second_hash(self, words: list[Value]) -> str:
        """From the first digest to the condition for a hit: all bits or none."""
        x = [*words, END, *[0] * 6, DIGEST_BITS]
        whole = self._variant.compare == "all"
        state: State = INITIAL
        for i in range(64 if whole else LAST_ROUND + 1):
            if i >= 16:
                small_0, small_1 = self._sigma(x[i - 15], SMALL_0), self._sigma(x[i - 2], SMALL_1)
                x.append(self.add(x[i - 16], small_0, x[i - 7], small_1))
            state = self._round(state, (x[i], ROUND[i]), last=not whole and i > LAST_FULL_ROUND)
        if whole:
            digest = [
                _c(self._plain(word, start)) for word, start in zip(state, INITIAL, strict=True)
            ]
            self._lines.append(f"const ws_w digest[8] = {{{', '.join(digest)}}};")
            return "ws_meets(digest, job.target)"
        if self._variant.compare == "top":
            return f"WS_WHERE(ws_swap({_c(state[4])} + {INITIAL[7]:#x}u) <= job.target[0])"
        return f"WS_WHERE({_c(state[4])} == {-INITIAL[7] & MASK:#x}u)"

    def _round(self, state: State, words: tuple[Value, ...], *, last: bool) -> State:
        """One round (FIPS 180-4, 6.2.2); `last` leaves the new a out."""
        a, b, c, d, e, f, g, h = state
        sum_1 = self._with_big(e, BIG_1, h, *words, self._chosen("WS_CH", e, f, g))
        new_e = self.add(d, sum_1)
        if last:
            return (0, a, b, c, new_e, e, f, g)
        new_a = self._with_big(a, BIG_0, sum_1, self._chosen("WS_MAJ", a, b, c))
        return (new_a, a, b, c, new_e, e, f, g)

    def _with_big(self, x: Value, turns: Turns, *terms: Value) -> Value:
        """The sum of `terms` and the big sigma of `x`.

        rotr(x, p) ^ rotr(x, q) ^ rotr(x, r) = rotr(x ^ rotr(x, q - p) ^ rotr(x, r - p), p): turned
        so, it ends with a rotation, which goes into the sum.
        """
        if isinstance(x, int):
            return self.add(*terms, big(x, turns))
        p, q, r = turns
        if not self._variant.turned:
            parts = " ^ ".join(self._rotate(x, turn) for turn in turns)
            return self.add(*terms, self._let(parts))
        inner = self._let(f"{x} ^ {self._rotate(x, q - p)} ^ {self._rotate(x, r - p)}")
        return self._let(f"ws_left({inner}, {32 - p}) + {_c(self.add(*terms))}")

    def _sigma(self, x: Value, turns: Turns) -> Value:
        if isinstance(x, int):
            return small(x, turns)
        p, q, shift = turns
        shifted = f"({x} >> {shift})"
        if self._variant.shifts:
            shifted = f"ws_high({x}, {self.powers}.p{32 - shift})"
        return self._let(f"{self._rotate(x, p)} ^ {self._rotate(x, q)} ^ {shifted}")

    def _rotate(self, x: str, n: int) -> str:
        moved = False
        if n in MOVABLE:
            moved, self._rotations = self._share(self._rotations, self._variant.rotates)
        if not moved:
            return f"ws_left({x}, {32 - n})"
        power = f"{self.powers}.p{32 - n}"
        return self._let(f"ws_mad({x}, {power}, ws_high({x}, {power}))")

    def _chosen(self, name: str, x: Value, y: Value, z: Value) -> Value:
        if isinstance(x, int) and isinstance(y, int) and isinstance(z, int):
            return (ch if name == "WS_CH" else maj)(x, y, z)
        return self._let(f"{name}({_c(x)}, {_c(y)}, {_c(z)})")

    def add(self, *terms: Value) -> Value:
        """Their sum, put where the variant says."""
        left = self._folded(terms)
        while len(left) >= 3:
            first, second, third, *rest = left
            level = self._variant.adds
            share = {EVERY_SECOND: SHARE_OF // 2, ALL_ADDS: SHARE_OF}.get(level, 0)
            moved, self._sums = self._share(self._sums, share)
            if moved:
                total = self._mad(self._mad(first, second), third)
            else:
                total = self._let(f"{_c(first)} + {_c(second)} + {_c(third)}")
            left = [total, *rest]
        if len(left) == 1:
            return left[0]
        if self._variant.adds >= TWO_INPUT:
            return self._mad(*left)
        return self._let(f"{_c(left[0])} + {_c(left[1])}")

    def _plain(self, *terms: Value) -> Value:
        """Their sum, left to the compiler: a term of the job cannot stand beside the job's 1."""
        left = self._folded(terms)
        return self._let(" + ".join(map(_c, left))) if len(left) > 1 else left[0]

    @staticmethod
    def _folded(terms: tuple[Value, ...]) -> list[Value]:
        """Without zeros; what is known is one term, the second. What is ready last stays last."""
        known = sum(term for term in terms if isinstance(term, int)) & MASK
        left: list[Value] = [term for term in terms if isinstance(term, str)]
        return [*left[:1], known, *left[1:]] if known or not left else left

    def _mad(self, x: Value, y: Value) -> str:
        return self._let(f"ws_mad({_c(x)}, {self.powers}.p0, {_c(y)})")

    def _let(self, expression: str) -> str:
        name = f"t{self._values}"
        self._values += 1
        # Not const: the compiler's front end tries to work out each const integer, which takes it
        # as long as all the rest.
        self._lines.append(f"ws_w {name} = {expression};")
        return name

    @staticmethod
    def _share(done: int, part: int) -> tuple[bool, int]:
        """Whether the next of a kind is moved when `part` of SHARE_OF are; and their number."""
        return (done + 1) * part // SHARE_OF > done * part // SHARE_OF, done + 1
