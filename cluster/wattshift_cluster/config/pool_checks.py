"""What a file's pools must not be: in the clear, twice of one coin, asked for what they lack."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from wattshift_cluster.config.agent import Hashing, Miner, Pool, PoolAccount
from wattshift_cluster.config.draft import Draft, Finding
from wattshift_cluster.config.fields import is_loopback, split_address
from wattshift_cluster.config.payouts import coin_of


def _pools_in_the_clear(draft: Draft) -> Iterator[Finding]:
    """Work and shares leave this machine encrypted, or because the owner says so."""
    for path, pool in draft.all(Pool):
        for where, one in _rows(path, pool):
            plain = one.url.startswith("stratum+tcp://")
            if plain and (one.ca_file or one.fingerprint):
                yield f"{where}.url", one.url, "has a certificate to check but speaks no TLS"
            yield from _in_the_clear(where, one)
    for path, miner in draft.all(Miner):
        yield from _in_the_clear(path, miner)


def _in_the_clear(where: str, one: PoolAccount | Miner) -> Iterator[Finding]:
    scheme, _, address = one.url.partition("://")
    outside = not is_loopback(split_address(address.rstrip("/"))[0])
    if scheme == "stratum+tcp" and outside and not one.plaintext:
        allowed = "allowed: stratum+tls://, or plaintext = true beside it"
        yield f"{where}.url", one.url, f"not encrypted; {allowed}"


def _one_pool_a_coin(draft: Draft) -> Iterator[Finding]:
    """Two pools of one coin are one with another to fall back to; and what only Bitcoin's know."""
    seen: dict[str, str] = {}
    for path, pool in draft.all(Pool):
        first = seen.setdefault(pool.algorithm, path)
        if first != path:
            allowed = f"allowed: another coin, or [[pool.fallback]] of {first}"
            yield f"{path}.algorithm", pool.algorithm, f"{first} has it already; {allowed}"
        yield from _known_to_bitcoin_alone(path, pool)


def _addresses_of_the_coin(draft: Draft) -> Iterator[Finding]:
    for path, pool in draft.all(Pool):
        for where, one in _rows(path, pool):
            found = coin_of(one.user)
            if found is not None and found[0] != pool.algorithm:
                yield f"{where}.user", one.user, f"of {found[1]}, not {pool.algorithm}"


def _rows(path: str, pool: Pool) -> list[tuple[str, PoolAccount]]:
    """A pool and those to fall back to."""
    return [(path, pool), *((f"{path}.fallback[{n}]", x) for n, x in enumerate(pool.fallback))]


def _known_to_bitcoin_alone(path: str, pool: Pool) -> Iterator[Finding]:
    if pool.algorithm == "sha256d":
        if pool.usd_per_gh_per_day:
            yield (
                f"{path}.usd_per_gh_per_day",
                pool.usd_per_gh_per_day,
                "the site's hashprice says what sha256d earns",
            )
        return
    for where, one in _rows(path, pool):
        for key in ("suggest_difficulty", "minimum_difficulty"):
            if getattr(one, key) is not None:
                yield f"{where}.{key}", getattr(one, key), "only pools of sha256d can be asked"


def _pools_of_what_is_mined(draft: Draft) -> Iterator[Finding]:
    """A device that may mine only what no pool wants would never mine."""
    paid = {pool.algorithm for _, pool in draft.all(Pool)}
    for path, hashing in draft.all(Hashing):
        for device, wanted in hashing.algorithms.items():
            if paid.isdisjoint(wanted):
                where = f"{path}.algorithms.{device}"
                allowed = f"allowed: one of {', '.join(sorted(paid)) or 'none without a pool'}"
                yield where, ", ".join(wanted), f"no pool of this file is for it; {allowed}"


def _pool_needed(draft: Draft) -> Iterator[Finding]:
    """A file that asks for hashing names a pool; one that says nothing of either hashes nothing."""
    hashes = any(one.devices != "none" for _, one in draft.all(Hashing))
    if hashes and "hashing" in draft.raw and not {"pool", "pools"} & set(draft.raw):
        yield "pool", None, 'missing; hashing needs a pool, or set hashing.devices = "none"'


def _proxy_of_bitcoin(draft: Draft) -> Iterator[Finding]:
    """ASICs behind the proxy hash one thing."""
    for path, pool in draft.all(Pool):
        if pool.algorithm != "sha256d":
            yield f"{path}.algorithm", pool.algorithm, "the proxy is for sha256d alone"


AGENT_CHECKS: tuple[Callable[[Draft], Iterator[Finding]], ...] = (
    _pool_needed,
    _pools_in_the_clear,
    _one_pool_a_coin,
    _addresses_of_the_coin,
    _pools_of_what_is_mined,
)
PROXY_CHECKS: tuple[Callable[[Draft], Iterator[Finding]], ...] = (
    _pools_in_the_clear,
    _addresses_of_the_coin,
    _proxy_of_bitcoin,
)
