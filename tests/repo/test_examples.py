"""The example files are valid as they stand."""

from pathlib import Path

import pytest

from wattshift_cluster.config.blueprint import site_of, standing_jobs
from wattshift_cluster.config.load import load_agent, load_site
from wattshift_cluster.grid.vtn.script import read_script

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_example_site_can_be_built_and_mines_nothing_by_default() -> None:
    config = load_site(EXAMPLES / "site.toml", environ={})
    site = site_of(config)
    assert site.tree.names == ("main", "rack-1")
    assert standing_jobs(config, 0.0) == []


AGENTS = ["agent-host.toml", "agent-rack.toml", "agent-coins.toml", "grid/agent.toml"]


@pytest.mark.parametrize("name", AGENTS)
def test_the_example_agents_are_valid(name: str) -> None:
    assert load_agent(EXAMPLES / name, environ={}).agent.name


@pytest.mark.parametrize("name", ["site.toml", "site-coins.toml", "grid/site.toml"])
def test_the_example_sites_refer_to_their_agents(name: str) -> None:
    config = load_site(EXAMPLES / name, environ={})
    for agent in config.agents:
        assert agent.config is not None
        own = load_agent(agent.config, environ={})
        assert (own.agent.name, own.agent.listen) == (agent.name, agent.address)
        assert own.agent.token_file == agent.token_file


def test_the_dry_run_of_the_grid_fits_together() -> None:
    folder = EXAMPLES / "grid"
    site, script = load_site(folder / "site.toml", environ={}), read_script(folder / "cut.yaml")
    (utility,) = site.openadr
    (program,) = [step.program["programName"] for step in script if step.program]
    (event,) = [step.event for step in script if step.event]
    assert event["programID"] == program
    ((named, commitment_w),) = utility.commitments_w.items()
    assert (named, commitment_w) == (program, 8000.0)
    assert [one.name for one in site.settlement.programs] == [program]
