"""`agent.toml`: one agent, its host's hashing devices, pool, ASICs and outlets, and its grid."""

from __future__ import annotations

import re
from ipaddress import IPv4Network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from wattshift_cluster.config.fields import (
    FilePath,
    Fingerprint,
    Host,
    HttpUrl,
    Listen,
    Name,
    Section,
    StratumUrl,
    Switch,
    number,
    seconds,
    usd,
    watts,
    whole,
)
from wattshift_cluster.config.frequency import Frequency
from wattshift_cluster.config.outlets import Pdu

Algorithm = Literal["sha256d", "autolykos2", "etchash", "kheavyhash", "blake3"]
"""What we have kernels for; names of `wattshift_kernels.algorithms`."""

_MAC = re.compile(r"([0-9A-F]{2}:){5}[0-9A-F]{2}")

MIN_OFF_S = 600.0
"""Least time asleep of a real machine whose owner names none: its boards cool and warm once."""

WEAR_USD_PER_CYCLE = 0.0
"""Wear of one sleep and wake where the owner names none, USD. No maker publishes a figure, and it
depends on what the machine is worth: a guess would hold one awake at a loss that nobody chose. What
a machine does not earn while it boots is always counted; docs/fleet.md says how to work wear out.
"""

MAX_PDUS = 256
"""Cabinets of one agent; at least as many as its LAN segment has racks."""


def _mac(value: str) -> str:
    upper = value.upper().replace("-", ":")
    if not _MAC.fullmatch(upper):
        raise ValueError("not a hardware address; allowed: six pairs such as 02:00:5E:10:00:01")
    return upper


Mac = Annotated[str, AfterValidator(_mac)]


def _cidr(value: str) -> str:
    try:
        return str(IPv4Network(value.strip(), strict=False))
    except ValueError:
        raise ValueError("not an IPv4 range; allowed: for example 10.1.0.0/24") from None


Cidr = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_cidr)]


class AgentSection(Section):
    """`[agent]`: where it listens and keeps its state.

    `host` names the machine whose compute its hashing devices share. `consent_file` is the owner's
    word that this machine may mine; without it only a loopback pool is used. With `shadow` it only
    reads: for a site whose controller decides and commands nothing.
    """

    name: Name
    listen: Listen
    token_file: FilePath
    state_dir: FilePath
    gate_dir: FilePath
    consent_file: FilePath | None = None
    host: Name | None = None
    shadow: Switch = False


class Hashing(Section):
    """`[hashing]`: the host's own hashing devices.

    `auto` takes every GPU, or the CPU where there is none. `cpu_w` is the power of one busy CPU as
    the model counts it: a CPU has no meter here, so its watts are always marked as modelled.
    `emulated` says that NVML is the emulator's: a CPU hashes for each GPU, and every watt is marked
    as emulated.

    `algorithms` says of a device what it may mine, the wanted first: it mines the first for which
    this file names a pool. A device without a word there mines what `[pool]` does.
    """

    devices: Literal["auto", "none", "cpu"] = "auto"
    emulated: Switch = False
    cpu_w: Annotated[float, watts(1, 10_000)] = 150.0
    nice: Annotated[int, whole(0, 19)] = 19
    algorithms: Annotated[dict[Name, tuple[Algorithm, ...]], Field(max_length=64)] = {}  # noqa: RUF012 - pydantic copies it


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


class PoolAccount(Section):
    """`[[pool.fallback]]`: a Stratum pool, and who we are there.

    `stratum+tls://` pools are checked by the system's authorities, by those of `ca_file`, or by the
    SHA-256 `fingerprint` of their own certificate. A pool that is not on this machine and speaks no
    TLS needs `plaintext`: whoever is on the way can then take the hash rate. `minimum_difficulty`
    is the least that is accepted, where a pool knows BIP 310. `report_url` is the pool's own page
    about us, read once a minute: an alarm says when its figures differ from ours by more than 2 %.
    """

    url: StratumUrl
    user: str = Field(min_length=1, max_length=256)
    password: str = Field("x", max_length=256, repr=False)
    suggest_difficulty: Annotated[float, number(1e-12, 1e18)] | None = None
    minimum_difficulty: Annotated[float, number(1e-12, 1e18)] | None = None
    ca_file: FilePath | None = None
    fingerprint: Fingerprint | None = None
    plaintext: Switch = False
    report_url: HttpUrl | None = Field(None, repr=False)


