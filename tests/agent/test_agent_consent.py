"""Consent: whose word counts, what it covers, and what needs none."""

import os
from pathlib import Path

import pytest

from wattshift_cluster.agent.cloud import cloud_provider
from wattshift_cluster.agent.consent import (
    ConsentMissing,
    Surroundings,
    asic_refusal,
    pool_refusal,
    read_consent,
)

POOL = "stratum+tcp://pool.example:3333"
TEXT = f"""
owner = "Jane Doe"
mining = true
asics = true
payout = ["bc1qowner"]
pools = ["{POOL}"]
"""


@pytest.fixture
def around(tmp_path: Path) -> Surroundings:
    """This process stands for the installing user, on a machine without DMI strings."""
    return Surroundings(os.geteuid(), os.geteuid(), tmp_path / "dmi")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "consent.toml"
    path.write_text(TEXT)
    path.chmod(0o644)
    return path


def test_the_owners_word_opens_what_it_names_and_nothing_else(
    file: Path, around: Surroundings
) -> None:
    assert pool_refusal(POOL, "bc1qowner", file, around) is None
    assert pool_refusal(POOL, "bc1qowner.rig7", file, around) is None
    assert "payout" in (pool_refusal(POOL, "bc1qthief", file, around) or "")
    assert "payout" in (pool_refusal(POOL, "bc1qowner2", file, around) or "")
    other = "stratum+tcp://other.example:3333"
    assert "pool" in (pool_refusal(other, "bc1qowner", file, around) or "")
    assert asic_refusal(file, around) is None


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.8.7", "localhost", "[::1]"])
def test_a_loopback_pool_needs_no_consent(host: str, around: Surroundings) -> None:
    assert pool_refusal(f"stratum+tcp://{host}:3333", "anyone", None, around) is None


@pytest.mark.parametrize("host", ["10.0.0.1", "0.0.0.0", "localhost.example", "pool.example"])
def test_any_other_pool_does(host: str, around: Surroundings) -> None:
    assert "consent" in (pool_refusal(f"stratum+tcp://{host}:3333", "x", None, around) or "")


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_a_file_that_others_can_change_is_no_consent(
    file: Path, around: Surroundings, mode: int
) -> None:
    file.chmod(mode)
    with pytest.raises(ConsentMissing, match="changed by others"):
        read_consent(file, around)


def test_a_directory_in_which_others_can_replace_it_is_no_better(
    file: Path, around: Surroundings
) -> None:
    file.parent.chmod(0o777)
    with pytest.raises(ConsentMissing, match="changed by others"):
        read_consent(file, around)
    file.parent.chmod(0o1777)
    assert read_consent(file, around).mining


def test_the_service_cannot_consent_for_the_owner(tmp_path: Path, file: Path) -> None:
    installer = os.geteuid() + 1
    around = Surroundings(os.geteuid(), installer, tmp_path / "dmi")
    if os.geteuid() == 0:
        os.chown(file, 12345, 12345)
    with pytest.raises(ConsentMissing, match="neither to root nor"):
        read_consent(file, around)


def test_a_link_is_not_followed(file: Path, around: Surroundings) -> None:
    link = file.with_name("link.toml")
    link.symlink_to(file)
    with pytest.raises(ConsentMissing):
        read_consent(link, around)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "owner"),
        ('owner = " "\nmining = true', "owner"),
        ('owner = "x"\nmining = "yes"', "wrong type"),
        ('owner = "x"\npayout = "bc1q"', "wrong type"),
        ('owner = "x"\nfee = 2', "unknown keys: fee"),
        ("owner = ", "not TOML"),
        ('owner = "x"\n#' + "x" * 70_000, "longer"),
    ],
)
def test_an_unclear_file_is_no_consent(
    file: Path, around: Surroundings, text: str, message: str
) -> None:
    file.write_text(text)
    with pytest.raises(ConsentMissing, match=message):
        read_consent(file, around)


def test_silence_is_no_consent(file: Path, around: Surroundings) -> None:
    file.write_text('owner = "Jane Doe"\n')
    assert "mining = true" in (pool_refusal(POOL, "bc1qowner", file, around) or "")
    assert "asics = true" in (asic_refusal(file, around) or "")


def test_a_rented_machine_needs_the_providers_permission(file: Path, around: Surroundings) -> None:
    around.dmi_dir.mkdir()
    (around.dmi_dir / "sys_vendor").write_text("Amazon EC2\n")
    assert "Amazon" in (pool_refusal(POOL, "bc1qowner", file, around) or "")
    assert "Amazon" in (asic_refusal(file, around) or "")
    assert pool_refusal("stratum+tcp://127.0.0.1:1", "x", None, around) is None
    file.write_text(TEXT + 'provider_permission = "case 4711"\n')
    assert pool_refusal(POOL, "bc1qowner", file, around) is None


@pytest.mark.parametrize(
    ("field", "text", "provider"),
    [
        ("product_name", "Google Compute Engine", "Google Cloud"),
        ("chassis_asset_tag", "7783-7084-3265-9085-8269-3286-77", "Microsoft Azure"),
        ("chassis_asset_tag", "OracleCloud.com", "Oracle Cloud"),
        ("sys_vendor", "Microsoft Corporation", None),
        ("sys_vendor", "Dell Inc.", None),
        ("sys_vendor", "QEMU", None),
    ],
)
def test_providers_are_known_by_their_dmi_strings(
    tmp_path: Path, field: str, text: str, provider: str | None
) -> None:
    (tmp_path / field).write_text(text + "\n")
    assert cloud_provider(tmp_path) == provider
