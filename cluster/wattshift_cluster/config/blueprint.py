"""From a valid site file to what the core knows: its tree, its rules, its values, standing jobs."""

import math
from collections.abc import Mapping
from typing import Any

from wattshift_cluster.config.compute import Tenant as TenantSection
from wattshift_cluster.config.site import Feeder as FeederSection
from wattshift_cluster.config.site import Service, SiteConfig
from wattshift_scheduler.jobs import Job, JobKind, PowerStep, Terms
from wattshift_scheduler.site import Feeder, FeederTree, Node, Rules, Site, Tenant
from wattshift_scheduler.values import Values

STANDING_MINING = "mining-standing"
"""Id of the mining job that stands in the site file."""


def site_of(config: SiteConfig) -> Site:
    """The fixed part of the site. Raises SiteInvalid where the loader let something through."""
    section, asked = config.site, config.rules
    tree = FeederTree.of(_feeder(one) for one in config.feeders)
    places = () if config.compute is None else config.compute.nodes
    nodes = tuple(Node(n.name, n.feeder, n.max_w, n.gpus, dict(n.labels)) for n in places)
    margin = section.margin_pct / 100.0
    rules = Rules(
        margin_share=margin,
        stale_margin_share=max(2.5 * margin, Rules().stale_margin_share),
        lease_ttl_s=section.lease_ttl_s,
        lease_renew_s=section.lease_renew_s,
        expected_shed_s=section.expected_shed_s,
        stale_after_s=max(3.0, 3 * section.tick_s),
        other_load_w=section.other_load_w + sum(node.idle_w for node in places),
        act_at_confidence=asked.act_at_confidence,
        ramp_up_w_per_s=asked.ramp_up_w_per_s or math.inf,
        ramp_down_w_per_s=asked.ramp_down_w_per_s or math.inf,
        hold_s=asked.hold_s,
        stagger_s=asked.stagger_s,
        min_up_s=asked.min_on_s,
        min_down_s=asked.min_off_s,
        burst_share=asked.burst_reserve_pct / 100.0,
    )
    agents = tuple(agent.name for agent in config.agents)
    tenants = tuple(_tenant(one) for one in config.tenants)
    return Site(section.name, tree, nodes, rules, agents, tenants)


def _feeder(one: FeederSection) -> Feeder:
    own_pct = one.own_margin_pct
    margin_share = None if own_pct is None else own_pct / 100.0
    return Feeder(one.name, one.parent, one.limit_w, one.second_parent, margin_share)


def _tenant(one: TenantSection) -> Tenant:
    return Tenant(
        one.name,
        one.weight,
        math.inf if one.quota_w is None else one.quota_w,
        math.inf if one.quota_gpus is None else one.quota_gpus,
        one.borrow,
    )


def values_of(config: SiteConfig) -> Values:
    """What a watt is worth at this site."""
    values = config.values
    return Values(
        hashprice_usd_per_ph_day=values.hashprice_usd_per_ph_day,
        pool_fee_share=values.pool_fee_pct / 100.0,
        reserve_usd_per_mwh=values.reserve_usd_per_mwh,
        default_price_usd_per_mwh=config.grid.default_price_usd_per_mwh,
        carbon_usd_per_t=config.plan.carbon_usd_per_t,
    )


def standing_jobs(config: SiteConfig, now_s: float) -> list[Job]:
    """The jobs that the site file asks for: its mining and its services."""
    jobs = [_service(service, now_s) for service in config.services]
    if config.mining.devices:
        devices = list(config.mining.devices)
        spec = {"kind": "mining", "name": "standing", "devices": devices}
        jobs.append(Job(STANDING_MINING, JobKind.MINING, "standing", spec, now_s))
    return jobs


def _service(service: Service, now_s: float) -> Job:
    spec = {
        "kind": "service",
        "name": service.name,
        "import_path": service.import_path,
        "watts_per_replica_w": service.watts_per_replica_w,
        "min_replicas": service.min_replicas,
        "max_replicas": service.max_replicas,
        "slo_p95_ms": service.slo_p95_s * 1000.0,
        "value_usd_per_h": service.value_usd_per_h,
    }
    return job_of(f"service-{service.name}", spec, now_s)


def job_of(job_id: str, spec: dict[str, Any], now_s: float) -> Job:
    """A job from the specification that the API or the site file made.

    Args:
        job_id: unique in the site.
        spec: as `api.jobspec` writes it, with units in its names.
        now_s: our clock, s.

    Raises:
        JobInvalid: it can never run.
    """
    kind = JobKind(str(spec["kind"]))
    name = str(spec["name"])
    if kind is JobKind.MINING:
        return Job(job_id, kind, name, spec, now_s)
    value = _number(spec, "value_usd_per_h")
    if kind is JobKind.BATCH:
        return Job(
            job_id,
            kind,
            name,
            spec,
            now_s,
            unit_w=_number(spec, "watts_w"),
            max_units=int(spec.get("workers") or 1),
            value_usd_per_h=value,
            deadline_s=_optional(spec, "deadline_at_s"),
            terms=terms_of(spec),
        )
    return Job(
        job_id,
        kind,
        name,
        spec,
        now_s,
        unit_w=_number(spec, "watts_per_replica_w"),
        min_units=int(_number(spec, "min_replicas")),
        max_units=int(_number(spec, "max_replicas")),
        value_usd_per_h=value,
        slo_p95_ms=_optional(spec, "slo_p95_ms"),
        terms=terms_of(spec),
    )


def terms_of(spec: Mapping[str, Any]) -> Terms:
    """The terms on which a job runs, from its specification; what it does not name is usual."""
    usual = Terms()
    selector = spec.get("labels") or {}
    return Terms(
        tenant=str(spec.get("tenant") or usual.tenant),
        priority=int(spec.get("priority") or 0),
        gpus=float(spec.get("gpus") or 0.0),
        selector=tuple(sorted((str(key), str(value)) for key, value in selector.items())),
        gang=bool(spec.get("gang")),
        min_run_s=float(spec.get("min_run_s") or 0.0),
        flexibility=int(spec.get("flexibility") or 0),
        steps=tuple(
            PowerStep(float(step["watts_w"]), float(step["throughput"]))
            for step in spec.get("power_steps") or ()
        ),
        slo_ttft_p95_ms=spec.get("slo_ttft_p95_ms"),
        slo_itl_p95_ms=spec.get("slo_itl_p95_ms"),
    )


def _number(spec: dict[str, object], key: str) -> float:
    value = spec[key]
    assert isinstance(value, int | float), f"{key} was checked at the edge"
    return float(value)


def _optional(spec: dict[str, object], key: str) -> float | None:
    return None if spec.get(key) is None else _number(spec, key)