class Pool(PoolAccount):
    """`[pool]`: the Stratum pool that the agent's sessions go to, and those to fall back to.

    Its `algorithm` says which coin's pools they are, and how they speak. Pools of further coins
    stand in `[[pools]]`, one of each algorithm. `usd_per_gh_per_day` is the owner's figure: what a
    GH/s of this coin earns in a day; sha256d is paid by the site's hashprice instead.

    A pool that cannot be had for `give_up` is left for the next of `[[pool.fallback]]`; one that
    has then been well for `return_after` is returned to. When none has had work for `hold`, the
    hashing devices offer no watts but their idle ones until one has.
    """

    algorithm: Algorithm = "sha256d"
    fallback: tuple[PoolAccount, ...] = Field((), max_length=15)
    usd_per_gh_per_day: Annotated[float, number(0, 1e6, " USD/GH/day")] = 0.0
    give_up_s: Annotated[float, seconds(1, 3600)] = Field(30.0, alias="give_up")
    return_after_s: Annotated[float, seconds(1, 86_400)] = Field(300.0, alias="return_after")
    hold_s: Annotated[float, seconds(1, 3600)] = Field(30.0, alias="hold")


class Miner(Section):
    """`[[miners]]`: a mining program of another maker on one GPU, for a coin we have no kernel for.

    The consent file names its pool and account, and the program itself where its developers take
    a part of the hashing. `path` is not for the service to change. `arguments` adds options of its
    row, as `--name=value`; with `program = "command"` they are the whole command line, and the
    consent file holds the same. `revenue_usd_per_h` is the owner's figure: what this coin earns.
    The program keeps the card's memory for `keep` after the gate has closed, and goes on when the
    gate has been open for `quiet`.
    """

    device: Name
    program: Literal["t-rex", "xmrig", "lolminer", "nbminer", "rigel", "bzminer", "command"]
    path: FilePath
    algorithm: Name
    url: StratumUrl
    user: str = Field(min_length=1, max_length=256)
    password: str = Field("x", max_length=256, repr=False)
    plaintext: Switch = False
    arguments: Annotated[tuple[str, ...], Field(max_length=64)] = ()
    api_port: Annotated[int, whole(1024, 65_535)] = 4067
    revenue_usd_per_h: Annotated[float, number(0, 1000, " USD/h")] = 0.0
    keep_s: Annotated[float, seconds(0, 3600)] = Field(30.0, alias="keep")
    quiet_s: Annotated[float, seconds(0, 3600)] = Field(2.0, alias="quiet")


