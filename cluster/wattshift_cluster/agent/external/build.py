"""From `[[miners]]` to devices: which card, and whether the owner agreed to all of it."""

import shlex
from collections.abc import Sequence
from dataclasses import replace

from wattshift_cluster.agent import consent
from wattshift_cluster.agent.external.commands import refused_extras
from wattshift_cluster.agent.external.device import ExternalDevice
from wattshift_cluster.agent.external.miners import MINERS
from wattshift_cluster.agent.gpus import HostGpus
from wattshift_cluster.agent.specs import HashingSpec
from wattshift_cluster.config.agent import AgentConfig, Miner
from wattshift_cluster.errors import ConfigInvalid


def external_devices(
    config: AgentConfig,
    specs: Sequence[HashingSpec],
    gpus: HostGpus | None,
    surroundings: consent.Surroundings | None = None,
) -> dict[str, ExternalDevice]:
    """The cards that a foreign program mines on, by device. What is not consented to stays idle.

    Raises:
        ConfigInvalid: a section names no card of this host.
        Refused, GateInvalid, OSError: see `ExternalDevice`.
    """
    cards = {spec.id: spec for spec in specs if spec.card is not None}
    faults = [
        f"miners[{at}].device: no GPU {one.device!r} here; there are {', '.join(cards) or 'none'}"
        for at, one in enumerate(config.miners)
        if one.device not in cards
    ]
    if faults:
        raise ConfigInvalid(faults)
    made = {}
    for miner in config.miners:
        spec = cards[miner.device]
        assert gpus is not None, "a card was found through them"
        refusal = spec.refusal or why_not(miner, config, surroundings)
        made[miner.device] = ExternalDevice(replace(spec, refusal=refusal), miner, gpus)
    return made


def why_not(
    miner: Miner, config: AgentConfig, surroundings: consent.Surroundings | None = None
) -> str | None:
    """Why a section's program may not run; None when it may."""
    row, file = MINERS[miner.program], config.agent.consent_file
    own = row.name == "command"
    fee = row.developer_fee is None or row.developer_fee > 0.0
    return (
        refused_extras(miner.program, miner.arguments)
        or consent.pool_refusal(miner.url, miner.user, file, surroundings)
        or consent.program_refusal(
            miner.path,
            file,
            surroundings,
            fee_of=row.name if fee else None,
            command=shlex.join([str(miner.path), *miner.arguments]) if own else None,
        )
    )
