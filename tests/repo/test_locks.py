"""The lock files: hashes everywhere, no addresses, and one version of each package over all."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = sorted(ROOT.glob("requirements*.lock"))
UNLOCKED = {"entsoe-py"}
"""Of the extra `market`, which few sites ask for."""

PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)


def pins(path: Path) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for package, version in PIN.findall(path.read_text()):
        found.setdefault(package, set()).add(version)
    return found


def test_there_are_five() -> None:
    assert len(LOCKS) == 5


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_a_lock_holds_no_address_and_every_pin_has_hashes(lock: Path) -> None:
    text = lock.read_text()
    assert "://" not in text
    assert " @ " not in text
    assert "--index" not in text
    for line, following in zip(text.splitlines(), [*text.splitlines()[1:], ""], strict=True):
        if PIN.match(line):
            assert following.strip().startswith("--hash=sha256:"), line
        else:
            assert line.strip().startswith("--hash=sha256:"), line


def test_the_locks_agree_with_each_other() -> None:
    versions: dict[str, set[str]] = {}
    for lock in LOCKS:
        for package, found in pins(lock).items():
            versions.setdefault(package, found)
            assert versions[package] == found, f"{package} differs in {lock.name}"


def test_the_further_locks_leave_out_what_the_first_holds() -> None:
    first = pins(ROOT / "requirements.lock")
    for lock in LOCKS:
        if lock.name != "requirements.lock":
            assert first.keys() & pins(lock).keys() == set(), lock.name


def test_every_dependency_of_the_project_is_locked() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"]]
    for extra in project["optional-dependencies"].values():
        wanted += extra
    locked = {package.lower() for lock in LOCKS for package in pins(lock)}
    names = {re.split(r"[\[<>=~! ;]", one)[0].lower().replace("_", "-") for one in wanted}
    assert names - locked == UNLOCKED
