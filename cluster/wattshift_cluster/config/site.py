"""`site.toml`: one site, its feeders, who acts on it, and what its watts are worth.

Field names carry their unit; the key in the file is the shorter alias (`lease_ttl` for
`lease_ttl_s`), since there every quantity may be text with a unit. Paths are relative to
the file's own folder.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from wattshift_cluster.config.compute import Compute, Tenant
from wattshift_cluster.config.fields import (
    FilePath,
    Glob,
    HttpUrl,
    ImportPath,
    Listen,
    Name,
    Peer,
    Section,
    number,
    seconds,
    usd,
    usd_per_mwh,
    watts,
    whole,
)
from wattshift_cluster.config.margins import margin
from wattshift_cluster.config.market import Market
from wattshift_cluster.config.meters import Meter
from wattshift_cluster.config.openadr import OpenAdr, OpenAdr2
from wattshift_cluster.config.plan import Plan
from wattshift_cluster.config.rules import SignalRules
from wattshift_cluster.config.settlement import Settlement
from wattshift_cluster.config.utility import DRILLS_MOST, Alarms, Drill, Solar, Utility


class SiteSection(Section):
    """`[site]`: the control loop and what nobody leases.

    `margin_pct` is the share of every limit that stays free; `other_load_w` bounds the load that
    nobody leases; `floor_w` is the least the site can be brought to (None: the sum of safe points).
    `expected_shed` is how long a cap without an end, or a price, is expected to hold: the cost of
    a sleep and a wake is laid on so many hours. In mode `shadow` the controller decides and tells,
    and commands nothing at all.
    """

    name: Name
    state_dir: FilePath
    mode: Literal["control", "shadow"] = "control"
    tick_s: Annotated[float, seconds(0.1, 10)] = Field(1.0, alias="tick")
    lease_ttl_s: Annotated[float, seconds(1, 300)] = Field(15.0, alias="lease_ttl")
    lease_renew_s: Annotated[float, seconds(0.2, 100)] = Field(5.0, alias="lease_renew")
    expected_shed_s: Annotated[float, seconds(60, 604_800)] = Field(3600.0, alias="expected_shed")
    margin_pct: Annotated[float, number(0, 50, "%")] = 2.0
    other_load_w: Annotated[float, watts(0)] = Field(0.0, alias="other_load")
    floor_w: Annotated[float, watts(0)] | None = Field(None, alias="floor")


class Feeder(Section):
    """`[[feeders]]`: one limit of the power tree, in watts or as a breaker in amps per phase.

    A breaker is converted at the least line-to-neutral voltage and the least power factor, so that
    the watts hold on the worst day: amps * phases * volts * power factor.

    `meter` is the URL of its own meter, answering as the site's does; it is shown, raises alarms,
    and lets `wattshift commission` find what hangs elsewhere. The root's is `[meter]`.

    What is fed from two sides names the other as `second_parent`: each must be able to carry all of
    it alone, so it counts in full on both. `margin`, such as "5%", keeps another share of this
    limit free than `margin_pct` of the site does of all.
    """

    name: Name
    parent: Name | None = None
    second_parent: Name | None = None
    own_margin_pct: Annotated[float, margin(0, 50)] | None = Field(None, alias="margin")
    meter: Meter | None = None
    meter_stale_after_s: Annotated[float, seconds(0.2, 3600)] | None = Field(
        None, alias="meter_stale_after"
    )
    stated_limit_w: Annotated[float, watts(1)] | None = Field(None, alias="limit")
    amps_a: Annotated[float, number(0.1, 100_000, "A")] | None = Field(None, alias="amps")
    phases: Annotated[int, whole(1, 3)] | None = None
    min_voltage_v: Annotated[float, number(50, 500_000, "V")] | None = Field(
        None, alias="min_voltage"
    )
    power_factor: Annotated[float, number(0.1, 1)] | None = None

    @property
    def limit_w(self) -> float:
        """The feeder's limit in W, whichever way it was stated."""
        if self.stated_limit_w is not None:
            return self.stated_limit_w
        assert self.amps_a is not None, "checked by the loader: a feeder has a limit or amps"
        volts_v = 218.0 if self.min_voltage_v is None else self.min_voltage_v
        factor = 0.95 if self.power_factor is None else self.power_factor
        return self.amps_a * (self.phases or 1) * volts_v * factor


class AgentRef(Section):
    """`[[agents]]`: where an agent listens and which of its devices this site may lease.

    With `config`, `wattshift up` starts the agent as a child with that agent.toml.
    """

    name: Name
    address: Peer
    token_file: FilePath
    feeder: Name
    devices: tuple[Glob, ...] = ("*",)
    config: FilePath | None = None


class Grid(Section):
    """`[grid]`: what the grid asks and what energy costs. A price that nobody gives is unknown."""

    schedule: FilePath | None = None
    prices: FilePath | None = None
    default_price_usd_per_mwh: Annotated[float, usd_per_mwh(-100_000, 100_000)] | None = None
    poll_s: Annotated[float, seconds(0.1, 3600)] = Field(1.0, alias="poll")


