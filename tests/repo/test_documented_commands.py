"""Every `wattshift` and `./dev` command that the documents show exists, options included."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from tests.parsing import parsed

ROOT = Path(__file__).parents[2]
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "helm").rglob("*.md")]
FENCE = re.compile(r"^```(?:sh|bash|console|shell|text)?\n(.*?)^```", re.MULTILINE | re.DOTALL)


def shown(text: str) -> Iterator[list[str]]:
    """The words of each command line in the fenced blocks of a document."""
    for block in FENCE.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            text = line.strip().removeprefix("$ ")
            if text.startswith(("wattshift ", "./dev ")):
                yield shlex.split(text, comments=True)


def fault(words: list[str]) -> str | None:
    """What is wrong with a command line: an unknown command or an option that it does not take."""
    if words[0] == "./dev":
        if len(words) > 1 and words[1] == "run":
            return fault(["wattshift", *words[2:]])
        return None if len(words) > 1 and words[1] in dev_commands() else "no such ./dev command"
    from wattshift_cluster.cli.main import main

    command: click.Command = main
    context = click.Context(main, info_name="wattshift", **main.context_settings)
    rest = words[1:]
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        try:  # as the group itself does: `submit` takes a file for its hidden command
            _, found, rest = command.resolve_command(context, rest)
        except click.UsageError:
            return f"no such command: {rest[0]}"
        assert found is not None, "a group raises for what it does not know"
        command = found
    options = {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
    for word in rest:
        option = word.split("=")[0]
        if word == "--":
            break
        if re.fullmatch(r"--?[a-z][a-z-]*", option) and option not in options | {"-h", "--help"}:
            return f"{' '.join(words)}: no option {option}"
    return None


def dev_commands() -> set[str]:
    """The keys of the table that `dev` looks its commands up in."""
    for node in ast.walk(parsed((ROOT / "dev").read_text())):
        match node:
            case ast.Assign(targets=[ast.Name(id="NEEDS")], value=ast.Dict(keys=keys)):
                return {str(key.value) for key in keys if isinstance(key, ast.Constant)} | {"lock"}
    raise AssertionError("dev has no table NEEDS")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_shown_command_exists(document: Path) -> None:
    assert [text for words in shown(document.read_text()) if (text := fault(words))] == []


def test_the_check_bites() -> None:
    (words,) = shown("```sh\n$ wattshift fly --high  # up\n```\n")
    assert fault(words) == "no such command: fly"
    assert fault(["./dev", "fly"]) is not None
    assert "no option" in str(fault(["wattshift", "version", "--sideways"]))
    assert fault(["wattshift", "version"]) is None
