"""`[[openadr]]` and `[[openadr2]]` of site.toml as feeds of the controller."""

from collections.abc import Callable
from functools import partial

from wattshift_cluster.config.openadr import OpenAdr, OpenAdr2
from wattshift_cluster.controller.openadr_readings import Baselines, SiteReadings
from wattshift_cluster.controller.service import Controller, Feed
from wattshift_cluster.controller.signal_feed import SourceFeed
from wattshift_cluster.grid.said import Source
from wattshift_scheduler.signals.words import Work


def openadr_feeds(controller: Controller) -> list[Feed]:
    """A feed for each utility's server. Raises ConfigInvalid where one cannot be used."""
    config = controller.config
    makers: list[Callable[[], Source]] = [partial(_openadr, controller, v) for v in config.openadr]
    makers += [partial(_openadr2, controller, vtn) for vtn in config.openadr2]
    return [SourceFeed(controller, make(), make) for make in makers]


def _openadr(controller: Controller, vtn: OpenAdr) -> Source:
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


def _openadr2(controller: Controller, vtn: OpenAdr2) -> Source:
    from wattshift_cluster.grid.openadr2.source import OpenAdr2Source

    return OpenAdr2Source(
        vtn,
        controller.config.site.state_dir,
        baseline_w=Baselines(controller, vtn.name).of,
        clock_s=controller.clock.now_s,
    )
