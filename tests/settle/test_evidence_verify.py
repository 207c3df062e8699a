"""No change of a log goes unseen: any byte, line, order, end, key or rewriting of the chain."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from wattshift_cluster.cli.main import main
from wattshift_cluster.errors import NotFound
from wattshift_cluster.settle.checkpoints import signed_line
from wattshift_cluster.settle.keys import PRIVATE_NAME, PUBLIC_NAME, public_at, signer_at
from wattshift_cluster.settle.lines import FIRST, Kind, LineInvalid, hash_of, parsed, written
from wattshift_cluster.settle.log import Evidence, Pace
from wattshift_cluster.settle.months import day_files
from wattshift_cluster.settle.verify import verify

Logged = Callable[..., Path]
DAY_S = 86_400.0
TRIES = 150


@pytest.fixture
def folder(logged: Logged, noon_s: float) -> Path:
    """Two days, several signatures, closed."""
    lines = [
        (Kind.DECISION, {"n": n, "why": "a cap of 9.8 kW"}, noon_s + day * DAY_S + n)
        for day in (0, 1)
        for n in range(12)
    ]
    return logged(lines, pace=Pace(lines=5))


def changed(rng: random.Random, data: bytes) -> bytes:
    """The same file with one change of any kind."""
    lines = data.splitlines(keepends=True)
    i, j = rng.sample(range(len(lines)), 2)
    at = rng.randrange(len(data))
    kind = rng.randrange(7)
    if kind == 0:  # a bit
        return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]
    if kind == 1:  # a byte more
        return data[:at] + bytes([rng.randrange(256)]) + data[at:]
    if kind == 2:  # a byte less
        return data[:at] + data[at + 1 :]
    if kind == 3:  # a line less
        return b"".join(lines[:i] + lines[i + 1 :])
    if kind == 4:  # a line twice
        return b"".join(lines[: i + 1] + lines[i:])
    if kind == 5:  # two lines change places
        lines[i], lines[j] = lines[j], lines[i]
        return b"".join(lines)
    return data[:at]  # cut


def test_any_change_is_found(folder: Path) -> None:
    assert verify(folder).ok
    rng = random.Random(7)
    files = day_files(folder)
    kept = {path: path.read_bytes() for path in files}
    for n in range(TRIES):
        path = rng.choice(files)
        new = changed(rng, kept[path])
        if new == kept[path]:
            continue
        path.write_bytes(new)
        fault = verify(folder).fault
        assert fault is not None, f"change {n} of {path.name}"
        path.write_bytes(kept[path])
    assert verify(folder).ok


def test_the_first_fault_is_named_with_its_line_and_what_still_holds(folder: Path) -> None:
    path = folder / "2026-11-28.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[9] = lines[9].replace(b"9.8 kW", b"9.9 kW")
    path.write_bytes(b"".join(lines))
    found = verify(folder)
    assert found.fault is not None
    assert (found.fault.file, found.fault.line) == (str(path), 10)
    signed = [n for n, line in enumerate(lines[:9], 1) if b'"checkpoint"' in line]
    assert (found.last_seq, found.signed_seq) == (9, signed[-1])


def test_a_line_made_anew_with_a_right_hash_breaks_the_chain_after_it(folder: Path) -> None:
    path = folder / "2026-11-28.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    old = parsed(lines[8])
    lines[8] = written(old.seq, old.at_s, old.kind, {"n": "forged"}, old.prev)
    path.write_bytes(b"".join(lines))
    fault = verify(folder).fault
    assert fault is not None
    assert fault.line == 10
    assert "does not follow from the line before" in fault.reason


def rewritten(path: Path, at: int) -> list[bytes]:
    """The lines of a file with one changed and every hash after it made anew, by a forger."""
    out: list[bytes] = []
    prev = FIRST
    for n, raw in enumerate(path.read_bytes().splitlines(keepends=True)):
        line = parsed(raw)
        body = {"n": "forged"} if n == at else dict(line.body)
        out.append(written(line.seq, line.at_s, line.kind, body, prev))
        prev = hash_of(out[-1])
    return out


def test_a_chain_made_anew_fails_at_the_next_signature(folder: Path) -> None:
    path = folder / "2026-11-28.jsonl"
    path.write_bytes(b"".join(rewritten(path, 8)))
    fault = verify(folder).fault
    assert fault is not None
    assert "signature does not hold" in fault.reason


def test_a_chain_signed_by_another_key_fails(folder: Path, tmp_path: Path) -> None:
    forger = signer_at(tmp_path / "forged.key")
    path = folder / "2026-11-29.jsonl"
    path.unlink()
    path = folder / "2026-11-28.jsonl"
    lines = []
    prev = FIRST
    for raw in rewritten(path, 8):
        line = parsed(raw)
        new = written(line.seq, line.at_s, line.kind, line.body, prev)
        if line.kind is Kind.CHECKPOINT:
            new = signed_line(forger, line.seq, line.at_s, prev, end=False)
        lines.append(new)
        prev = hash_of(new)
    path.write_bytes(b"".join(lines))
    (folder / "head.json").write_bytes(lines[-1])
    fault = verify(folder).fault
    assert fault is not None
    assert "another key" in fault.reason
    own = public_at(folder / PUBLIC_NAME)
    (folder / PUBLIC_NAME).write_bytes(forger.public_pem())
    assert verify(folder).ok, "a forger who has everything is found only by a key held elsewhere"
    assert not verify(folder, (own,)).ok


@pytest.mark.parametrize("day", ["2026-11-28", "2026-11-29"])
def test_a_day_that_is_gone_is_found(folder: Path, day: str) -> None:
    (folder / f"{day}.jsonl").unlink()
    assert not verify(folder).ok


def test_an_older_end_is_found_by_a_head_that_was_written_down(folder: Path) -> None:
    head = verify(folder).head
    assert verify(folder, expect=head).ok
    lines = (folder / "2026-11-28.jsonl").read_bytes().splitlines(keepends=True)
    last = max(n for n, line in enumerate(lines) if b'"checkpoint"' in line)
    (folder / "2026-11-28.jsonl").write_bytes(b"".join(lines[: last + 1]))
    (folder / "2026-11-29.jsonl").unlink()
    (folder / "head.json").write_bytes(lines[last])
    assert verify(folder).ok, "an older state as a whole looks like an older log"
    assert not verify(folder, expect=head).ok


def test_a_log_can_be_checked_while_it_is_written(tmp_path: Path, noon_s: float) -> None:
    log = tmp_path / "state" / "evidence"
    evidence = Evidence.open(log, site="yard", pace=Pace(lines=1), wall_s=lambda: noon_s)
    for n in range(60):
        evidence.put(Kind.DECISION, {"n": n}, noon_s)
        if n % 3 == 0:
            found = verify(log)
            assert found.ok, found.fault
            assert not found.closed
    assert evidence.close()
    assert verify(log).closed


def test_a_body_that_is_not_that_of_its_kind_is_a_fault(folder: Path, noon_s: float) -> None:
    found = verify(folder)
    with (folder / "2026-11-29.jsonl").open("ab") as file:
        file.write(written(found.last_seq + 1, noon_s + 2 * DAY_S, Kind.GAP, {}, found.head))
    fault = verify(folder).fault
    assert fault is not None
    assert "kind gap" in fault.reason


def test_a_missing_head_is_a_fault(folder: Path) -> None:
    (folder / "head.json").unlink()
    assert not verify(folder).ok


def test_a_head_of_another_log_or_a_damaged_one_is_a_fault(folder: Path) -> None:
    head = folder / "head.json"
    kept = head.read_bytes()
    head.write_bytes(kept.replace(b'"end":true', b'"end":null'))
    fault = verify(folder).fault
    assert fault is not None
    assert fault.file == str(head)
    assert "hash is not that of its bytes" in fault.reason
    signer = signer_at(folder.parent / PRIVATE_NAME)
    head.write_bytes(signed_line(signer, 9, parsed(kept).at_s, "ab" * 32, end=False))
    fault = verify(folder).fault
    assert fault is not None
    assert "not the one that was signed" in fault.reason


def test_time_may_not_go_back_without_a_word(folder: Path, noon_s: float) -> None:
    path = folder / "2026-11-29.jsonl"
    prev, seq = verify(folder).head, verify(folder).last_seq
    with path.open("ab") as file:
        file.write(written(seq + 1, noon_s, Kind.DECISION, {}, prev))
    fault = verify(folder).fault
    assert fault is not None
    assert "older than the line before" in fault.reason


@pytest.mark.parametrize(
    "line", [b"", b"\n", b"{}\n", b"x" * 100 + b"\n", b'{"seq":1,"hash":"' + b"0" * 64 + b'"}\n']
)
def test_what_is_no_line_is_refused(line: bytes) -> None:
    with pytest.raises(LineInvalid):
        parsed(line)


def test_nothing_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        verify(tmp_path)
    with pytest.raises(NotFound):
        verify(tmp_path / "2026-11-28.jsonl")


def test_the_command_and_its_exit_codes(folder: Path, tmp_path: Path) -> None:
    run = CliRunner()
    held = tmp_path / "held.pub"
    shutil.copy(folder / PUBLIC_NAME, held)
    good = run.invoke(main, ["verify", str(folder), "--key", str(held)])
    assert good.exit_code == 0, good.output
    assert "the key you gave" in good.stdout
    assert public_at(held) in good.stdout
    path = folder / "2026-11-28.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"n":3', b'"n":4', 1))
    bad = run.invoke(main, ["verify", str(folder), "-o", "json"])
    assert bad.exit_code == 1
    assert f'"file": "{path}"' in bad.stdout
    assert "BROKEN" in run.invoke(main, ["verify", str(folder)]).stdout
    assert run.invoke(main, ["verify", str(tmp_path / "none")]).exit_code == 4
    assert run.invoke(main, ["verify", str(folder), "--key", str(path)]).exit_code == 1
