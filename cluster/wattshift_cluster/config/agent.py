"""`agent.toml`: one agent, the hashing devices of its host, its pool, and its ASICs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from wattshift_cluster.config.fields import (
    FilePath,
    Host,
    Listen,
    Name,
    Section,
    StratumUrl,
    Switch,
    number,
    watts,
    whole,
)


class AgentSection(Section):
    """`[agent]`: where it listens and keeps its state.

    `host` names the machine whose compute its hashing devices share. `consent_file` is the owner's
    word that this machine may mine; without it only a loopback pool is used.
    """

    name: Name
    listen: Listen
    token_file: FilePath
    state_dir: FilePath
    gate_dir: FilePath
    consent_file: FilePath | None = None
    host: Name | None = None


class Hashing(Section):
    """`[hashing]`: the host's own hashing devices.

    `auto` takes every GPU, or the CPU where there is none. `cpu_w` is the power of one busy CPU as
    the model counts it: a CPU has no meter here, so its watts are always marked as modelled.
    """

    devices: Literal["auto", "none", "cpu"] = "auto"
    cpu_w: Annotated[float, watts(1, 10_000)] = 150.0
    nice: Annotated[int, whole(0, 19)] = 19


class Pool(Section):
    """`[pool]`: the Stratum pool that the agent's sessions go to."""

    url: StratumUrl
    user: str = Field(min_length=1, max_length=256)
    password: str = Field("x", max_length=256)
    suggest_difficulty: Annotated[float, number(1e-12, 1e18)] | None = None


class Asic(Section):
    """`[[asics]]`: one machine. A protected one is read and never written.

    `password_file` is the owner's word to log in; without it no password is ever tried, except on
    an emulated machine, where the maker's default is the emulator's own.
    """

    id: Name
    address: Host
    nameplate_w: Annotated[float, watts(1, 100_000)] | None = Field(None, alias="nameplate")
    emulated: Switch = False
    protected: Switch = False
    username: str | None = Field(None, min_length=1, max_length=256)
    password_file: FilePath | None = None


class AgentConfig(Section):
    """The whole of `agent.toml`."""

    agent: AgentSection
    hashing: Hashing = Hashing()
    pool: Pool | None = None
    asics: tuple[Asic, ...] = ()


def agent_schema() -> dict[str, Any]:
    """JSON Schema of `agent.toml`, by the keys that stand in the file."""
    return AgentConfig.model_json_schema(by_alias=True)
