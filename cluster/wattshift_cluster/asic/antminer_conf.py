"""The configuration of a stock Antminer: whether it may be written back, and with which mode.

The firmware changes its mode only by a rewrite that carries the pools, so one careless write takes
the machine off its pool. Two things are known to do so: a failed read taken for an
empty configuration, and a blank in any value, at which the firmware's script (a shell around jq)
cuts the request short and empties every field. Hence a configuration is written back
only if it is complete and holds nothing but plain characters, and as it was read but for the mode.

Read as `bitmain-work-mode` (a string), the mode is written as `miner-mode` (a number): a write
under the name of the read is accepted and ignored (256foundation/asic-rs, issue 245).
"""

import math
from collections.abc import Iterator

from wattshift_cluster.asic.reported import Json

NORMAL, ASLEEP, HIGH, LOW = 0, 1, 2, 3
MODE_NAMES = ("bitmain-work-mode", "miner-mode")
_FANS = ("bitmain-fan-ctrl", "bitmain-fan-pwm")
_FREQUENCIES = ("bitmain-freq-level", "freq-level")
_POOL = ("url", "user", "pass")
_UNSAFE = '"\\'
MOST_POOLS = 8
MOST_VALUES = 512


class Doubtful(Exception):
    """The configuration must not be written back; the text says why, without its values."""


def mode_of(conf: Json) -> int | None:
    """The mode that it holds; None where that is not one of the four known.

    An empty one is normal: the firmware's script takes it so.
    """
    value = next((conf[name] for name in MODE_NAMES if name in conf), None)
    if value == "":
        return NORMAL
    if not isinstance(value, int | str):
        return None
    known = {str(mode): mode for mode in (NORMAL, ASLEEP, HIGH, LOW)}
    return known.get(str(value))


def check(conf: Json) -> None:
    """Raise Doubtful unless the configuration is complete and can be written back unharmed."""
    check_pools(conf)
    if mode_of(conf) is None:
        raise Doubtful("it names no known mode")
    if any(name not in conf for name in _FANS):
        raise Doubtful("it names no fan settings")
    if all(name not in conf for name in _FREQUENCIES):
        raise Doubtful("it names no frequency level")
    for count, value in enumerate(_values(conf)):
        if count >= MOST_VALUES:
            raise Doubtful(f"it holds more than {MOST_VALUES} values")
        if isinstance(value, float) and not math.isfinite(value):
            raise Doubtful("it holds a number without end")
        if isinstance(value, str) and not _plain(value):
            raise Doubtful("a value holds a blank or a sign on which the script would trip")


def check_pools(conf: Json) -> None:
    """Raise Doubtful unless there are pools, one of them usable."""
    pools = conf.get("pools")
    if not isinstance(pools, list) or not 1 <= len(pools) <= MOST_POOLS:
        raise Doubtful("it holds no list of pools")
    for pool in pools:
        if not isinstance(pool, dict) or any(not isinstance(pool.get(n), str) for n in _POOL):
            raise Doubtful("a pool lacks its URL, user or password field")
    if not any(pool["url"] and pool["user"] for pool in pools):
        raise Doubtful("all its pools are empty")


def with_mode(conf: Json, mode: int) -> Json:
    """What to post: the configuration as read, in the names that a write takes, with another mode.

    Args:
        conf: as read, and checked.
        mode: the new one.
    """
    posted = {**conf}
    if "bitmain-work-mode" in conf:
        as_text = isinstance(conf["bitmain-work-mode"], str)
        posted["bitmain-work-mode"] = str(mode) if as_text else mode
        posted["miner-mode"] = mode
    else:
        posted["miner-mode"] = str(mode) if isinstance(conf["miner-mode"], str) else mode
    if "bitmain-freq-level" in conf:
        posted["freq-level"] = conf["bitmain-freq-level"]
    return posted


def changed(before: Json, after: Json) -> list[str]:
    """Names of the fields, the mode apart, in which two configurations differ."""
    names = (before.keys() | after.keys()).difference(MODE_NAMES)
    return sorted(
        name
        for name in names
        if name not in before or name not in after or not _same(before[name], after[name])
    )


def _same(one: object, other: object) -> bool:
    """Whether two JSON values are the same; True is not 1, nor is "1"."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[k], other[k]) for k in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return type(one) is type(other) and one == other


def _plain(text: str) -> bool:
    return all("!" <= sign <= "~" and sign not in _UNSAFE for sign in text)


def _values(value: object) -> Iterator[object]:
    """Every name and value in it, however deep."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield name
            yield from _values(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _values(inner)
    else:
        yield value
