"""What the live page tells of a cap or a feeder that lies below what is drawn at the least."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import wattshift_cluster.api
from wattshift_cluster.api.app import ASSETS

PAGE = Path(wattshift_cluster.api.__file__).parent / "page"
SITE = {
    "cap_w": 450.0, "cap_origin": "operator", "cap_id": "c", "cap_waits": None, "cap_advice": None,
    "target_w": None, "mining_target_w": None, "next_change_at": None, "power_w": 500.0,
}  # fmt: skip
SHORT = {"shortfall_w": 110.0, "shortfall_counted_w": 3080.0}
STEPS = [{"deadline_s": 600, "deliverable_w": 1.0, "promised_w": 0.0}]


def said(folder: Path, what: str) -> Any:
    """What an expression over the page's own code comes to."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no node to run the page's code")
    for file in PAGE.glob("*.js"):
        (folder / file.name).write_text(file.read_text())
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "run.js").write_text(
        'import { facts } from "./grid.js";\nimport { shortWords } from "./short.js";\n'
        f"console.log(JSON.stringify({what}));\n"
    )
    ran = subprocess.run(
        [node, folder / "run.js"], capture_output=True, text=True, timeout=60, check=True
    )
    return json.loads(ran.stdout)


def test_a_shortfall_is_told_in_the_two_words_of_the_commands(tmp_path: Path) -> None:
    assert said(tmp_path, f"shortWords({json.dumps(SHORT)})") == "110 W asked, 3.08 kW counted"
    fits = {**SHORT, "shortfall_w": 0.0}
    assert said(tmp_path, f"shortWords({json.dumps(fits)})") == "0 W asked, 3.08 kW counted"
    assert said(tmp_path, "shortWords({})") == ""


def test_the_cap_is_marked_where_it_is_missed(tmp_path: Path) -> None:
    steps = json.dumps(STEPS)
    cap = said(tmp_path, f"facts({json.dumps({**SITE, **SHORT})}, {steps})")[0]
    assert (cap["bad"], cap["notes"][-1]) == (True, "short 110 W asked, 3.08 kW counted")
    cap = said(tmp_path, f"facts({json.dumps(SITE)}, {steps})")[0]
    assert cap["bad"] is False


def test_every_module_that_the_page_imports_is_served() -> None:
    code = "".join(file.read_text() for file in PAGE.glob("*.js"))
    assert set(re.findall(r'from "\./([a-z]+\.js)"', code)) <= set(ASSETS)
