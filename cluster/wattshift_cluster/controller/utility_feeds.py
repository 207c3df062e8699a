"""`[utility]`, `[solar]`, `[[drills]]` and `[alarms]` of site.toml as feeds of the controller."""

from functools import partial

from wattshift_cluster.controller.service import Controller, Feed
from wattshift_cluster.controller.signal_feed import SourceFeed
from wattshift_cluster.controller.site_figures import SiteShown, real_event, sun_moment


def utility_feeds(controller: Controller) -> list[Feed]:
    """A feed for each that the file names. Raises ConfigInvalid where one cannot be used."""
    config = controller.config
    feeds: list[Feed] = []
    if config.utility is not None and config.utility.modbus is not None:
        feeds.append(_modbus(controller))
    if config.solar is not None:
        feeds.append(_solar(controller))
    if config.drills:
        feeds.append(_drills(controller))
    if config.alarms is not None:
        feeds.append(AlarmFeed(controller))
    return feeds


# Most sites name none of these: each is imported where it is used.


def _modbus(controller: Controller) -> Feed:
    from wattshift_cluster.grid.utility.modbus_server import UtilityModbusSource

    config = controller.config
    assert config.utility is not None, "asked for those that have one"
    assert config.utility.modbus is not None, "asked for those that have one"
    # A port that was closed is not opened again: a source that stops is made anew.
    make = partial(
        UtilityModbusSource,
        config.utility.modbus,
        config.site.state_dir,
        SiteShown(controller),
        connection_w=config.root.limit_w,
        clock_s=controller.clock.now_s,
    )
    return SourceFeed(controller, make(), make)


def _solar(controller: Controller) -> Feed:
    from wattshift_cluster.grid.solar import SolarSource

    config = controller.config
    assert config.solar is not None, "asked for those that have one"
    clock_s = controller.clock.now_s
    return SourceFeed(
        controller, SolarSource(config.solar, partial(sun_moment, controller), clock_s=clock_s)
    )


def _drills(controller: Controller) -> Feed:
    from wattshift_cluster.grid.drills.source import DrillSource

    config = controller.config
    own = frozenset(("drills", *config.market.names))
    source = DrillSource(
        config.drills,
        config.site.state_dir,
        real_event(controller, own),
        clock_s=controller.clock.now_s,
    )
    controller.samplers.append(source.sample)
    return SourceFeed(controller, source)


class AlarmFeed:
    """Alarms told outside, as they stand after each turn."""

    def __init__(self, controller: Controller) -> None:
        """Tell of `controller`. Raises ConfigInvalid: a file with a secret cannot be used."""
        from wattshift_cluster.grid.alarm_hooks import AlarmHook

        config = controller.config
        assert config.alarms is not None, "asked for those that have one"
        self._c = controller
        self._hook = AlarmHook(config.alarms, config.site.name, clock_s=controller.clock.now_s)
        controller.after_turn.append(self._show)

    async def run(self) -> None:
        """Tell until cancelled."""
        await self._hook.run()

    def _show(self) -> None:
        self._hook.show(self._c.alarms)
