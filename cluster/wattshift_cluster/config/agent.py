"""`agent.toml`: one agent, the hashing devices of its host, its pool, and its ASICs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from wattshift_cluster.config.fields import (
    FilePath,
    Host,
    HttpUrl,
    Listen,
    Name,
    Section,
    StratumUrl,
    Switch,
    number,
    seconds,
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
    `emulated` says that NVML is the emulator's: a CPU hashes for each GPU, and every watt is marked
    as emulated.
    """

    devices: Literal["auto", "none", "cpu"] = "auto"
    emulated: Switch = False
    cpu_w: Annotated[float, watts(1, 10_000)] = 150.0
    nice: Annotated[int, whole(0, 19)] = 19


class GpuSection(Section):
    """`[gpu]`: how this host's GPUs are read, limited, shared and steadied.

    Their power limits are written only when an operator says so: through NVML where this process
    may, through a running `zeusd`, or never (`read_only`). Beside a process that marks no gate
    nothing is mined, unless its owner opts in with `strangers = "when_quiet"`; `exclusive` is the
    owner's word that there is none, for drivers that do not say. Workers keep out of an MPS server,
    where one client's fault is everybody's, unless `mps` is set. With `steady` the draw of each GPU
    is held there, beside inference too, with changes of at most `steady_ramp` in a second.
    """

    sample_hz: Annotated[int, whole(10, 20)] = 20
    power_limits: Literal["nvml", "zeusd", "read_only"] = "nvml"
    zeusd_socket: FilePath = Path("/var/run/zeusd.sock")
    zeusd_token_file: FilePath | None = None
    strangers: Literal["never", "when_quiet"] = "never"
    exclusive: Switch = False
    mps: Switch = False
    steady_w: Annotated[float, watts(1, 10_000)] | None = Field(None, alias="steady")
    steady_ramp_w_per_s: Annotated[float, watts(1, 10_000)] = Field(100.0, alias="steady_ramp")


class Server(Section):
    """`[[servers]]`: an inference server that marks no gate and is asked for its metrics instead.

    What it says lags by seconds, so nothing is mined beside it unless its owner says `opt_in`; then
    it must have been quiet for `quiet`.
    """

    name: Name
    kind: Literal["vllm", "sglang", "triton", "tgi", "llamacpp"]
    url: HttpUrl
    devices: tuple[Name, ...] = Field(min_length=1, max_length=64)
    opt_in: Switch = False
    period_s: Annotated[float, seconds(0.1, 10)] = Field(0.5, alias="period")
    quiet_s: Annotated[float, seconds(0.1, 3600)] = Field(5.0, alias="quiet")
    stale_s: Annotated[float, seconds(0.2, 60)] = Field(2.0, alias="stale")


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
    gpu: GpuSection = GpuSection()
    servers: tuple[Server, ...] = ()
    pool: Pool | None = None
    asics: tuple[Asic, ...] = ()


def agent_schema() -> dict[str, Any]:
    """JSON Schema of `agent.toml`, by the keys that stand in the file."""
    return AgentConfig.model_json_schema(by_alias=True)
