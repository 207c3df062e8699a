"""The kinds of value a configuration file may hold, each with its allowed range.

A kind is a pydantic annotation: it parses, checks and describes itself in the JSON Schema. The
error names the allowed range, because the operator reads it in a terminal and not in a manual.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import core_schema

from wattshift_cluster.config.quantities import (
    format_seconds,
    format_watts,
    parse_ramp,
    parse_seconds,
    parse_usd,
    parse_usd_per_mwh,
    parse_watts,
)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_IMPORT_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_SWITCHED = dict.fromkeys(("true", "yes", "on", "1"), True) | dict.fromkeys(
    ("false", "no", "off", "0"), False
)
NAME_RULE = "1 to 63 letters, digits, '.', '_' or '-', starting with a letter or digit"


class Section(BaseModel):
    """A table of the file: frozen, and a key that nobody knows is a fault."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        validate_default=True,
        validate_by_alias=True,
        validate_by_name=True,
        serialize_by_alias=True,
    )


@dataclass(frozen=True, slots=True)
class Within:
    """Annotation of a quantity: how it is parsed, what is allowed, how the bounds are shown."""

    parse: Callable[[object], float]
    low: float
    high: float
    show: Callable[[float], str]
    description: str
    integer: bool = False

    def check(self, value: object) -> float:
        """The quantity in its base unit; raises ValueError naming the allowed range."""
        allowed = f"allowed: {self.show(self.low)} to {self.show(self.high)}"
        try:
            amount = self.parse(value)
        except ValueError as wrong:
            raise ValueError(f"{wrong}; {allowed}") from None
        if not self.low <= amount <= self.high:
            raise ValueError(f"out of range; {allowed}")
        return amount

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> Any:
        return core_schema.no_info_plain_validator_function(self.check)

    def __get_pydantic_json_schema__(self, schema: Any, handler: GetJsonSchemaHandler) -> Any:
        kind = "integer" if self.integer else "number"
        bounded = {"type": kind, "minimum": self.low, "maximum": self.high}
        return {"anyOf": [bounded, {"type": "string"}], "description": self.description}


def seconds(low_s: float, high_s: float) -> Within:
    """A duration between two bounds, in s."""
    return Within(parse_seconds, low_s, high_s, format_seconds, "s, or text such as 15s")


def watts(low_w: float, high_w: float = 10e9) -> Within:
    """A power between two bounds, in W."""
    return Within(parse_watts, low_w, high_w, format_watts, "W, or text such as 1.2MW")


def watts_per_s(low_w_per_s: float, high_w_per_s: float = 10e9) -> Within:
    """A ramp between two bounds, in W/s."""
    show = "{:g}W/s".format
    return Within(
        parse_ramp, low_w_per_s, high_w_per_s, show, "W/s, or text such as 30MW/min or 500kW/s"
    )


def usd_per_mwh(low: float, high: float) -> Within:
    """A price of energy between two bounds, in USD/MWh."""
    return Within(
        parse_usd_per_mwh, low, high, "{:g}USD/MWh".format, "USD/MWh, or text such as 0.04USD/kWh"
    )


def usd(low: float, high: float) -> Within:
    """An amount of money between two bounds, in USD."""
    return Within(parse_usd, low, high, "{:g}USD".format, "USD, or text such as 12.50USD")


def number(low: float, high: float, unit: str = "") -> Within:
    """A plain number between two bounds; `unit` is shown in the error."""

    def show(amount: float) -> str:
        return f"{amount:g}{unit}"

    return Within(_plain, low, high, show, unit or "number")


def whole(low: int, high: int) -> Within:
    """A whole number between two bounds."""
    return Within(_whole, low, high, "{:d}".format, "whole number", integer=True)


