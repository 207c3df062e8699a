"""This host's cards and what goes with them: their sampler, their power limits, their users."""

from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from wattshift_cluster.agent.gpu.cards import Card, find_cards
from wattshift_cluster.agent.gpu.library import Library
from wattshift_cluster.agent.gpu.limits import LimitResult, PowerLimits
from wattshift_cluster.agent.gpu.sample import GpuSample
from wattshift_cluster.agent.gpu.sampler import Sampler
from wattshift_cluster.agent.gpu.setters import NvmlSetter
from wattshift_cluster.agent.gpu.zeusd import ZeusdSetter
from wattshift_cluster.config.agent import AgentConfig, GpuSection
from wattshift_cluster.errors import Refused

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class HostGpus:
    """The cards of one host, being sampled.

    Attributes:
        limits: None where power limits are read and never written; `read_only` then says why.
    """

    library: Library
    cards: tuple[Card, ...]
    sampler: Sampler
    limits: PowerLimits | None
    read_only: str | None

    async def limit(
        self, wanted: Mapping[str, float], covered: Mapping[str, float]
    ) -> dict[str, LimitResult]:
        """Set power limits by UUID, W; `covered` are the watts of the leases in force.

        Raises:
            Refused: this agent only reads.
        """
        if self.limits is None:
            raise Refused(f"power limits are only read here: {self.read_only}")
        return await self.limits.set(wanted, covered)

    async def release(self, uuid: str) -> LimitResult | None:
        """Give a card the limit back that it had before our first write, if there was one."""
        return None if self.limits is None else await self.limits.release(uuid)

    def foreign(self, uuid: str, sample: GpuSample) -> bool:
        """Whether somebody else changed a limit that we wrote."""
        return self.limits is not None and self.limits.foreign(uuid, sample)

    def close(self) -> None:
        """Stop sampling. Limits stay as last written: an exit never raises one."""
        self.sampler.close()
        self.library.close()


def open_gpus(config: AgentConfig) -> HostGpus | None:
    """Find the cards and begin to sample them; None without a driver or a card."""
    library = Library()
    cards = find_cards(library)
    if not cards:
        library.close()
        return None
    limits = _limits(config, library, cards)
    refusal = "read_only is set" if limits is None else limits.refusal
    if refusal is not None:
        log.info("gpu.read_only", reason=refusal)
    sampler = Sampler(library, cards, period_s=1 / config.gpu.sample_hz)
    sampler.start()
    return HostGpus(library, cards, sampler, None if refusal else limits, refusal)


def _limits(config: AgentConfig, library: Library, cards: tuple[Card, ...]) -> PowerLimits | None:
    section: GpuSection = config.gpu
    if section.power_limits == "read_only":
        return None
    setter = (
        NvmlSetter(library)
        if section.power_limits == "nvml"
        else ZeusdSetter(section.zeusd_socket, section.zeusd_token_file)
    )
    return PowerLimits(library, cards, config.agent.state_dir, setter)
