"""What the live page tells of alarms: critical ones in the banner, the others beneath it."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import wattshift_cluster.api

PAGE = Path(wattshift_cluster.api.__file__).parent / "page"


def sorted_by_the_page(folder: Path, alarms: list[dict[str, str]]) -> Any:
    """What alarms.js makes of them."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no node to run the page's code")
    (folder / "alarms.js").write_text((PAGE / "alarms.js").read_text())
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "run.js").write_text(
        'import { byGravity } from "./alarms.js";\n'
        f"console.log(JSON.stringify(byGravity({json.dumps(alarms)})));\n"
    )
    ran = subprocess.run(
        [node, folder / "run.js"], capture_output=True, text=True, timeout=60, check=True
    )
    return json.loads(ran.stdout)


def warning(text: str) -> dict[str, str]:
    return {"severity": "warning", "text": text}


def test_warnings_are_told_apart_from_what_is_critical(tmp_path: Path) -> None:
    alarms = [warning("a"), {"severity": "critical", "text": "b"}, warning("c")]
    assert sorted_by_the_page(tmp_path, alarms) == [["b"], ["a", "c"]]
    assert sorted_by_the_page(tmp_path, []) == [[], []]


def test_a_flood_of_warnings_is_counted(tmp_path: Path) -> None:
    grave, others = sorted_by_the_page(tmp_path, [warning(str(n)) for n in range(9)])
    assert grave == []
    assert others == ["0", "1", "2", "3", "4", "5", "and 3 more"]


def test_every_place_that_the_code_writes_to_is_on_the_page() -> None:
    index = (PAGE / "index.html").read_text()
    code = "".join(path.read_text() for path in PAGE.glob("*.js"))
    named = set(re.findall(r'\$\("([a-z-]+)"\)', code)) | set(
        re.findall(r'lines\("([a-z]+)"', code)
    )
    assert {"banner", "warnings"} <= named
    assert named - set(re.findall(r'id="([a-z-]+)"', index)) == set()
