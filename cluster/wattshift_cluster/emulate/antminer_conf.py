"""The configuration of an emulated stock Antminer, and what the firmware's own script does to it.

After `set_miner_conf.cgi` as shipped with stock firmware (a shell script around jq): a field
that a request leaves out keeps its value; `bitmain-user-ip-cat` is dropped unless it is sent; the
mode is written as `miner-mode` and read as `bitmain-work-mode`. The script passes the request
unquoted from one shell function to the next. A blank anywhere in it cuts it short, every field then
reads as empty, and the pools are gone.
"""

from typing import Any

Json = dict[str, Any]

MODE = "bitmain-work-mode"
SLEEP = "1"
_MODES = ("0", "1", "2", "3")
_POOLS = 3


def fresh_conf(worker: str, *, asleep: bool) -> Json:
    """The configuration of a machine that its owner has set up.

    Args:
        worker: user name at the pools.
        asleep: whether it is in sleep mode.
    """
    pools = [
        {"url": f"stratum+tcp://pool{i}.example:3333", "user": f"{worker}.{i}", "pass": "x"}
        for i in range(_POOLS)
    ]
    return {
        "pools": pools,
        "api-listen": True,
        "api-network": True,
        "api-groups": "A:stats:pools:devs:summary:version",
        "api-allow": "A:0/0,W:*",
        "bitmain-fan-ctrl": False,
        "bitmain-fan-pwm": "100",
        "bitmain-use-vil": True,
        "bitmain-freq": "",
        "bitmain-voltage": "",
        "bitmain-ccdelay": "",
        "bitmain-pwth": "",
        MODE: SLEEP if asleep else "0",
        "bitmain-freq-level": "100",
    }


def rewritten(conf: Json, posted: Json) -> Json:
    """The configuration after the script has run on what was posted."""
    cut = any(" " in text or "\t" in text for text in _texts(posted))

    def field(name: str, old: str) -> str:
        if cut:
            return ""
        value = posted.get(name)
        return old if value is None else _raw(value)

    given = posted.get("pools")
    slots = given if isinstance(given, list) else []
    mode = field("miner-mode", conf[MODE]) or "0"
    after = {
        **conf,
        "pools": [_slot(conf, slots, i, cut=cut) for i in range(_POOLS)],
        "bitmain-fan-ctrl": field("bitmain-fan-ctrl", _raw(conf["bitmain-fan-ctrl"])) == "true",
        "bitmain-fan-pwm": field("bitmain-fan-pwm", conf["bitmain-fan-pwm"]),
        MODE: mode if mode in _MODES else conf[MODE],
        "bitmain-freq-level": field("freq-level", conf["bitmain-freq-level"]) or "100",
    }
    after.pop("bitmain-user-ip-cat", None)
    if posted.get("bitmain-user-ip-cat") is not None:
        after["bitmain-user-ip-cat"] = field("bitmain-user-ip-cat", "0")
    return after


def _slot(conf: Json, slots: list[Any], i: int, *, cut: bool) -> Json:
    given = slots[i] if i < len(slots) and isinstance(slots[i], dict) else {}
    old = conf["pools"][i]
    names = ("url", "user", "pass")
    if cut:
        return dict.fromkeys(names, "")
    return {n: old[n] if given.get(n) is None else _raw(given[n]) for n in names}


def _texts(value: Any) -> list[str]:
    """Every string in it, names included."""
    if isinstance(value, dict):
        return [text for pair in value.items() for one in pair for text in _texts(one)]
    if isinstance(value, list):
        return [text for one in value for text in _texts(one)]
    return [value] if isinstance(value, str) else []


def _raw(value: Any) -> str:
    """A value as `jq -r` prints it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
