"""`[[openadr]]` and `[[openadr2]]` of site.toml as feeds of the controller."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from wattshift_cluster.config.openadr import OpenAdr, OpenAdr2
from wattshift_cluster.controller.openadr_readings import Baselines, SiteReadings
from wattshift_cluster.controller.outages import OutageWatch
from wattshift_cluster.controller.service import Controller, Feed
from wattshift_cluster.controller.signal_feed import SourceFeed
from wattshift_cluster.grid.said import Source
from wattshift_scheduler.decisions import Decision
from wattshift_scheduler.signals.words import Work


class UtilitySource(Source, Protocol):
    """A source whose limits do not outlast an outage of the grid's power."""

    def power_lost(self) -> None:
        """The grid's power failed: no limit counts until the VTN has answered."""
        ...


class _Vtn:
    """Makes the source of one VTN, and a fresh one where it has stopped; tells the one that runs.

    Attributes:
        source: the newest.
    """

    def __init__(self, make: Callable[[], UtilitySource]) -> None:
        """Make the first. Raises: ConfigInvalid."""
        self._make = make
        self.source = make()

    def again(self) -> UtilitySource:
        """A fresh one."""
        self.source = self._make()
        return self.source


def openadr_feeds(controller: Controller) -> list[Feed]:
    """A feed for each utility's server. Raises ConfigInvalid where one cannot be used."""
    config = controller.config
    makers: list[Callable[[], UtilitySource]] = [
        *(partial(_openadr, controller, vtn) for vtn in config.openadr),
        *(partial(_openadr2, controller, vtn) for vtn in config.openadr2),
    ]
    vtns = [_Vtn(make) for make in makers]
    if vtns:
        _watch(controller, vtns)
    return [SourceFeed(controller, vtn.source, vtn.again) for vtn in vtns]


def _watch(controller: Controller, vtns: Sequence[_Vtn]) -> None:
    """Tell every VTN's source of an outage of the grid's power, as soon as it is known of."""
    watch = OutageWatch(controller.config.root.limit_w)

    def look() -> None:
        why = watch.judge(controller.state.agents)
        if why is None:
            return
        words = f"the grid's power was lost: {why}; limits do not count until a VTN has answered"
        controller.tell(Decision(controller.clock.now_s(), "site", "outage", words, {}))
        for vtn in vtns:
            vtn.source.power_lost()

    controller.samplers.append(watch.sampled)
    controller.after_turn.append(look)


def _openadr(controller: Controller, vtn: OpenAdr) -> UtilitySource:
    # Most sites name none: they need not wait for what it takes to speak MQTT.
    from wattshift_cluster.grid.openadr.source import OpenAdrSource

    baselines = Baselines(controller, vtn.name)
    works = {one.name: Work(one.work) for one in vtn.resources}
    return OpenAdrSource(
        vtn,
        controller.config.site.state_dir,
        readings=SiteReadings(controller, works, baselines),
        baseline_w=baselines.of,
        clock_s=controller.clock.now_s,
    )


def _openadr2(controller: Controller, vtn: OpenAdr2) -> UtilitySource:
    from wattshift_cluster.grid.openadr2.source import OpenAdr2Source

    return OpenAdr2Source(
        vtn,
        controller.config.site.state_dir,
        baseline_w=Baselines(controller, vtn.name).of,
        clock_s=controller.clock.now_s,
    )
