"""Whose machine this is, by its own DMI strings. Nothing is ever probed over the network.

Mining on a rented machine needs the provider's permission. The strings are those that providers set
in their virtual firmware; a provider that sets none is not recognised.
"""

from pathlib import Path

DMI_DIR = Path("/sys/class/dmi/id")
FIELDS = (
    "sys_vendor",
    "product_name",
    "product_version",
    "board_vendor",
    "bios_vendor",
    "chassis_vendor",
    "chassis_asset_tag",
)
MARKS: tuple[tuple[str, str], ...] = (
    ("amazon", "Amazon Web Services"),
    ("google", "Google Cloud"),
    ("7783-7084-3265-9085-8269-3286-77", "Microsoft Azure"),
    ("oraclecloud", "Oracle Cloud"),
    ("alibaba cloud", "Alibaba Cloud"),
    ("tencent cloud", "Tencent Cloud"),
    ("huawei cloud", "Huawei Cloud"),
    ("digitalocean", "DigitalOcean"),
    ("hetzner", "Hetzner"),
    ("linode", "Linode"),
    ("vultr", "Vultr"),
    ("scaleway", "Scaleway"),
    ("upcloud", "UpCloud"),
    ("exoscale", "Exoscale"),
    ("ovhcloud", "OVHcloud"),
    ("openstack", "an OpenStack cloud"),
)
"""(part of a DMI string in lower case, provider). Azure marks its machines by the asset tag."""


def cloud_provider(dmi_dir: Path = DMI_DIR) -> str | None:
    """The provider that this machine's DMI strings name, or None.

    Args:
        dmi_dir: where the kernel shows them.
    """
    text = "\n".join(_read(dmi_dir / field) for field in FIELDS).lower()
    return next((provider for mark, provider in MARKS if mark in text), None)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")[:256]
    except OSError:  # absent in containers and on some boards
        return ""
