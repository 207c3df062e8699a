"""What a kWh emits: WattTime, Electricity Maps, and the units of anybody's table.

Marginal (WattTime's MOER: what one more kWh emits) and average figures (Electricity Maps) are
different things and are never mixed; which one a source tells stands in its name in the
configuration. Inside it is always g/kWh.

API facts as published: docs.watttime.org (login, /v3/forecast) and
docs.electricitymaps.com (/v3/carbon-intensity/forecast, header auth-token).
"""

import asyncio
import base64
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlencode

import httpx2

from wattshift_cluster.errors import ConfigInvalid
from wattshift_cluster.grid.curves.readers import CurveFailed, Told
from wattshift_cluster.grid.curves.rows import ReadValue, Shape, at_path, of_body
from wattshift_cluster.grid.fetch import FetchFailed, JsonSource

SANE_G_PER_KWH = (0.0, 5_000.0)
"""Lignite emits about 1,200 g/kWh."""

G_PER_LB = 453.592_37

UNITS_G_PER_KWH: Mapping[str, float] = MappingProxyType(
    {"g/kWh": 1.0, "kg/kWh": 1000.0, "kg/MWh": 1.0, "lbs/MWh": G_PER_LB / 1000.0}
)
"""g/kWh for one of each unit."""

SECRET_BYTES_MOST = 4096


def in_unit(unit: str) -> ReadValue:
    """Reads a cell in `unit` as g/kWh."""
    factor = UNITS_G_PER_KWH[unit]

    def read(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError("no figure")
        try:
            grams = float(value) * factor
        except (ValueError, OverflowError):
            raise ValueError(f"{str(value)[:40]!r} is no figure") from None
        least, most = SANE_G_PER_KWH
        if not least <= grams <= most:
            raise ValueError(f"{grams:g} g/kWh is outside {least:g} to {most:g}")
        return grams

    return read


def secret_of(path: Path) -> str:
    """The first line of a file with a secret. Raises: CurveFailed, which never shows it."""
    try:
        with path.open("rb") as file:
            text = file.read(SECRET_BYTES_MOST).decode()
    except (OSError, UnicodeDecodeError) as fault:
        raise CurveFailed(f"{path}: {getattr(fault, 'strerror', None) or 'not text'}") from None
    secret = text.partition("\n")[0].strip()
    if not secret or not secret.isprintable():
        raise CurveFailed(f"{path}: holds no secret")
    return secret


class _Forecast:
    """A table that an API tells, asked for at one address; see Reader."""

    local = False

    def __init__(
        self,
        address: str,
        asked: Mapping[str, object],
        deadline_s: float,
        client: httpx2.AsyncClient | None,
    ) -> None:
        self._shown = address
        self._source = JsonSource(f"{address}?{urlencode(asked)}", deadline_s, client)

    def _told(self, body: object, shape: Shape, unit: str, now_s: float) -> Told:
        """What an answer says. Raises: CurveFailed."""
        try:
            table = of_body(body, self._shown, shape, in_unit(unit))
        except ConfigInvalid as fault:
            raise CurveFailed(str(fault)) from None
        return Told(table.known(math.inf, now_s), table.notes)

    def _unheard(self, failed: FetchFailed) -> CurveFailed:
        return CurveFailed(f"{self._shown}: {failed}", failed.retry_after_s)

    async def close(self) -> None:
        """See Reader."""
        await self._source.close()


WATTTIME_SHAPE = Shape(time="point_time", end=None, issued="meta.generated_at", rows="data")

WATTTIME_UNITS = "lbs_co2_per_mwh"

POINT_MOST_S = 86_400.0


class WattTime(_Forecast):
    """The marginal emissions forecast of a region, from WattTime's API version 3.

    The token that its login gives is good for half an hour; a new one is asked for when it is
    refused, and at most once a question.
    """

    def __init__(
        self,
        url: str,
        region: str,
        username: str,
        password_file: Path,
        *,
        horizon_h: int = 24,
        deadline_s: float = 10.0,
        client: httpx2.AsyncClient | None = None,
    ) -> None:
        """Nothing is asked yet.

        Args:
            url: of the API, without a path, such as https://api.watttime.org.
            region: its name there, such as CAISO_NORTH.
            username, password_file: of the account.
            horizon_h: how far ahead, h; 0 to 72.
            deadline_s: of each of its requests, s.
            client: one of the caller's, which stays open.
        """
        asked = {"region": region, "signal_type": "co2_moer", "horizon_hours": horizon_h}
        base = url.rstrip("/")
        super().__init__(f"{base}/v3/forecast", asked, deadline_s, client)
        self._login = JsonSource(f"{base}/login", deadline_s, client)
        self._username, self._password_file = username, password_file
        self._token: str | None = None

    async def read(self, now_s: float) -> Told:
        """See Reader."""
        try:
            body = await self._ask()
        except FetchFailed as failed:
            raise self._unheard(failed) from None
        units = at_path(body, "meta.units")
        if units != WATTTIME_UNITS:
            raise CurveFailed(f"{self._shown}: figures in {str(units)[:40]!r}, not in lbs per MWh")
        point_s = at_path(body, "meta.data_point_period_seconds")
        shape = WATTTIME_SHAPE
        if isinstance(point_s, int | float) and 0 < point_s <= POINT_MOST_S:
            shape = replace(shape, hold_s=float(point_s))
        return self._told(body, shape, "lbs/MWh", now_s)

    async def _ask(self) -> dict[str, Any]:
        kept = self._token is not None
        if not kept:
            await self._log_in()
        try:
            return await self._source.get(self._bearer())
        except FetchFailed as failed:
            if failed.status not in (401, 403):
                raise
            self._token = None
            if not kept:
                raise
        await self._log_in()
        return await self._source.get(self._bearer())

    def _bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token}"}

    async def _log_in(self) -> None:
        password = await asyncio.to_thread(secret_of, self._password_file)
        basic = base64.b64encode(f"{self._username}:{password}".encode()).decode()
        token = (await self._login.get({"Authorization": f"Basic {basic}"})).get("token")
        if not (isinstance(token, str) and token.isascii() and token.isprintable()):
            raise FetchFailed("the login gave no token")
        self._token = token

    async def close(self) -> None:
        """See Reader."""
        await self._login.close()
        await super().close()


