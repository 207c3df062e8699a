"""`[[openadr]]` and `[[openadr2]]` of site.toml: the utility's servers (VTNs) this site listens to.

What was agreed with the utility stands here too: the caps of its SIMPLE levels, the capacity that
is subscribed to, the reductions committed to. Nothing of that is guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, field_validator

from wattshift_cluster.config.fields import (
    FilePath,
    HttpUrl,
    Listen,
    Name,
    Section,
    Switch,
    number,
    seconds,
    watts,
)
from wattshift_cluster.config.quantities import format_watts

MAX_NAMES = 100

Label = Annotated[str, Field(min_length=1, max_length=128)]
LevelCaps = Annotated[tuple[Annotated[float, watts(0)], ...], Field(max_length=3)]


def _falling(levels_w: tuple[float, ...]) -> tuple[float, ...]:
    """Caps of levels, none above the one before. Raises: ValueError."""
    for before_w, after_w in pairwise(levels_w):
        if after_w > before_w:
            told = f"{format_watts(after_w)} comes after {format_watts(before_w)}"
            raise ValueError(f"a higher level must not have a higher cap: {told}")
    return levels_w


class OpenAdrResource(Section):
    """`[[openadr.resources]]`: a part of the site by its name at the VTN, and the work in it."""

    name: Label
    work: Literal["all", "mining"] = "all"
    max_w: Annotated[float, watts(1)] | None = Field(None, alias="max")


class OpenAdrWebhook(Section):
    """`[openadr.webhook]`: where the VTN tells of changes, so that nobody waits for the next poll.

    `listen` is the port on this machine and `url` how the VTN reaches it, `https` in all but tests;
    `certificate` and `key` are PEM files; without them a proxy before it does TLS.
    """

    listen: Listen
    url: HttpUrl
    certificate: FilePath | None = None
    key: FilePath | None = None


class OpenAdr(Section):
    """`[[openadr]]`: one VTN of OpenADR 3.1 or 3.0.

    `client_id` and `secret_file` log in; without both only public programs are shown. `token_url`
    is needed where the VTN does not tell it. `verify` off, or http outside this machine without
    `plaintext`, is refused or told. `programs` are names; none means all that the VTN shows.
    `targets` are further targets that mean this site. With `register` the site makes itself and
    its `resources` known.

    `levels` are the caps of SIMPLE levels 1, 2 and 3. `subscription` is the cap that holds where
    the VTN tells no limit and no subscription, or cannot be asked after a power outage. `nominal`
    is what 100 per cent is. `units` holds where a program tells none. `currencies` gives USD for
    one of each, and `commitments` the reduction committed to, by program.
    """

    name: Name = "openadr"
    url: HttpUrl
    version: Literal["3.1", "3.0"] = "3.1"
    client_id: Label | None = None
    secret_file: FilePath | None = None
    token_url: HttpUrl | None = None
    ca_file: FilePath | None = None
    verify: Switch = True
    plaintext: Switch = False
    deadline_s: Annotated[float, seconds(0.5, 60)] = Field(10.0, alias="deadline")
    poll_s: Annotated[float, seconds(1, 3600)] = Field(10.0, alias="poll")
    skew_alarm_s: Annotated[float, seconds(1, 3600)] = Field(30.0, alias="skew_alarm")
    ven_name: Label
    register_site: Switch = Field(True, alias="register")
    programs: Annotated[tuple[Label, ...], Field(max_length=MAX_NAMES)] = ()
    targets: Annotated[tuple[Label, ...], Field(max_length=MAX_NAMES)] = ()
    resources: Annotated[tuple[OpenAdrResource, ...], Field(max_length=MAX_NAMES)] = ()
    webhook: OpenAdrWebhook | None = None
    mqtt: Switch = False
    levels_w: LevelCaps = Field((), alias="levels")
    subscription_w: Annotated[float, watts(0)] | None = Field(None, alias="subscription")
    nominal_w: Annotated[float, watts(1)] | None = Field(None, alias="nominal")
    units: Literal["W", "KW", "MW"] | None = None
    currencies: Mapping[str, Annotated[float, number(1e-6, 1e6)]] = {}
    commitments_w: Mapping[str, Annotated[float, watts(0)]] = Field({}, alias="commitments")

    _levels_fall = field_validator("levels_w")(_falling)


class OpenAdr2(Section):
    """`[[openadr2]]`: one VTN of OpenADR 2.0b, spoken to through the extra `openadr2`.

    `certificate`, `key` and `ca_file` are PEM files; `fingerprint` is that of the VTN's own
    certificate, by which its signatures are checked. `levels` are the caps of SIMPLE levels 1, 2
    and 3.
    """

    name: Name = "openadr2"
    url: HttpUrl
    ven_name: Label
    certificate: FilePath | None = None
    key: FilePath | None = None
    ca_file: FilePath | None = None
    fingerprint: Label | None = None
    plaintext: Switch = False
    levels_w: LevelCaps = Field((), alias="levels")
    commitments_w: Mapping[str, Annotated[float, watts(0)]] = Field({}, alias="commitments")

    _levels_fall = field_validator("levels_w")(_falling)
