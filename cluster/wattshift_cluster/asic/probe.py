"""Find out which firmware answers at an address, before any library is let near it.

pyasic's own discovery tries default passwords on some machines and takes a Whatsminer that speaks
only v3 for an older one. So the questions here are our own, carry no password, and go out together:
`version` and `devdetails` on 4028, device information on 4433, the page on 80. The first certain
answer ends the probe; a port that is slow, silent or talks nonsense costs one deadline at most.

The words by which a firmware is told (its own name in `version`, the title or realm of its page)
are those that pyasic 0.79 and asic-rs 0.8 look for, and the records in asic-rs's test data.
"""

import asyncio
import re
import zlib
from collections.abc import Coroutine, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from wattshift_cluster.asic.driver import AsicRefused, AsicUnreachable
from wattshift_cluster.asic.reported import Json, first, rows
from wattshift_cluster.asic.wire import ask_cgminer, ask_framed, bounded, connected

WEB_PORT = 80
PAGE_LIMIT = 64 * 1024
TEXT_LIMIT = 64
UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Found:
    """A machine whose firmware we know by name; `model` and `version` in its own words.

    Attributes:
        kind: a word of `NAMES`; whether there is a driver for it is said by `kinds.KINDS`.
        model, version: "unknown" where these questions do not tell.
    """

    kind: str
    model: str
    version: str


NAMES: dict[str, str] = {
    "antminer": "stock Antminer firmware",
    "auradine": "Auradine",
    "avalon": "Avalon",
    "bitaxe": "BitAxe (AxeOS)",
    "bosminer": "BOSMiner, Braiins OS before BOSer",
    "braiins": "Braiins OS",
    "elphapex": "Elphapex",
    "epic": "ePIC",
    "fluminer": "Fluminer",
    "goldshell": "Goldshell",
    "hammer": "Hammer or VolcMiner",
    "hiveon": "Hiveon",
    "iceriver": "IceRiver",
    "innosilicon": "Innosilicon",
    "luckyminer": "Lucky Miner",
    "luxos": "LuxOS",
    "marathon": "MARA firmware (kaonsu)",
    "mskminer": "MSKminer",
    "vnish": "VNish",
    "whatsminer": "Whatsminer, firmware API v3",
    "whatsminer_v2": "Whatsminer, firmware API v2",
}

# In this order: a machine that names its maker and its firmware is told by its firmware.
_SPOKEN = (
    ("boser", "braiins"),
    ("bosminer", "bosminer"),
    ("luxminer", "luxos"),
    ("btminer", "whatsminer_v2"),
    ("bitmicro", "whatsminer_v2"),
    ("hiveon", "hiveon"),
    ("kaonsu", "marathon"),
    ("rwglr", "mskminer"),
    ("vnish", "vnish"),
    ("intchains_qomo", "goldshell"),
    ("kdaminer", "goldshell"),
    ("bfgminer", "goldshell"),
    ("innominer", "innosilicon"),
    ("avalon", "avalon"),
    ("gcminer", "auradine"),
    ("fluxos", "auradine"),
    ("antminer", "antminer"),
)

_REALMS = (("antminer", "antminer"), ("blackminer", "hammer"), ("daoge", "elphapex"))

_WRITTEN = (
    ("anthillos", "vnish"),
    ("axeos", "bitaxe"),
    ("luxor firmware", "luxos"),
    ("miner web dashboard", "epic"),
    ("braiins os", "braiins"),
    ("lucky miner", "luckyminer"),
    ("cloud-box", "goldshell"),
    ("dragonmint", "innosilicon"),
    ("fluminer", "fluminer"),
    ("miner ui", "auradine"),
    ("avalon", "avalon"),
    ("用户界面", "iceriver"),
)

_UNCERTAIN = frozenset({"antminer", "whatsminer_v2"})
"""What 4028 alone cannot tell: other firmware names the maker too, and v3 has both ports."""

_HINTS = frozenset({"antminer", "braiins", "luxos", "auradine", "avalon", "goldshell"})
"""What a page alone tells too little of: `version` knows better, if it answers in time."""


@dataclass(frozen=True, slots=True)
class Page:
    """What GET / gave: the realm that it wants a login for, and its text in lower case."""

    realm: str
    text: str


Answer = Json | Page | AsicUnreachable
Answers = dict[str, Answer]