def _plain(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError("not a number")
    try:
        amount = float(value)
    except ValueError:
        raise ValueError("not a number") from None
    if not math.isfinite(amount):
        raise ValueError("not a finite number")
    return amount


def _whole(value: object) -> int:
    # 3.0 is whole: tools that render TOML from YAML know only one kind of number.
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise ValueError("not a whole number")
    try:
        return int(value)
    except ValueError:
        raise ValueError("not a whole number") from None


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError(f"not a name; allowed: {NAME_RULE}")
    return value


def _switch(value: object) -> bool:
    # TOML has real booleans; the environment knows only text, and some renderers write 0 or 1.
    word = str(value).lower() if isinstance(value, (bool, int, str)) else ""
    if word not in _SWITCHED:
        raise ValueError("not a boolean; allowed: true, false")
    return _SWITCHED[word]


def _path(value: object, info: ValidationInfo) -> Path:
    if not isinstance(value, (str, Path)) or str(value) == "":
        raise ValueError("not a path; allowed: text that names a file or folder")
    path = Path(value).expanduser()
    folder = info.context.get("folder") if isinstance(info.context, dict) else None
    return path if folder is None or path.is_absolute() else Path(folder) / path


def split_address(address: str) -> tuple[str, int]:
    """Host and port of `host:port` or `[v6]:port`. Raises ValueError with the allowed form."""
    host, colon, port = address.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not port.isascii() or not port.isdigit() or not 0 <= int(port) <= 65535:
        raise ValueError("not an address; allowed: host:port with a port up to 65535")
    _host(bare, bracketed=bare != host)
    return bare, int(port)


def is_loopback(host: str) -> bool:
    """Whether a host is 127.0.0.0/8, ::1 or the name localhost; other names count as outside."""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def is_private(host: str) -> bool:
    """Whether only a site's own machines can reach a host; what is not known to be so counts as
    reachable by all: names, and the addresses that stand for every one of this machine.
    """
    if is_loopback(host):
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return address.is_private and not address.is_unspecified


def _host(host: str, *, bracketed: bool = False) -> str:
    if not bracketed and _HOST.fullmatch(host) and not _wrong_ipv4(host):
        return host
    try:
        if bracketed and ip_address(host).version == 6:
            return host
    except ValueError:
        pass
    raise ValueError(
        "not a host; allowed: a host name, an IPv4 address, or an IPv6 address in brackets"
    )


def _wrong_ipv4(host: str) -> bool:
    if not re.fullmatch(r"[\d.]+", host):
        return False
    try:
        return ip_address(host).version != 4
    except ValueError:
        return True


def _import_path(value: str) -> str:
    if not _IMPORT_PATH.fullmatch(value):
        raise ValueError("not an import path; allowed: package.module:name")
    return value


def _address(value: str) -> str:
    split_address(value)
    return value


def _peer(value: str) -> str:
    if split_address(value)[1] == 0:
        raise ValueError(
            "not an address to connect to; allowed: host:port with a port from 1 to 65535"
        )
    return value


def _url(schemes: tuple[str, ...]) -> Callable[[str], str]:
    def check(value: str) -> str:
        scheme, mark, rest = value.partition("://")
        allowed = " or ".join(f"{one}://host…" for one in schemes)
        if not mark or scheme not in schemes or not rest or rest.startswith("/") or " " in rest:
            raise ValueError(f"not an address; allowed: {allowed}")
        if scheme.startswith("stratum"):
            _peer(rest.rstrip("/"))
        return value

    return check


def _fingerprint(value: str) -> str:
    plain = value.replace(":", "").lower()
    if not re.fullmatch(r"[0-9a-f]{64}", plain):
        raise ValueError("not a SHA-256 fingerprint; allowed: 64 hexadecimal digits")
    return plain


def _glob(value: str) -> str:
    if not value.strip():
        raise ValueError("empty pattern; allowed: a device name or a pattern such as gpu*")
    return value


Name = Annotated[str, AfterValidator(_name)]
Switch = Annotated[bool, BeforeValidator(_switch), WithJsonSchema({"type": "boolean"})]
FilePath = Annotated[Path, BeforeValidator(_path), WithJsonSchema({"type": "string"})]
ImportPath = Annotated[str, AfterValidator(_import_path)]
Host = Annotated[str, AfterValidator(_host)]
Listen = Annotated[str, AfterValidator(_address)]
Peer = Annotated[str, AfterValidator(_peer)]
HttpUrl = Annotated[str, AfterValidator(_url(("http", "https")))]
StratumUrl = Annotated[str, AfterValidator(_url(("stratum+tls", "stratum+ssl", "stratum+tcp")))]
Fingerprint = Annotated[str, AfterValidator(_fingerprint)]
Glob = Annotated[str, AfterValidator(_glob)]
