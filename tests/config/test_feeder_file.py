"""`[[feeders]]` with two sides and margins of their own: what is read, and what is refused."""

from pathlib import Path

import pytest

from wattshift_cluster.config import blueprint
from wattshift_cluster.config.load import load_site
from wattshift_cluster.errors import ConfigInvalid, Fault
from wattshift_scheduler.errors import SiteInvalid

SITE = """
[site]
name = "hall"
state_dir = "state"
margin_pct = 2

[[feeders]]
name = "main"
limit = "10kW"

[[feeders]]
name = "pdu-a"
parent = "main"
limit = "6kW"

[[feeders]]
name = "pdu-b"
parent = "main"
limit = "6kW"
margin = "5%"

[[feeders]]
name = "rack"
parent = "pdu-a"
second_parent = "pdu-b"
limit = "4kW"

[compute]
name = "ray"
token_file = "bridge.token"

[[compute.nodes]]
name = "gpu-1"
feeder = "rack"
max = "2kW"
idle = "150W"
"""


def faults_of(folder: Path, text: str) -> list[Fault]:
    (folder / "site.toml").write_text(text)
    with pytest.raises(ConfigInvalid) as told:
        load_site(folder / "site.toml", environ={})
    return [fault for fault in told.value.faults if isinstance(fault, Fault)]


def test_two_sides_and_a_margin_reach_the_core(tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text(SITE)
    tree = blueprint.site_of(load_site(tmp_path / "site.toml", environ={})).tree
    path = {tree.names[i] for i in tree.path(tree.index["rack"])}
    assert path == {"main", "pdu-a", "pdu-b", "rack"}
    usable_w = dict(zip(tree.names, tree.usable_w(0.02).tolist(), strict=True))
    assert usable_w["pdu-b"] == pytest.approx(5700.0)
    assert usable_w["pdu-a"] == pytest.approx(5880.0)


TWO = 'second_parent = "pdu-b"'


@pytest.mark.parametrize(
    ("old", "new", "path", "value", "words"),
    [
        (TWO, 'second_parent = "pdu-a"', "feeders[3].second_parent", "pdu-a", "one way"),
        (TWO, 'second_parent = "main"', "feeders[3].second_parent", "main", "one path"),
        (TWO, 'second_parent = "pdu-c"', "feeders[3].second_parent", "pdu-c", "no such feeder"),
        (TWO, 'second_parent = "rack"', "feeders[3].second_parent", "rack", "rack > rack"),
        (
            'name = "pdu-b"\nparent = "main"',
            'name = "pdu-b"\nparent = "rack"',
            "feeders[2].parent",
            "rack",
            "pdu-b > rack > pdu-b",
        ),
        ('name = "pdu-b"', 'name = "pdu-a"', "feeders[2].name", "pdu-a", "given before"),
        ('limit = "10kW"', 'limit = "10kW"\nsecond_parent = "rack"', "feeders[0].second_parent",
         "rack", "no parent beside"),
        ('margin = "5%"', "margin = 0.05", "feeders[2].margin", "0.05", "with its sign"),
        ('margin = "5%"', 'margin = "-5%"', "feeders[2].margin", "-5%", "with its sign"),
        ('margin = "5%"', 'margin = "nan%"', "feeders[2].margin", "nan%", "with its sign"),
        ('margin = "5%"', 'margin = "80%"', "feeders[2].margin", "80%", "0% to 50%"),
        ('limit = "4kW"', "limit = nan", "feeders[3].limit", "nan", "finite"),
        ('limit = "4kW"', 'limit = "-4kW"', "feeders[3].limit", "-4kW", "allowed"),
        ('idle = "150W"', "idle = nan", "compute.nodes[0].idle", "nan", "finite"),
    ],
)  # fmt: skip
def test_each_mistake_is_refused_with_its_item(
    tmp_path: Path, old: str, new: str, path: str, value: str, words: str
) -> None:
    assert old in SITE
    faults = faults_of(tmp_path, SITE.replace(old, new, 1))
    found = [one for one in faults if one.path == path and words in one.message]
    assert len(found) == 1, faults
    assert value in str(found[0].value)


@pytest.mark.parametrize(("limit", "side"), [("157W", "pdu-b"), ("152W", "pdu-a")])
def test_each_side_must_carry_what_rests_below_with_its_own_margin(
    tmp_path: Path, limit: str, side: str
) -> None:
    row = f'name = "{side}"\nparent = "main"\nlimit = '
    fine = SITE.replace(f'{row}"6kW"', f'{row}"158W"')
    (tmp_path / "site.toml").write_text(fine.replace('max = "2kW"', 'max = "158W"'))
    load_site(tmp_path / "site.toml", environ={})
    faults = faults_of(tmp_path, SITE.replace(f'{row}"6kW"', f'{row}"{limit}"'))
    assert [one.path for one in faults] == [f"feeders[{2 if side == 'pdu-b' else 1}].limit"]
    assert "at rest" in faults[0].message


def test_a_loop_through_second_parents_is_one_fault(tmp_path: Path) -> None:
    rows = "".join(
        f'[[feeders]]\nname = "{a}"\nparent = "main"\nsecond_parent = "{b}"\nlimit = 9\n'
        for a, b in ("pq", "qr", "rp")
    )
    faults = faults_of(tmp_path, SITE.replace("[compute]", f"{rows}[compute]", 1))
    loops = [one for one in faults if "loop" in one.message]
    assert [(one.path, one.value) for one in loops] == [("feeders[4].second_parent", '"q"')]
    assert "p > q > r > p" in loops[0].message


def test_what_the_checks_let_through_the_core_refuses(tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text(SITE)
    config = load_site(tmp_path / "site.toml", environ={})
    rack = config.feeders[3].model_copy(update={"second_parent": "main"})
    with pytest.raises(SiteInvalid) as told:
        blueprint.site_of(config.model_copy(update={"feeders": (*config.feeders[:3], rack)}))
    assert told.value.item == "rack"
