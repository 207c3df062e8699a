"""The example files are valid as they stand."""

from pathlib import Path

import pytest

from wattshift_cluster.config.blueprint import site_of, standing_jobs
from wattshift_cluster.config.load import load_agent, load_site

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_example_site_can_be_built_and_mines_nothing_by_default() -> None:
    config = load_site(EXAMPLES / "site.toml", environ={})
    site = site_of(config)
    assert site.tree.names == ("main", "rack-1")
    assert standing_jobs(config, 0.0) == []


@pytest.mark.parametrize("name", ["agent-host.toml", "agent-rack.toml", "agent-coins.toml"])
def test_the_example_agents_are_valid(name: str) -> None:
    assert load_agent(EXAMPLES / name, environ={}).agent.name


def test_the_example_site_refers_to_its_agents() -> None:
    config = load_site(EXAMPLES / "site.toml", environ={})
    for agent in config.agents:
        assert agent.config is not None
        own = load_agent(agent.config, environ={})
        assert (own.agent.name, own.agent.listen) == (agent.name, agent.address)
        assert own.agent.token_file == agent.token_file
