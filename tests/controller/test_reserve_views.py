"""The burst reserve as people and machines see it: /v1/site, `status`, /metrics."""

from dataclasses import replace

from wattshift_cluster.api.metrics import exposition
from wattshift_cluster.api.site_views import ReserveView
from wattshift_cluster.cli.status import reserve_rows
from wattshift_cluster.controller import views
from wattshift_cluster.controller.roster import Roster
from wattshift_scheduler.forecasts.reserve import Reserve
from wattshift_scheduler.site import Feeder, FeederTree, Site
from wattshift_scheduler.state import initial
from wattshift_scheduler.values import Values

KEPT = Reserve(burst_w=800.0, grid_w=300.0, within_s=14.0, gates_w=900.0, free_w=5.0)
STATE = replace(
    initial(Site("s", FeederTree.of([Feeder("main", None, 1e4)])), Values(), 1), reserve=KEPT
)


def test_the_site_tells_what_is_kept_by_what_and_what_lacks() -> None:
    site = views.site(STATE, Roster(), "emulated", 1, 0.0, "control")
    assert set(site["reserve"]) == set(ReserveView.__annotations__)
    assert (site["reserve"]["burst_w"], site["reserve"]["within_s"]) == (800.0, 14.0)
    assert site["reserve"]["short_w"] == 195.0
    ((name, text),) = reserve_rows(site)
    assert name == "reserve"
    assert text == "800 W (by gates 900 W, free 5 W, 195 W short)"


def test_where_nothing_is_kept_nothing_is_said() -> None:
    site = views.site(replace(STATE, reserve=Reserve()), Roster(), "emulated", 1, 0.0, "control")
    assert reserve_rows(site) == []
    assert reserve_rows({}) == []


def test_metrics_have_each_kind() -> None:
    text = exposition({"reserve_w": KEPT.by_kind}).decode()
    assert 'wattshift_reserve_watts{kind="burst"} 800.0' in text
    assert 'wattshift_reserve_watts{kind="short"} 195.0' in text
    assert text.count("wattshift_reserve_watts{") == len(KEPT.by_kind)
    assert exposition({"reserve_w": {"short": -0.0}}).endswith(b'{kind="short"} 0.0\n')
