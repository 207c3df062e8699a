"""What no single value can tell: references, the shape of the feeder tree, and sums that must fit.

Each check looks at a *draft*: the sections that are valid on their own, beside the raw file. So one
broken value hides no other fault, and a reference to a broken section is not a second fault.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from difflib import get_close_matches

from wattshift_cluster.config import (
    compute_checks,
    feeder_checks,
    meter_checks,
    openadr_checks,
    plan_checks,
    pool_checks,
    source_checks,
)
from wattshift_cluster.config.agent import Server
from wattshift_cluster.config.compute import Compute
from wattshift_cluster.config.draft import Draft as Draft
from wattshift_cluster.config.draft import Finding as Finding
from wattshift_cluster.config.draft import duplicates
from wattshift_cluster.config.fields import is_private, split_address
from wattshift_cluster.config.outlets import Pdu
from wattshift_cluster.config.proxy import ProxySection
from wattshift_cluster.config.quantities import format_seconds
from wattshift_cluster.config.site import AgentRef, Economics, Feeder, SiteSection

NAMES_SHOWN, NAME_SHOWN = 12, 63
"""Of the names that may stand somewhere so many are told, and so many letters of each."""


def check_site(draft: Draft) -> list[Finding]:
    """Every fault between the sections of a site file."""
    return [finding for check in _SITE_CHECKS for finding in check(draft)]


def check_agent(draft: Draft) -> list[Finding]:
    """Every fault between the sections of an agent file."""
    return [finding for check in _AGENT_CHECKS for finding in check(draft)]


def check_proxy(draft: Draft) -> list[Finding]:
    """Every fault between the sections of a proxy file."""
    return [finding for check in _PROXY_CHECKS for finding in check(draft)]


def _lease_times(draft: Draft) -> Iterator[Finding]:
    for path, site in draft.all(SiteSection):
        if site.lease_ttl_s < 2 * site.lease_renew_s:
            least = format_seconds(2 * site.lease_renew_s)
            yield (
                f"{path}.lease_ttl",
                format_seconds(site.lease_ttl_s),
                f"a lost renewal would expire it; allowed: at least twice lease_renew, {least}",
            )
        if site.lease_renew_s < site.tick_s:
            yield (
                f"{path}.lease_renew",
                format_seconds(site.lease_renew_s),
                f"shorter than a tick; allowed: at least {format_seconds(site.tick_s)}",
            )


def _unique_names(draft: Draft) -> Iterator[Finding]:
    for section in ("feeders", "agents", "services"):
        yield from duplicates(draft.names(section), section, "name")


def _unique_asics(draft: Draft) -> Iterator[Finding]:
    yield from duplicates(draft.names("asics", "id"), "asics", "id")
    yield from duplicates(draft.names("asics", "address"), "asics", "address")
    macs = [mac.upper().replace("-", ":") for mac in draft.names("asics", "mac")]
    yield from duplicates(macs, "asics", "mac")


def _outlets_of_asics(draft: Draft) -> Iterator[Finding]:
    """An outlet that is switched must be known to feed a machine of this agent."""
    yield from duplicates(draft.names("pdus"), "pdus", "name")
    known = set(draft.names("asics", "id"))
    for path, pdu in draft.all(Pdu):
        for place, outlet in enumerate(pdu.outlets):
            if outlet.device not in known:
                where = f"{path}.outlets[{place}].device"
                yield where, outlet.device, "no such ASIC; allowed: an id of [[asics]]"


def _watched_servers(draft: Draft) -> Iterator[Finding]:
    """A look must be able to end before it is stale, and quiet is a row of looks."""
    yield from duplicates(draft.names("servers"), "servers", "name")
    for path, server in draft.all(Server):
        least_s = {"quiet": server.period_s, "stale": 2 * server.period_s}
        for key, asked_s in (("quiet", server.quiet_s), ("stale", server.stale_s)):
            if asked_s < least_s[key]:
                allowed = f"allowed: at least {format_seconds(least_s[key])}"
                yield f"{path}.{key}", format_seconds(asked_s), f"too short for period; {allowed}"


def _one_program_a_card(draft: Draft) -> Iterator[Finding]:
    yield from duplicates(draft.names("miners", "device"), "miners", "device")


def _unique_addresses(draft: Draft) -> Iterator[Finding]:
    seen: dict[str, str] = {}
    rows = [(f"{path}.address", agent.address) for path, agent in draft.all(AgentRef)]
    rows += [(f"{path}.bridge", compute.bridge) for path, compute in draft.all(Compute)]
    for path, address in rows:
        if address in seen:
            yield path, address, f"already the address of {seen[address]}"
        seen.setdefault(address, path)


def _known_feeders(draft: Draft) -> Iterator[Finding]:
    known = draft.names("feeders")
    users: list[tuple[str, str]] = []
    users += [(f"{path}.feeder", agent.feeder) for path, agent in draft.all(AgentRef)]
    users += [(f"{path}.feeder", node.feeder) for path, node in compute_checks.places(draft)]
    users += [(f"{p}.parent", f.parent) for p, f in draft.all(Feeder) if f.parent is not None]
    seconds = [(f"{p}.second_parent", f.second_parent) for p, f in draft.all(Feeder)]
    users += [(path, name) for path, name in seconds if name is not None]
    for path, name in users:
        if name not in known:
            yield path, name, f"no such feeder; allowed: {_some(known, name)}"


def _some(known: Collection[str], wanted: str) -> str:
    """Names that may stand there, those like the wanted one first, in a line that can be read."""
    names = [name if len(name) <= NAME_SHOWN else f"{name[:NAME_SHOWN]}..." for name in known]
    near = get_close_matches(wanted, names)
    ordered = [*near, *(name for name in names if name not in near)]
    more = len(ordered) - NAMES_SHOWN
    told = [*ordered[:NAMES_SHOWN], *([f"and {more} more"] if more > 0 else [])]
    return ", ".join(told) or "none is defined"


def _one_hashprice_source(draft: Draft) -> Iterator[Finding]:
    for path, economics in draft.all(Economics):
        if economics.history is not None and economics.url is not None:
            yield path, None, "has both history and url; give one of the two"
        if economics.stale_after_s < 2 * economics.poll_s:
            least = format_seconds(2 * economics.poll_s)
            yield (
                f"{path}.stale_after",
                format_seconds(economics.stale_after_s),
                f"one lost answer would make it stale; allowed: at least twice poll, {least}",
            )


def _proxy_for_the_site_alone(draft: Draft) -> Iterator[Finding]:
    """Whoever reaches the proxy mines for its owner, and whoever reaches its page reads it."""
    for path, proxy in draft.all(ProxySection):
        if not proxy.public:
            for key, address in (("listen", proxy.listen), ("status", proxy.status)):
                if not is_private(split_address(address)[0]):
                    allowed = "allowed: a private or loopback address, or public = true"
                    yield f"{path}.{key}", address, f"others may reach it; {allowed}"
        if proxy.least_difficulty > proxy.start_difficulty:
            allowed = f"allowed: at least {proxy.least_difficulty:g}"
            yield f"{path}.start_difficulty", proxy.start_difficulty, f"below the least; {allowed}"
        if proxy.tls_key is not None and proxy.tls_cert is None:
            yield f"{path}.tls_key", str(proxy.tls_key), "has no tls_cert beside it"


def _unique_workers(draft: Draft) -> Iterator[Finding]:
    yield from duplicates(draft.names("workers"), "workers", "name")


_SITE_CHECKS: tuple[Callable[[Draft], Iterator[Finding]], ...] = (
    _lease_times,
    _unique_names,
    _unique_addresses,
    _known_feeders,
    *feeder_checks.CHECKS,
    *compute_checks.CHECKS,
    *openadr_checks.CHECKS,
    *meter_checks.CHECKS,
    *source_checks.CHECKS,
    *plan_checks.CHECKS,
    _one_hashprice_source,
)
_AGENT_CHECKS: tuple[Callable[[Draft], Iterator[Finding]], ...] = (
    _unique_asics,
    _one_program_a_card,
    _outlets_of_asics,
    *pool_checks.AGENT_CHECKS,
    _watched_servers,
)
_PROXY_CHECKS: tuple[Callable[[Draft], Iterator[Finding]], ...] = (
    _proxy_for_the_site_alone,
    _unique_workers,
    *pool_checks.PROXY_CHECKS,
)
