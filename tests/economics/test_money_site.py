"""A whole site: a GPU that price idles, and says why; a hashprice lost, held and confirmed."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from click.testing import CliRunner, Result

from wattshift_cluster.cli.main import main
from wattshift_cluster.controller import books
from wattshift_cluster.errors import Refused

GPU_W = 350.0


async def wattshift(at: Any, *words: str) -> Result:
    environ = {"WATTSHIFT_URL": at.url, "WATTSHIFT_TOKEN": at.secrets["admin"]}
    return await asyncio.to_thread(CliRunner().invoke, main, list(words), env=environ)


async def asked(at: Any, method: str, path: str, role: str | None) -> httpx2.Response:
    headers = {} if role is None else {"Authorization": f"Bearer {at.secrets[role]}"}
    return await asyncio.to_thread(
        httpx2.request, method, at.url + path, headers=headers, timeout=20.0
    )


def mining(at: Any, name: str, mode: str) -> Callable[[], bool]:
    return lambda: at.device(name).get("mode") == mode and at.device(name)["state"] == "confirmed"


def told_of(at: Any, subject: str, action: str) -> dict[str, Any] | None:
    """The newest decision of that kind on record."""
    found = at.front.decisions(subject, None, 50)
    return next((dict(d) for d in found if d["action"] == action), None)


def quick_w(at: Any) -> float:
    """What the site can shed within a quarter of a second: the GPU, if it hashes."""
    return float(at.front.flexibility()[0]["deliverable_w"])


def test_a_gpu_runs_as_reserve_and_is_idled_by_price(
    play: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(books, "JOURNALED_LEAST_S", 0.0)

    async def scenario(at: Any) -> None:
        await at.until(mining(at, "gpu0", "mine"), "the GPU hashes as reserve at 40 USD/MWh")
        await at.until(mining(at, "asic-1", "full"), "the ASIC earns its energy")
        await at.until(lambda: quick_w(at) == pytest.approx(GPU_W), "its reserve is offered")
        gpu = at.money("gpu0")
        assert gpu["verdict"] == "reserve"
        words = "hashing on gpu0 costs 0.014 USD/h and earns 0.0000035: "
        assert gpu["sentence"] == f"{words}it runs only as reserve worth 0.018 USD/h"
        assert at.money("asic-1")["verdict"] == "earns"
        assert at.money("asic-1")["points"][0]["break_even_usd_per_mwh"] == pytest.approx(
            0.98 * 42.31 * 1000 / 24 / (2980 / 150), rel=1e-6
        )

        def earned() -> bool:
            lease = at.money("gpu0")["lease"]
            return lease["mode"] == "mine" and bool(lease["revenue_usd"])

        await at.until(earned, "its lease has earned something")
        at.price(60.0)
        await at.until(mining(at, "gpu0", "idle"), "the GPU idles at 60 USD/MWh")
        assert at.device("asic-1")["mode"] == "full", "the ASIC still earns more than its energy"
        await at.until(lambda: quick_w(at) == 0.0, "an idle GPU has no reserve to offer")
        assert at.money("gpu0")["verdict"] == "idles"

        told = await wattshift(at, "explain", "gpu0", "--inputs")
        assert told.exit_code == 0, told.output
        assert "hashing on gpu0 costs 0.021 USD/h and earns 0.0000035" in told.stdout
        assert "its reserve would be worth 0.018: it idles" in told.stdout
        assert "not more than energy at 60.0 USD/MWh" in told.stdout
        assert "42.31 USD/PH/day" in told.stdout
        assert "hashprice_usd_per_ph_day  42.31" in told.stdout
        assert "hashprice_age_s" in told.stdout

        def booked() -> dict[str, Any] | None:
            found = told_of(at, "gpu0", "account")
            return found if found and found["inputs"]["mode"] == "mine" else None

        account = await at.until(booked, "what the lease came to is on record")
        assert account["reason"].startswith("mine for ")
        assert account["inputs"]["revenue_measured_usd"] > 0.0

    play(scenario)


def test_income_is_counted_by_device_lease_and_quality(play: Callable[..., None]) -> None:
    async def scenario(at: Any) -> None:
        def counted() -> bool:
            sums = at.controller.books.devices
            return len(sums) == 2 and all(one.earned_usd > 0 for one in sums.values())

        await at.until(counted, "both devices have earned something")
        await at.until(lambda: at.money("gpu0")["lease"]["mode"] == "mine", "its lease is booked")
        gpu, asic = at.money("gpu0"), at.money("asic-1")
        assert set(gpu["account"]["revenue_usd"]) == {"measured"}
        assert set(asic["account"]["revenue_usd"]) == {"modelled"}
        assert asic["account"]["energy_usd"] == pytest.approx(
            asic["account"]["energy_j"] / 3.6e9 * 40.0
        )
        metrics = at.front.metrics_snapshot()
        assert {row[:2] for row in metrics["revenue_usd"]} == {
            ("gpu0", "measured"),
            ("asic-1", "modelled"),
        }
        scraped = await asked(at, "GET", "/metrics", "viewer")
        for line in (
            'wattshift_revenue_usd_total{device="asic-1",quality="modelled"}',
            'wattshift_revenue_usd_total{device="gpu0",quality="measured"}',
            "wattshift_hashprice_usd_per_ph_day 42.31",
            "wattshift_hashprice_age_seconds",
        ):
            assert line in scraped.text
        shown = await wattshift(at, "economics")
        assert shown.exit_code == 0, shown.output
        assert "42.31 USD/PH/day from" in shown.stdout
        assert "hashing on gpu0 costs 0.014 USD/h" in shown.stdout
        assert "1 cost more than they earn and run as reserve" in shown.stdout
        view = json.loads((await wattshift(at, "economics", "-o", "json")).stdout)
        assert [one["device"] for one in view["devices"]] == ["gpu0", "asic-1"]
        assert view["total"]["revenue_usd"].keys() == {"measured", "modelled"}
        one = json.loads((await wattshift(at, "economics", "--device", "a*", "-o", "json")).stdout)
        assert [row["device"] for row in one["devices"]] == ["asic-1"]

    play(scenario)


def test_an_unknown_hashprice_stops_all_mining_on_hope(play: Callable[..., None]) -> None:
    """The history begins in the year 2100: the ASIC sleeps, the GPU is worth its reserve alone."""
    later = '[{"time": 4102444799, "usd_per_ph_day": 42}]'

    async def scenario(at: Any) -> None:
        await at.until(mining(at, "gpu0", "mine"), "a reserve is worth what it was")
        await at.until(mining(at, "asic-1", "sleep"), "an ASIC does not mine on hope")
        alarms = {one["id"]: one["text"] for one in at.front.site()["alarms"]}
        assert "hashes count nothing" in alarms["hashprice-unknown"]
        assert "begins later" in alarms["hashprice-unknown"]
        assert "the hashprice is unknown" in at.money("asic-1")["sentence"]
        assert at.front.metrics_snapshot()["hashprice_usd_per_ph_day"] is None
        with pytest.raises(Refused, match="no figure is held"):
            await at.front.confirm_hashprice("kim")

        at.hashprice('{"usd_per_ph_day": 42.31}')
        await at.until(mining(at, "asic-1", "full"), "it is known again")
        assert "hashprice-unknown" not in {one["id"] for one in at.front.site()["alarms"]}
        (told,) = [d for d in at.front.decisions("site", None, 50) if d["action"] == "hashprice"][
            :1
        ]
        assert "42.31 USD/PH/day" in told["reason"]

    play(scenario, stated=later)


def test_a_jump_is_held_with_an_alarm_until_an_operator_confirms(
    play: Callable[..., None],
) -> None:
    async def scenario(at: Any) -> None:
        await at.until(mining(at, "asic-1", "full"), "the ASIC earns")
        at.hashprice('{"usd_per_ph_day": 2.0}')

        def held() -> bool:
            return "hashprice-held" in {one["id"] for one in at.front.site()["alarms"]}

        await at.until(held, "the jump is flagged")
        assert at.controller.state.values.hashprice_usd_per_ph_day == 42.31
        assert at.device("asic-1")["mode"] == "full"
        view = at.front.economics(None, 10)["hashprice"]
        assert "jump from 42.31" in view["held"][0]
        for role, status in (("viewer", 403), (None, 401)):
            answer = await asked(at, "POST", "/v1/economics/confirm", role)
            assert answer.status_code == status
        assert at.controller.state.values.hashprice_usd_per_ph_day == 42.31
        at_once = await wattshift(at, "economics", "--confirm")
        assert at_once.exit_code == 0, at_once.output
        assert "confirmed: usd_per_ph_day" in at_once.stderr
        assert at.controller.state.values.hashprice_usd_per_ph_day == 2.0
        await at.until(mining(at, "asic-1", "sleep"), "at 2 USD/PH/day it does not earn its energy")
        told = await at.until(lambda: told_of(at, "site", "confirm"), "who said so is on record")
        assert told["reason"] == "usd_per_ph_day 2, confirmed by admin"
        refused = await wattshift(at, "economics", "--confirm")
        assert refused.exit_code == 6

    play(scenario)
