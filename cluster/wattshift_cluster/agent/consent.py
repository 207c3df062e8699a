"""The owner's word that this machine may mine, and to whom the proceeds go (DESIGN §4, Consent).

The file is TOML:

    owner = "Jane Doe"                      who says so
    mining = true                           that GPUs and CPUs of this host may mine
    asics = true                            that the ASICs named in agent.toml may be set and woken
    payout = ["bc1q…", "kaspa:q…"]          accounts of any coin; "bc1q….rig7" belongs to "bc1q…"
    pools = ["stratum+tls://host:3333"]     pools, those to fall back to among them
    developer_fees = ["t-rex"]              programs whose developers may take their part
    commands = ["/opt/m/m -o … -u …"]       whole command lines of any other program
    provider_permission = "ticket 4711"     on a rented machine only

It must belong to root or to the installing user, and neither group, others nor the service may be
able to change it or put another in its place. A pool on loopback needs no consent: nothing can be
earned there. That a loopback port leads elsewhere (a tunnel) cannot be seen from here.
"""

import os
import stat
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wattshift_cluster.agent.cloud import DMI_DIR, cloud_provider
from wattshift_cluster.errors import Refused
from wattshift_cluster.mining.endpoint import Endpoint, EndpointInvalid

MOST_BYTES = 64 * 1024
TEXTS = ("owner", "provider_permission")
SWITCHES = ("mining", "asics")
LISTS = ("payout", "pools", "developer_fees", "commands")


class ConsentMissing(Refused):
    """The owner has not agreed to this; the text says what is missing and how to give it."""