class Economics(Section):
    """`[economics]`: where the hashprice comes from. Without a file or URL it is the constant of
    `[values]`; with one, that constant is not used, and a hashprice that nobody knows is unknown.

    `history` is a CSV or JSON file of figures, `url` a server that speaks the mempool project's
    JSON, without `/api`; nothing is asked of anybody unless it is set. A figure older than
    `stale_after` is unknown; one that changes by the factor `jump` is held and flagged until
    `confirm_samples` later ones or an operator confirm it. `scheme` is how the pool pays.
    """

    history: FilePath | None = None
    url: HttpUrl | None = None
    poll_s: Annotated[float, seconds(1, 86_400)] = Field(300.0, alias="poll")
    stale_after_s: Annotated[float, seconds(10, 31 * 86_400)] = Field(21_600.0, alias="stale_after")
    jump: Annotated[float, number(1.5, 1000)] = 10.0
    confirm_samples: Annotated[int, whole(1, 1000)] = 3
    scheme: Literal["pps", "fpps", "pps+", "pplns"] = "fpps"


class Values(Section):
    """`[values]`: what a watt earns in each kind of work.

    `reserve_usd_per_mwh` is the value of a watt that can be shed through a gate, paid for the
    flexibility and not for the hashes. Service and batch values hold for jobs that name none.
    """

    hashprice_usd_per_ph_day: Annotated[float, usd(0, 10_000)] = 40.0
    pool_fee_pct: Annotated[float, number(0, 100, "%")] = 2.0
    reserve_usd_per_mwh: Annotated[float, usd_per_mwh(0, 100_000)] = 0.0
    service_usd_per_kwh: Annotated[float, usd(0, 100_000)] = 2.0
    batch_usd_per_kwh: Annotated[float, usd(0, 100_000)] = 0.5


class Mining(Section):
    """`[mining]`: devices of the standing mining job, as patterns; none switches it off."""

    devices: tuple[Glob, ...] = ()


class Service(Section):
    """`[[services]]`: an inference application that the controller scales within its watts."""

    name: Name
    import_path: ImportPath
    watts_per_replica_w: Annotated[float, watts(1, 1e6)] = Field(alias="watts_per_replica")
    min_replicas: Annotated[int, whole(0, 10_000)] = 1
    max_replicas: Annotated[int, whole(1, 10_000)] = 1
    slo_p95_s: Annotated[float, seconds(0.001, 3600)] = Field(0.5, alias="slo_p95")
    value_usd_per_h: Annotated[float, usd(0, 1e6)] = 1.0


class Api(Section):
    """`[api]`: where the controller serves HTTP."""

    listen: Listen = "127.0.0.1:8080"


class SiteConfig(Section):
    """The whole of `site.toml`."""

    site: SiteSection
    feeders: tuple[Feeder, ...]
    agents: tuple[AgentRef, ...] = ()
    compute: Compute | None = None
    tenants: tuple[Tenant, ...] = ()
    meter: Meter | None = None
    grid: Grid = Grid()
    openadr: tuple[OpenAdr, ...] = ()
    openadr2: tuple[OpenAdr2, ...] = ()
    market: Market = Market()
    utility: Utility | None = None
    solar: Solar | None = None
    drills: Annotated[tuple[Drill, ...], Field(max_length=DRILLS_MOST)] = ()
    alarms: Alarms | None = None
    rules: SignalRules = SignalRules()
    settlement: Settlement = Settlement()
    economics: Economics = Economics()
    values: Values = Values()
    mining: Mining = Mining()
    plan: Plan = Plan()
    services: tuple[Service, ...] = ()
    api: Api = Api()

    @property
    def root(self) -> Feeder:
        """The feeder without a parent: the site's connection."""
        return next(feeder for feeder in self.feeders if feeder.parent is None)

    @property
    def signal_sources(self) -> tuple[str, ...]:
        """The sources of signals that it names; of several prices that of the first one holds."""
        files = {"schedule": self.grid.schedule, "price": self.grid.prices}
        named = [name for name, path in files.items() if path is not None]
        vtns = (*(one.name for one in self.openadr), *(one.name for one in self.openadr2))
        own = {
            "utility": self.utility is not None and self.utility.modbus is not None,
            "solar": self.solar is not None,
            "drills": bool(self.drills),
        }
        others = (name for name, there in own.items() if there)
        return (*named, *vtns, *self.market.names, *others)

    @property
    def wants_plan(self) -> bool:
        """Whether a plan is made: as the file says, else where something is known beforehand.

        A site of one price, without events or deadlines, has nothing to look ahead to: there the
        ladder does as well without, and a process is saved.
        """
        if self.plan.enabled is not None:
            return self.plan.enabled
        ahead = any(name not in ("solar", "drills") for name in self.signal_sources)
        return ahead or self.plan.demand_charge_usd_per_kw > 0 or self.compute is not None


def site_schema() -> dict[str, Any]:
    """JSON Schema of `site.toml`, by the keys that stand in the file."""
    return SiteConfig.model_json_schema(by_alias=True)