class Asic(Section):
    """`[[asics]]`: one machine. A protected one is read and never written.

    `password_file` is the owner's word to log in; without it no password is ever tried, except on
    an emulated machine, where the maker's default is the emulator's own.

    `mac` names the machine that is meant: another one at this address is never commanded. Without
    it the first one seen there is. After a sleep it stays asleep for `min_off`, and a whole cycle
    takes at least `min_on` longer; sleep itself is never delayed. `found_asleep` says what becomes
    of a machine that somebody else had put to sleep: `leave` it until an operator wakes it, or
    `wake` it as leases ask. Without a word of the file a real machine rests for 10 minutes and is
    left; an emulated one has nothing to wear out. `wear_usd_per_cycle` is what one sleep and wake
    costs this machine; without it `[asic]`'s holds. `worker` is its name at the proxy, if
    that is not its `id`.
    """

    id: Name
    address: Host
    nameplate_w: Annotated[float, watts(1, 100_000)] | None = Field(None, alias="nameplate")
    emulated: Switch = False
    protected: Switch = False
    username: str | None = Field(None, min_length=1, max_length=256)
    password_file: FilePath | None = None
    mac: Mac | None = None
    min_off_s: Annotated[float, seconds(0, 86_400)] | None = Field(None, alias="min_off")
    min_on_s: Annotated[float, seconds(0, 86_400)] | None = Field(None, alias="min_on")
    found_asleep: Literal["leave", "wake"] | None = None
    wear_usd_per_cycle: Annotated[float, usd(0, 1000)] | None = None
    worker: Name | None = None

    @property
    def rests_s(self) -> tuple[float, float]:
        """The least seconds asleep and awake, defaults filled in."""
        usual_s = 0.0 if self.emulated else MIN_OFF_S
        off_s = usual_s if self.min_off_s is None else self.min_off_s
        return off_s, 0.0 if self.min_on_s is None else self.min_on_s

    @property
    def left_asleep(self) -> bool:
        """Whether it is left alone when it was asleep before us, defaults filled in."""
        return (self.found_asleep or ("wake" if self.emulated else "leave")) == "leave"


class AsicSection(Section):
    """`[asic]`: what holds for all machines of this agent.

    At most `wake_per_minute` of them, and machines of at most `wake_watts_per_minute`, wake in any
    minute; emulated ones do not wait in line unless either is set. A machine whose hottest board
    reaches `board_limit_c` is lowered point by point, and none that hot is woken; nor is one whose
    firmware tells that the air it breathes has `inlet_limit_c`.

    A machine that is silent or replaced by another at its address is looked for by its hardware
    address: in `inventory_file` (of `fleet scan --inventory`), in the kernel's neighbour table, and
    by a sweep of `ranges` (private ones, now and then). Without ranges nothing is swept.

    `wear_usd_per_cycle` is what one sleep and wake wears off a machine; without it wear counts
    nothing. No price sends a machine to sleep for less than that and what it misses while it boots.

    `proxy_url` is the status page of the Stratum proxy that they mine through
    (`http://127.0.0.1:3336`): their shares are taken from it, and while it has no pool they are
    leased nothing but sleep.
    """

    wake_per_minute: Annotated[int, whole(1, 100_000)] | None = None
    wake_watts_per_minute_w: Annotated[float, watts(1)] | None = Field(
        None, alias="wake_watts_per_minute"
    )
    board_limit_c: Annotated[float, number(30, 150, " °C")] | None = None
    inlet_limit_c: Annotated[float, number(0, 80, " °C")] | None = None
    inventory_file: FilePath | None = None
    proxy_url: HttpUrl | None = None
    ranges: Annotated[tuple[Cidr, ...], Field(max_length=64)] = ()
    wear_usd_per_cycle: Annotated[float, usd(0, 1000)] | None = None

    def wear_usd(self, asic: Asic) -> float:
        """What one sleep and wake wears off a machine, USD; defaults filled in."""
        named = (asic.wear_usd_per_cycle, self.wear_usd_per_cycle)
        return next((wear for wear in named if wear is not None), WEAR_USD_PER_CYCLE)


class AgentConfig(Section):
    """The whole of `agent.toml`."""

    agent: AgentSection
    hashing: Hashing = Hashing()
    gpu: GpuSection = GpuSection()
    servers: tuple[Server, ...] = ()
    pool: Pool | None = None
    pools: Annotated[tuple[Pool, ...], Field(max_length=4)] = ()
    miners: Annotated[tuple[Miner, ...], Field(max_length=64)] = ()
    asic: AsicSection = AsicSection()
    asics: tuple[Asic, ...] = ()
    pdus: Annotated[tuple[Pdu, ...], Field(max_length=MAX_PDUS)] = ()
    frequency: Frequency | None = None


def agent_schema() -> dict[str, Any]:
    """JSON Schema of `agent.toml`, by the keys that stand in the file."""
    return AgentConfig.model_json_schema(by_alias=True)