@dataclass(frozen=True, slots=True)
class Consent:
    """What the owner agreed to. The default is nothing."""

    owner: str = ""
    mining: bool = False
    asics: bool = False
    payout: tuple[str, ...] = ()
    pools: tuple[str, ...] = ()
    developer_fees: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    provider_permission: str = ""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Who runs and who installed this, and where the machine says whose it is."""

    service_uid: int = field(default_factory=os.geteuid)
    installer_uid: int = field(default_factory=lambda: Path(__file__).stat().st_uid)
    dmi_dir: Path = DMI_DIR


def read_consent(path: Path | None, around: Surroundings | None = None) -> Consent:
    """The consent in a file.

    Args:
        path: the file; None where the configuration names none.
        around: who runs and who installed; the real ones when None.

    Raises:
        ConsentMissing: no file, not the owner's alone, or not understood.
    """
    if path is None:
        raise ConsentMissing("no consent_file is configured, so only a loopback pool may be used")
    around = around or Surroundings()
    for directory in path.absolute().parents:
        _check_directory(directory, around)
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as file:
            _check_file(path, os.fstat(handle), around)
            data = file.read(MOST_BYTES + 1)
    except OSError as fault:
        raise ConsentMissing(f"{path}: {fault.strerror}") from fault
    return _parse(path, data)


def pool_refusal(
    url: str, user: str, consent_file: Path | None, around: Surroundings | None = None
) -> str | None:
    """Why this host may not mine to a pool account; None when it may.

    Args:
        url, user: the pool account.
        consent_file: the owner's file, if one is configured.
        around: as for `read_consent`.
    """
    try:
        endpoint = Endpoint.parse(url)
        if endpoint.is_loopback:
            return None
        consent = read_consent(consent_file, around)
        _check_cloud(consent, around or Surroundings())
        if not consent.mining:
            raise ConsentMissing(f"{consent_file} does not say mining = true")
        if not any(_same_pool(endpoint, pool) for pool in consent.pools):
            raise ConsentMissing(f"{consent_file} does not name the pool {url}")
        if not any(_same_account(user, account) for account in consent.payout):
            raise ConsentMissing(f"{consent_file} does not name the payout account {user}")
    except (ConsentMissing, EndpointInvalid) as fault:
        return str(fault)
    return None


def program_refusal(
    path: Path,
    consent_file: Path | None,
    around: Surroundings | None = None,
    *,
    fee_of: str | None,
    command: str | None,
) -> str | None:
    """Why a foreign program may not be run; None when it may. See `pool_refusal` for its pool.

    Args:
        path: the program. As little as the consent file may the service be able to change it.
        fee_of: its name, where its developers take a part of the hashing.
        command: its whole command line, where that is the owner's own.
        consent_file, around: as for `pool_refusal`.
    """
    around = around or Surroundings()
    try:
        consent = read_consent(consent_file, around)
        if not consent.mining:
            raise ConsentMissing(f"{consent_file} does not say mining = true")
        if fee_of is not None and fee_of not in consent.developer_fees:
            raise ConsentMissing(
                f"{fee_of} hashes for its developers too; {consent_file} must name it in "
                "developer_fees"
            )
        if command is not None and command not in consent.commands:
            raise ConsentMissing(f"{consent_file} does not name this command line: {command}")
        for directory in path.absolute().parents:
            _check_directory(directory, around)
        _check_file(path, path.stat(), around)
    except ConsentMissing as fault:
        return str(fault)
    except OSError as fault:
        return f"{path}: {fault.strerror}"
    return None


def consented_pools(
    consent_file: Path | None, around: Surroundings | None = None
) -> tuple[Endpoint, ...] | None:
    """The addresses that the owner has named; None where there is no consent to read.

    That is where a pool may send us with client.reconnect. Without consent only loopback pools are
    mined for, and they stay on their own host.
    """
    try:
        named = read_consent(consent_file, around).pools
    except ConsentMissing:
        return None
    return tuple(endpoint for one in named if (endpoint := _endpoint(one)) is not None)


def asic_refusal(consent_file: Path | None, around: Surroundings | None = None) -> str | None:
    """Why real ASICs may not be set from here; None when they may."""
    try:
        consent = read_consent(consent_file, around)
        _check_cloud(consent, around or Surroundings())
        if not consent.asics:
            raise ConsentMissing(f"{consent_file} does not say asics = true")
    except ConsentMissing as fault:
        return str(fault)
    return None


def _check_file(path: Path, status: os.stat_result, around: Surroundings) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ConsentMissing(f"{path} is not a regular file")
    if status.st_uid not in (0, around.installer_uid):
        raise ConsentMissing(f"{path} belongs neither to root nor to the installing user")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConsentMissing(f"{path} can be changed by others; chmod go-w it")


def _check_directory(path: Path, around: Surroundings) -> None:
    """Whoever can rename the file can replace it; in a sticky directory only its owner can."""
    try:
        status = path.stat()
    except OSError as fault:
        raise ConsentMissing(f"{path}: {fault.strerror}") from fault
    if status.st_uid not in (0, around.installer_uid):
        raise ConsentMissing(f"{path} belongs neither to root nor to the installing user")
    writable = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if writable and not status.st_mode & stat.S_ISVTX:
        raise ConsentMissing(f"{path} can be changed by others; chmod go-w it")


def _check_cloud(consent: Consent, around: Surroundings) -> None:
    provider = cloud_provider(around.dmi_dir)
    if provider is not None and not consent.provider_permission:
        raise ConsentMissing(
            f"this machine belongs to {provider}; the consent file must name its permission "
            "(provider_permission)"
        )


def _parse(path: Path, data: bytes) -> Consent:
    if len(data) > MOST_BYTES:
        raise ConsentMissing(f"{path} is longer than {MOST_BYTES} bytes")
    try:
        raw = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as fault:
        raise ConsentMissing(f"{path} is not TOML: {fault}") from fault
    if unknown := set(raw) - {*TEXTS, *SWITCHES, *LISTS}:
        raise ConsentMissing(f"{path} has unknown keys: {', '.join(sorted(unknown))}")
    for key, value in raw.items():
        if not _has_type(key, value):
            raise ConsentMissing(f"{path}: {key} has the wrong type")
    if not str(raw.get("owner", "")).strip():
        raise ConsentMissing(f"{path} does not say who the owner is")
    return Consent(
        owner=raw["owner"],
        mining=raw.get("mining", False),
        asics=raw.get("asics", False),
        payout=tuple(raw.get("payout", ())),
        pools=tuple(raw.get("pools", ())),
        developer_fees=tuple(raw.get("developer_fees", ())),
        commands=tuple(raw.get("commands", ())),
        provider_permission=raw.get("provider_permission", "").strip(),
    )


def _has_type(key: str, value: Any) -> bool:
    if key in SWITCHES:
        return isinstance(value, bool)
    if key in TEXTS:
        return isinstance(value, str)
    return isinstance(value, list) and all(isinstance(item, str) and item for item in value)


def _same_pool(endpoint: Endpoint, allowed: str) -> bool:
    """The same host and port; and TLS, where the owner has written that scheme."""
    named = _endpoint(allowed)
    if named is None or named.address != endpoint.address:
        return False
    return endpoint.tls or not named.tls


def _endpoint(text: str) -> Endpoint | None:
    try:
        return Endpoint.parse(text)
    except EndpointInvalid:
        return None


def _same_account(user: str, allowed: str) -> bool:
    """An account and its workers: a pool takes what follows the first dot as the worker's name."""
    return user == allowed or user.startswith(allowed + ".")
