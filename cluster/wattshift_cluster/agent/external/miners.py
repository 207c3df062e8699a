"""Mining programs as rows of data: how each is called, how it pauses, and what it tells.

What is known of pausing comes from the programs' own documents and trackers (the source is in each
row). Nobody of ours saw it with the real programs yet, so watts decide, and a program without a
pause of its own is stopped by a signal. All of these but plain `command` take a fee for their
developers out of the hashing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Verb = Literal["GET", "POST"]
Step = str | int
Path = tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Ask:
    """One HTTP request to the program.

    Attributes:
        target: path and query.
        body: JSON to send; None sends nothing.
        proof: where in the answer to look, and what must be there; None believes any 200.
    """

    target: str
    verb: Verb = "GET"
    body: Mapping[str, object] | None = None
    proof: tuple[Path, object] | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """Where a summary says what; each a path through the JSON. None: it does not say.

    Attributes:
        ask: the request.
        hashrate: hashes per second, times `scale`.
        accepted, rejected: shares so far.
    """

    ask: Ask
    hashrate: Path | None = None
    scale: float = 1.0
    accepted: Path | None = None
    rejected: Path | None = None


@dataclass(frozen=True, slots=True)
class MinerRow:
    """One program.

    Attributes:
        name: as the owner writes it.
        arguments: its command line; `{…}` are filled in.
        extras: further options that an owner may add; none of them can move a payout.
        config: written to a file of mode 0600 and named by `{config}`; None without.
        pause, resume: over HTTP; None where it has none.
        told: its summary.
        settle_s: its card's watts have fallen so long after a pause, s.
        developer_fee: share of the hashing that its developers take; None: unknown.
        source: of all this.
    """

    name: str
    arguments: tuple[str, ...]
    source: str
    extras: frozenset[str] = frozenset()
    config: Mapping[str, object] | None = None
    pause: Ask | None = None
    resume: Ask | None = None
    told: Told | None = None
    settle_s: float = 3.0
    developer_fee: float | None = None


TREX = MinerRow(
    name="t-rex",
    arguments=(
        "-a", "{algorithm}", "-o", "{pool}", "-u", "{user}", "-p", "{password}",
        "--api-bind-http", "127.0.0.1:{api_port}", "--no-watchdog",
    ),
    extras=frozenset({"--intensity", "--mt", "--low-load", "--kernel", "--dag-build-mode"}),
    # `pause=True` with a capital letter answers success and does not pause (its issue 1447).
    pause=Ask("/control?pause=true", proof=(("success",), 1)),
    resume=Ask("/control?pause=false", proof=(("success",), 1)),
    told=Told(
        Ask("/summary"), ("hashrate",), 1.0, ("accepted_count",), ("rejected_count",)
    ),
    developer_fee=0.01,
    source="trexminer/T-Rex, wiki of 2021 and issue 1447",
)  # fmt: skip

XMRIG = MinerRow(
    name="xmrig",
    arguments=("--config", "{config}"),
    config=MappingProxyType(
        {
            "autosave": False,
            "cpu": {"enabled": False},
            "opencl": {"enabled": False},
            "cuda": {"enabled": True},
            "http": {
                "enabled": True, "host": "127.0.0.1", "port": "{api_port}",
                "access-token": "{api_token}", "restricted": False,
            },
            "pools": [
                {"algo": "{algorithm}", "url": "{pool}", "user": "{user}", "pass": "{password}"}
            ],
        }
    ),
    pause=Ask("/json_rpc", "POST", {"method": "pause", "id": 1}, (("error",), None)),
    resume=Ask("/json_rpc", "POST", {"method": "resume", "id": 1}, (("error",), None)),
    told=Told(
        Ask("/2/summary"), ("hashrate", "total", 0), 1.0,
        ("results", "shares_good"), None,
    ),
    developer_fee=0.01,
    source="xmrig/xmrig, issues 479, 2813 and 3220",
)  # fmt: skip

LOLMINER = MinerRow(
    name="lolminer",
    arguments=(
        "--algo", "{algorithm}", "--pool", "{pool}", "--user", "{user}", "--pass", "{password}",
        "--apiport", "{api_port}", "--apihost", "127.0.0.1",
    ),
    extras=frozenset({"--maxdualimpact", "--keepfree"}),
    told=Told(
        Ask("/"), ("Algorithms", 0, "Total_Performance"), 1.0,
        ("Algorithms", 0, "Total_Accepted"), ("Algorithms", 0, "Total_Rejected"),
    ),
    source="lolMiner, request 90 (no pause, open since 2020)",
)  # fmt: skip

NBMINER = MinerRow(
    name="nbminer",
    arguments=(
        "-a", "{algorithm}", "-o", "{pool}", "-u", "{user}:{password}",
        "--api", "127.0.0.1:{api_port}",
    ),
    extras=frozenset({"--intensity"}),
    source="NBMiner, issue 231 (no pause)",
)  # fmt: skip

RIGEL = MinerRow(
    name="rigel",
    arguments=(
        "-a", "{algorithm}", "-o", "{pool}", "-u", "{user}", "-p", "{password}",
        "--api-bind", "127.0.0.1:{api_port}",
    ),
    source="Rigel's own help",
)  # fmt: skip

BZMINER = MinerRow(
    name="bzminer",
    arguments=(
        "-a", "{algorithm}", "-p", "{pool}", "-w", "{user}", "--pool_password", "{password}",
        "--http_enabled", "1", "--http_address", "127.0.0.1", "--http_port", "{api_port}",
    ),
    source="BzMiner's own help",
)  # fmt: skip

COMMAND = MinerRow(
    name="command",
    arguments=(),
    developer_fee=0.0,
    source="the owner: the whole command line stands in the consent file",
)
"""Any other program."""

MINERS: Mapping[str, MinerRow] = MappingProxyType(
    {row.name: row for row in (TREX, XMRIG, LOLMINER, NBMINER, RIGEL, BZMINER, COMMAND)}
)


def found(answer: object, path: Path) -> object:
    """What stands at `path` in decoded JSON. Raises: KeyError when there is nothing."""
    for step in path:
        answer = _below(answer, step)
    return answer


def _below(answer: object, step: Step) -> object:
    if isinstance(answer, Mapping):
        return answer[step]
    if isinstance(answer, list) and isinstance(step, int) and 0 <= step < len(answer):
        return answer[step]
    raise KeyError(step)
