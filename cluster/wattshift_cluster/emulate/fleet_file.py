"""Which machines an emulator runs: a file, flags, or a fleet drawn from a mix of kinds by seed."""

import ipaddress
import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

from wattshift_cluster.emulate.kinds import KINDS
from wattshift_cluster.emulate.timing import AMBIENT_C

MAX_FLEET = 65_536
CONFIG_LIMIT = 32 * 1024 * 1024
LOOPBACK = ipaddress.ip_network("127.0.0.0/8")
_NOT_A_HOST = (0, 255)
"""Last octets that clients take for a network or a broadcast and leave out."""

Start = Literal["sleep", "full"]


def loopback(address: str) -> str:
    """The address, if it is one of 127.0.0.0/8. Raises ValueError."""
    if ipaddress.ip_address(address) not in LOOPBACK:
        raise ValueError("an emulated machine lives on a 127.a.b.c address")
    return address


def _known(kind: str) -> str:
    if kind not in KINDS:
        raise ValueError(f"no such kind; there are {', '.join(KINDS)}")
    return kind


class MachineConfig(BaseModel):
    """One emulated machine. See `EmulatedMiner` for what the fields mean."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    id: Annotated[str, Field(min_length=1, max_length=64)]
    kind: Annotated[str, AfterValidator(_known)]
    address: Annotated[str, AfterValidator(loopback)]
    seed: int = 1
    start: Start = "sleep"
    feeder: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    password: SecretStr | None = None
    ambient_c: Annotated[float, Field(ge=-60, le=100)] = AMBIENT_C
    realism: Literal["quick", "real"] = "quick"


class EmulatorConfig(BaseModel):
    """All machines of one emulator."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    machines: Annotated[list[MachineConfig], Field(min_length=1, max_length=MAX_FLEET)]

    @classmethod
    def of(cls, machines: list[MachineConfig]) -> "EmulatorConfig":
        """Check that ids and addresses are unique. Raises ValueError."""
        config = cls(machines=machines)
        for field in ("id", "address"):
            seen = Counter(getattr(machine, field) for machine in config.machines)
            if twice := sorted(value for value, times in seen.items() if times > 1):
                raise ValueError(f"{field} used twice: {', '.join(twice[:8])}")
        return config

    def shards(self, count: int) -> list["EmulatorConfig"]:
        """The same machines dealt out to `count` processes, fewer where there are not as many."""
        dealt = [self.machines[first::count] for first in range(count)]
        return [EmulatorConfig(machines=machines) for machines in dealt if machines]

    def to_json(self) -> str:
        """The file's text, passwords included: it goes to a child's standard input only."""
        rows = []
        for machine in self.machines:
            row = machine.model_dump(exclude_defaults=True)
            if machine.password is not None:
                row["password"] = machine.password.get_secret_value()
            rows.append(row)
        return json.dumps({"machines": rows})


def from_text(text: bytes) -> list[MachineConfig]:
    """The machines of a configuration file. Raises ValueError."""
    if len(text) > CONFIG_LIMIT:
        raise ValueError(f"larger than {CONFIG_LIMIT} bytes")
    return EmulatorConfig.model_validate_json(text).machines


def from_file(file: Path) -> list[MachineConfig]:
    """The machines of a configuration file. Raises OSError or ValueError."""
    if file.stat().st_size > CONFIG_LIMIT:
        raise ValueError(f"{file} is larger than {CONFIG_LIMIT} bytes")
    return from_text(file.read_bytes())


def from_flag(flag: str, number: int) -> MachineConfig:
    """The machine of KIND@ADDRESS[,SEED[,sleep|full]], by its place on the command line."""
    kind, _, rest = flag.partition("@")
    address, *more = rest.split(",")
    if len(more) > 2:
        raise ValueError(f"{flag}: wanted KIND@ADDRESS[,SEED[,sleep|full]]")
    fields: dict[str, Any] = {"id": f"asic-{number}", "kind": kind, "address": address}
    fields |= {"seed": str(number), **dict(zip(("seed", "start"), more, strict=False))}
    return MachineConfig.model_validate(fields)


def mix_of(text: str) -> dict[str, float]:
    """Shares by kind from "luxos:40,whatsminer:30". Raises ValueError."""
    mix: dict[str, float] = {}
    for part in text.split(","):
        kind, colon, share = part.strip().partition(":")
        try:
            weight = float(share) if colon else 1.0
        except ValueError:
            weight = -1.0
        if not 0.0 < weight < 1e9 or kind in mix:
            raise ValueError(f"{part!r}: wanted KIND:SHARE with a share above 0, each kind once")
        mix[_known(kind)] = weight
    return mix


def fleet(
    count: int,
    mix: Mapping[str, float],
    net: str,
    *,
    seed: int,
    start: Start,
    feeders: int = 0,
    realism: Literal["quick", "real"] = "quick",
) -> list[MachineConfig]:
    """`count` machines in the shares of `mix`, shuffled by `seed`, at addresses counted up.

    Args:
        net: a part of 127.0.0.0/8, for example 127.30.0.0/16.
        feeders: over how many feeders, named feeder-1 and so on, they are dealt; 0 for none.

    Raises:
        ValueError: the net is not on loopback or too small.
    """
    space = ipaddress.ip_network(net)
    if not isinstance(space, ipaddress.IPv4Network) or not space.subnet_of(LOOPBACK):  # type: ignore[arg-type]
        raise ValueError(f"{net}: emulated machines live in 127.0.0.0/8")
    rng = random.Random(seed)
    kinds = _dealt(count, mix)
    rng.shuffle(kinds)
    addresses = [address for address, _ in zip(_hosts(space), kinds, strict=False)]
    if len(addresses) < count:
        raise ValueError(f"{net} has room for {len(addresses)} machines, not for {count}")
    width = len(str(count))
    return [
        MachineConfig(
            id=f"asic-{number:0{width}d}",
            kind=kind,
            address=address,
            seed=rng.getrandbits(32),
            start=start,
            feeder=f"feeder-{(number - 1) % feeders + 1}" if feeders else None,
            realism=realism,
        )
        for number, (kind, address) in enumerate(zip(kinds, addresses, strict=True), 1)
    ]


def _hosts(space: ipaddress.IPv4Network) -> Iterator[str]:
    for address in space:
        if address.packed[-1] not in _NOT_A_HOST:
            yield str(address)


def _dealt(count: int, mix: Mapping[str, float]) -> list[str]:
    """Whole machines by largest remainder, so that the shares hold as nearly as they can."""
    whole = sum(mix.values())
    exact = {kind: count * share / whole for kind, share in mix.items()}
    dealt = {kind: int(amount) for kind, amount in exact.items()}
    by_rest = sorted(mix, key=lambda kind: dealt[kind] - exact[kind])
    for kind in by_rest[: count - sum(dealt.values())]:
        dealt[kind] += 1
    return [kind for kind, machines in dealt.items() for _ in range(machines)]


def agent_fragment(machines: list[MachineConfig]) -> str:
    """`[[asics]]` entries of an agent.toml that drive these machines; the feeder is a comment, for
    whoever deals them to agents.
    """
    entries = (
        f"[[asics]]{_hangs_on(machine)}\n"
        f"id = {json.dumps(machine.id)}\naddress = {json.dumps(machine.address)}\n"
        "emulated = true\n"
        for machine in machines
    )
    return "\n".join(entries)


def _hangs_on(machine: MachineConfig) -> str:
    """A comment; quoted, because a feeder's name is anything."""
    return "" if machine.feeder is None else f"  # feeder {json.dumps(machine.feeder)}"
