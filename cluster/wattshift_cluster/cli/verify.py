"""`wattshift verify`: whether an evidence log is what was written, and how far."""

from pathlib import Path
from typing import Any

import click

from wattshift_cluster.cli.output import emit, output_option, pairs

PATH = click.Path(path_type=Path)


@click.command()
@click.argument("log", metavar="LOG", type=PATH)
@click.option("--key", "keys", multiple=True, type=PATH, help="Public key in PEM; once or more.")
@click.option("--expect", metavar="HASH", help="Of a line that must be there: an earlier head.")
@output_option
def verify(log: Path, keys: tuple[Path, ...], expect: str | None, output: str) -> None:
    """Check an evidence log, a folder or one day of it: every byte, hash and signature.

    \b
      wattshift verify state/evidence
      wattshift verify state/evidence --key held-by-the-auditor.pub --expect 5f3c…
      wattshift verify state/evidence/2026-11-28.jsonl -o json

    It names the file and line of the first fault, and what before it still holds. Write down the
    head that it prints: with it a later check knows that nothing up to it was cut or made anew.
    Exit 1 if there is a fault, 4 if there is no log.
    """
    from wattshift_cluster.settle import verify as checking
    from wattshift_cluster.settle.keys import public_at
    from wattshift_cluster.settle.words import trust_lines, verified_view

    found = checking.verify(log, tuple(public_at(path) for path in keys), expect=expect)

    def text(view: dict[str, Any]) -> str:
        rows = [
            ("evidence", "holds" if view["ok"] else "BROKEN"),
            ("files", str(view["files"])),
            ("lines", f"{view['lines']:,} ({view['first_seq']:,} to {view['last_seq']:,})"),
            ("head", view["head"]),
            *(("key", key) for key in view["keys"]),
        ]
        return "\n".join([pairs(rows), "", *trust_lines(found)])

    emit(verified_view(found), output, text)
    if not found.ok:
        click.get_current_context().exit(1)