ELECTRICITY_MAPS_SHAPE = Shape(
    time="datetime", value="carbonIntensity", end=None, issued="updatedAt", rows="forecast"
)


class ElectricityMaps(_Forecast):
    """The average carbon intensity of a zone, as Electricity Maps forecasts it, g/kWh."""

    def __init__(
        self,
        url: str,
        zone: str,
        token_file: Path,
        *,
        horizon_h: int = 24,
        deadline_s: float = 10.0,
        client: httpx2.AsyncClient | None = None,
    ) -> None:
        """Nothing is asked yet.

        Args:
            url: of the API, without a path, such as https://api.electricitymaps.com.
            zone: its key there, such as DE or US-CAL-CISO.
            token_file: holds the token of the account.
            horizon_h: how far ahead, h: 6, 24, 48 or 72.
            deadline_s: of a question, s.
            client: one of the caller's, which stays open.
        """
        asked = {"zone": zone, "horizonHours": horizon_h}
        address = f"{url.rstrip('/')}/v3/carbon-intensity/forecast"
        super().__init__(address, asked, deadline_s, client)
        self._zone, self._token_file = zone, token_file

    async def read(self, now_s: float) -> Told:
        """See Reader."""
        token = await asyncio.to_thread(secret_of, self._token_file)
        try:
            body = await self._source.get({"auth-token": token})
            if body.get("zone") != self._zone:
                raise FetchFailed(f"it tells of zone {str(body.get('zone'))[:40]!r}")
        except FetchFailed as failed:
            raise self._unheard(failed) from None
        return self._told(body, ELECTRICITY_MAPS_SHAPE, "g/kWh", now_s)