async def probe(address: str, *, deadline_s: float) -> Found:
    """Ask every port at once who is there.

    Raises:
        AsicUnreachable: no port gave a usable answer, or a Whatsminer did not tell its version.
        AsicRefused: something answers, but nothing that we know by name.
    """
    asked: dict[asyncio.Task[Answer], str] = {}
    answers: Answers = {}

    def ask(name: str, question: Coroutine[Any, Any, Json | Page]) -> None:
        asked[asyncio.create_task(_answer(question))] = name

    ask("version", ask_cgminer(address, "version", deadline_s=deadline_s))
    ask("devdetails", ask_cgminer(address, "devdetails", deadline_s=deadline_s))
    ask("device", ask_framed(address, "get.device.info", None, deadline_s=deadline_s))
    ask("page", get_page(address, deadline_s=deadline_s))
    try:
        while len(answers) < len(asked):
            waiting = [task for task, name in asked.items() if name not in answers]
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                answers[asked[task]] = task.result()
            if found := _certain(answers):
                return found
            if _spoken(answers) == "whatsminer_v2" and "get_version" not in asked.values():
                ask("get_version", ask_cgminer(address, "get_version", deadline_s=deadline_s))
        return _weighed(address, answers)
    finally:
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)


async def get_page(address: str, *, deadline_s: float) -> Page:
    """GET / on port 80: at most 64 KiB, no redirect followed, no login.

    Raises:
        AsicUnreachable: see `wire.bounded`; also for what is not an HTTP answer.
    """
    request = (
        f"GET / HTTP/1.1\r\nHost: {address}\r\nAccept-Encoding: identity\r\n"
        "Connection: close\r\n\r\n"
    )
    loop, received = asyncio.get_running_loop(), b""
    async with bounded(address, "GET /", deadline_s):
        with await connected(address, WEB_PORT) as sock:
            await loop.sock_sendall(sock, request.encode())
            while chunk := await loop.sock_recv(sock, PAGE_LIMIT):
                received += chunk
                if len(received) >= PAGE_LIMIT or _complete(received):
                    break
    head, separator, body = received.partition(b"\r\n\r\n")
    if not received.startswith(b"HTTP/") or not separator:
        raise AsicUnreachable(address, "GET /", "the answer is not HTTP")
    headers = head.decode("latin-1").lower()
    if "content-encoding: gzip" in headers:
        # AxeOS stores its pages packed and serves them so, whatever was asked for.
        with suppress(zlib.error):
            body = zlib.decompressobj(31).decompress(body, PAGE_LIMIT)
    realm = re.search(r'www-authenticate:[^\n]*realm="([^"]*)"', headers)
    return Page(realm.group(1) if realm else "", body.decode("utf-8", "replace").lower())


def _complete(received: bytes) -> bool:
    """Whether an answer of known length is there, so that a kept connection is not waited for."""
    head, separator, body = received.partition(b"\r\n\r\n")
    if not separator:
        return False
    length = re.search(rb"(?i)\r\ncontent-length: *(\d{1,9})\r?\n?", head + b"\r\n")
    return len(body) >= int(length.group(1)) if length else body.endswith(b"0\r\n\r\n")


async def _answer(question: Coroutine[Any, Any, Json | Page]) -> Answer:
    try:
        return await question
    except AsicUnreachable as silent:
        return silent


def _certain(answers: Answers) -> Found | None:
    """The machine, once no answer that is still out could change it."""
    if found := _framed(answers):
        return found
    written, spoken = _written(answers), _spoken(answers)
    if written is not None and written not in _HINTS:
        return _found(written, answers)
    told = "version" in answers and (spoken == "antminer") and written == "antminer"
    if told or (spoken is not None and spoken not in _UNCERTAIN):
        assert spoken is not None
        found = _found(spoken, answers)
        return found if found.model != UNKNOWN or "devdetails" in answers else None
    return None


def _weighed(address: str, answers: Answers) -> Found:
    """The likeliest machine, now that everything has answered or failed."""
    spoken = _spoken(answers)
    if spoken == "whatsminer_v2":
        return _older_whatsminer(address, answers)
    written = _written(answers)
    if kind := (written or spoken) if spoken == "antminer" else (spoken or written):
        return _found(kind, answers)
    told = (answers[name] for name in ("version", "device", "devdetails"))
    if heard := next((one for one in told if isinstance(one, dict)), None):
        raise AsicRefused(address, "identify", f"no driver for {_described(heard)}")
    if isinstance(page := answers["page"], Page):
        raise AsicRefused(address, "identify", f"no driver for {_titled(page)}")
    silent = [one for one in answers.values() if isinstance(one, AsicUnreachable)]
    # A port that spoke, or kept us waiting, says more than one that is closed.
    raise next((one for one in silent if not _shut(one)), silent[0])


