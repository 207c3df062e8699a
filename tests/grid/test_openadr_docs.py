"""docs/openadr.md tells what each payload and report type becomes: as the tables in the code do."""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

from wattshift_cluster.config.site import SiteConfig
from wattshift_cluster.grid.openadr.meanings import MEANINGS
from wattshift_cluster.grid.openadr.readings import ANSWERS
from wattshift_cluster.grid.vtn.script import read_script

PAGE = (Path(__file__).parents[2] / "docs" / "openadr.md").read_text()
ROW = re.compile(r"\| `(\w+)` \| (\w+) \| (.+) \|")


def table(first_column: str) -> Mapping[str, tuple[str, str]]:
    """The rows of the table whose first column is called so."""
    _, below = PAGE.split(f"| {first_column} |", 1)
    rows = below.split("\n\n", 1)[0].splitlines()[2:]
    found = [ROW.fullmatch(row) for row in rows]
    assert all(found), rows
    return {one[1]: (one[2], one[3]) for one in found if one is not None}


def fenced(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_the_page_tells_what_each_payload_becomes() -> None:
    assert table("payload type") == {
        name: (str(one.becomes), one.why) for name, one in MEANINGS.items()
    }


def test_the_page_tells_what_each_report_is_answered_with() -> None:
    assert table("report type") == {
        name: (str(one.told), one.why or ", ".join(one.units) or "-")
        for name, one in ANSWERS.items()
    }


def test_the_site_file_and_the_script_of_the_dry_run_are_valid(tmp_path: Path) -> None:
    sites = [text for text in fenced("toml") if "[site]" in text]
    scripts = fenced("yaml")
    assert (len(sites), len(scripts)) == (1, 1)
    file = tmp_path / "cut.yaml"
    file.write_text(scripts[0])
    steps = read_script(file)
    assert [step.event["eventName"] for step in steps if step.event is not None] == ["cut"]
    site = SiteConfig.model_validate(tomllib.loads(sites[0]))
    assert site.openadr[0].webhook is not None


def test_every_section_that_is_shown_is_taken() -> None:
    bare = {
        "site": {"name": "x", "state_dir": "state"},
        "feeders": [{"name": "main", "limit": "30MW"}],
    }
    for text in fenced("toml"):
        SiteConfig.model_validate({**bare, **tomllib.loads(text)})
