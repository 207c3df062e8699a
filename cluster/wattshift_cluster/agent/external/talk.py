"""What is asked of a foreign program over HTTP on loopback, with deadline and bounds."""

import http.client
import json
from dataclasses import dataclass

from wattshift_cluster.agent.external.miners import Ask, Path, Told, found

ANSWER_S = 1.0
MOST_BYTES = 256 * 1024


class ProgramSilent(Exception):
    """It did not answer, or not what it should have; the text says which."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What a program says of itself; None where it does not say.

    Attributes:
        hashrate_h_per_s: hashes per second.
        accepted, rejected: shares since it started.
    """

    hashrate_h_per_s: float | None = None
    accepted: int | None = None
    rejected: int | None = None


def ask(port: int, what: Ask, token: str | None = None) -> object:
    """Send one request to 127.0.0.1 and give back the decoded answer.

    Args:
        port: of the program's interface.
        what: the request; its proof is looked for.
        token: sent as a bearer token.

    Raises:
        ProgramSilent: no answer within ANSWER_S for each step, or not the one that proves it.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_S)
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    data = None
    if what.body is not None:
        data = json.dumps(dict(what.body)).encode()
        headers["Content-Type"] = "application/json"
    try:
        connection.request(what.verb, what.target, body=data, headers=headers)
        reply = connection.getresponse()
        raw = reply.read(MOST_BYTES + 1)
    except (OSError, http.client.HTTPException) as fault:
        raise ProgramSilent(str(fault) or type(fault).__name__) from fault
    finally:
        connection.close()
    if reply.status != 200 or len(raw) > MOST_BYTES:
        raise ProgramSilent(f"it answered {reply.status} with {len(raw)} bytes")
    try:
        answer: object = json.loads(raw)
    except (ValueError, RecursionError) as fault:
        raise ProgramSilent("it answered something that is not JSON") from fault
    if what.proof is not None:
        path, wanted = what.proof
        if (said := _maybe(answer, path)) != wanted:
            raise ProgramSilent(f"it answered {str(said)[:60]} where {wanted} was due")
    return answer


def summary(port: int, told: Told, token: str | None = None) -> Summary:
    """What the program tells. Raises: ProgramSilent."""
    answer = ask(port, told.ask, token)
    rate = _number(answer, told.hashrate)
    return Summary(
        None if rate is None else rate * told.scale,
        _count(answer, told.accepted),
        _count(answer, told.rejected),
    )


def _maybe(answer: object, path: Path) -> object:
    try:
        return found(answer, path)
    except KeyError:
        return None


def _number(answer: object, path: Path | None) -> float | None:
    said = None if path is None else _maybe(answer, path)
    if isinstance(said, bool) or not isinstance(said, int | float):
        return None
    return float(said) if 0.0 <= said < 1e18 else None  # NaN fails both


def _count(answer: object, path: Path | None) -> int | None:
    number = _number(answer, path)
    return None if number is None else int(number)