def _older_whatsminer(address: str, answers: Answers) -> Found:
    """Tell v2 from a v3 whose port 4433 hangs, by the version that the machine names."""
    told = answers.get("get_version")
    body = told.get("Msg") if isinstance(told, dict) else None
    body = body if isinstance(body, dict) else {}
    api, closed = str(body.get("api_ver", "")), answers["device"]
    if api.startswith("3") or not (api or _shut(closed)):
        reason = closed.reason if isinstance(closed, AsicUnreachable) else "no device information"
        raise AsicUnreachable(address, "get.device.info", reason)
    found = _found("whatsminer_v2", answers)
    version = body.get("fw_ver")
    return Found(found.kind, found.model, _short(version) if version else found.version)


def _shut(answer: Answer) -> bool:
    """Whether a port is closed: refused at once, which a hanging firmware does not do."""
    return isinstance(answer, AsicUnreachable) and isinstance(
        answer.__cause__, ConnectionRefusedError
    )


def _found(kind: str, answers: Answers) -> Found:
    row = _row(answers, "version", "VERSION")
    detail = _row(answers, "devdetails", "DEVDETAILS")
    named = row.get("Type") or row.get("PROD") or detail.get("Model") or row.get("MODEL")
    versions = (value for key, value in row.items() if kind[:4] in key.lower())
    marks = (row.get("LUXminer"), *versions, row.get("Miner"), row.get("CompileTime"))
    version = next((_short(mark) for mark in marks if isinstance(mark, str) and mark), UNKNOWN)
    return Found(kind, _short(named) if isinstance(named, str) and named else UNKNOWN, version)


def _framed(answers: Answers) -> Found | None:
    info = answers.get("device")
    body = info.get("msg") if isinstance(info, dict) else None
    if not isinstance(body, dict):
        return None
    miner, system = body.get("miner"), body.get("system")
    if not isinstance(miner, dict) or not isinstance(system, dict):
        return None
    model, version = miner.get("type"), system.get("fwversion")
    if not isinstance(model, str) or not isinstance(version, str):
        return None
    return Found("whatsminer", _short(model), _short(version))


def _spoken(answers: Answers) -> str | None:
    words = " ".join(_words(answers)).lower()
    return next((kind for token, kind in _SPOKEN if token in words), None)


def _words(answers: Answers) -> Iterator[str]:
    """What the cgminer port says of itself: names and values of its version and device rows."""
    for name, key in (("version", "VERSION"), ("devdetails", "DEVDETAILS")):
        reply = answers.get(name)
        for row in rows(reply, key):
            yield from (text for text in row if isinstance(text, str))
            yield from (text for text in row.values() if isinstance(text, str))
        described = first(reply, "STATUS").get("Description")
        if isinstance(described, str):
            yield described


def _written(answers: Answers) -> str | None:
    page = answers.get("page")
    if not isinstance(page, Page):
        return None
    realms = (kind for token, kind in _REALMS if page.realm.startswith(token))
    return next(realms, None) or next((k for token, k in _WRITTEN if token in page.text), None)


def _row(answers: Answers, name: str, key: str) -> Json:
    return first(answers.get(name), key)


def _described(reply: Json) -> str:
    row = first(reply, "VERSION") or reply
    named = row.get("Type") or row.get("PROD") or ", ".join(sorted(map(str, row))[:6])
    return f"this firmware ({_short(named)})" if named else "a firmware that does not name itself"


def _titled(page: Page) -> str:
    title = re.search(r"<title>([^<]*)</title>", page.text)
    named = _short(title.group(1)) if title else _short(page.realm)
    return f"this web server ({named})" if named else "a web server that does not name itself"


def _short(named: object) -> str:
    """A name as the other side gave it, safe to print: one line, at most 64 characters."""
    text = "".join(c if c.isprintable() else " " for c in str(named)[: 4 * TEXT_LIMIT])
    return " ".join(text.split())[:TEXT_LIMIT]
