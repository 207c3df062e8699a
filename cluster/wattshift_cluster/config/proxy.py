"""`proxy.toml`: the Stratum proxy of a site's ASICs, its pools, and which machine is who.

`[pool]` and `[[pool.fallback]]` are those of agent.toml; its `hold` is how long miners keep their
last job after the pools were lost.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from wattshift_cluster.config.agent import Pool
from wattshift_cluster.config.fields import (
    FilePath,
    Listen,
    Name,
    Section,
    Switch,
    number,
    seconds,
    whole,
)

MAX_WORKERS = 10_000


class ProxySection(Section):
    """`[proxy]`: where it listens, and how it treats miners.

    `listen` is an address of the machines' own network; one that others can reach is refused unless
    `public` is set. `status` answers whoever can reach it, so it should stay on loopback.
    `consent_file` is the owner's word for the pools and payout accounts.

    With `per_worker` each machine's difficulty follows its own pace, `shares_per_minute`, between
    `least_difficulty` and the pool's; without it all have the pool's. With `only_known` a machine
    that no `[[workers]]` names is refused.
    """

    listen: Listen = "127.0.0.1:3335"
    status: Listen = "127.0.0.1:3336"
    public: Switch = False
    consent_file: FilePath | None = None
    tls_cert: FilePath | None = None
    tls_key: FilePath | None = None
    max_sessions: Annotated[int, whole(1, 60_000)] = 5_000
    max_per_address: Annotated[int, whole(1, 60_000)] = 64
    idle_s: Annotated[float, seconds(10, 86_400)] = Field(3600.0, alias="idle")
    per_worker: Switch = True
    start_difficulty: Annotated[float, number(1e-9, 1e15)] = 65_536.0
    least_difficulty: Annotated[float, number(1e-9, 1e15)] = 1.0
    shares_per_minute: Annotated[float, number(10, 600)] = 12.0
    only_known: Switch = False


class Worker(Section):
    """`[[workers]]`: the device behind the name that a machine logs in with.

    A name that is not listed stands for itself: `account.asic-7` and `asic-7` are device `asic-7`.
    """

    name: str = Field(min_length=1, max_length=128)
    device: Name


class ProxyConfig(Section):
    """The whole of `proxy.toml`."""

    proxy: ProxySection
    pool: Pool
    workers: Annotated[tuple[Worker, ...], Field(max_length=MAX_WORKERS)] = ()


def proxy_schema() -> dict[str, Any]:
    """JSON Schema of `proxy.toml`, by the keys that stand in the file."""
    return ProxyConfig.model_json_schema(by_alias=True)
