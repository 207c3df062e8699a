"""`[[openadr]]` of site.toml as a running source: login, client, webhook, MQTT, and the VEN itself.

The webhook and MQTT only make it quicker: where either cannot be had that is told, and polling goes
on without it.
"""

import asyncio
import secrets
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import urlsplit

from wattshift_cluster.config.fields import split_address
from wattshift_cluster.config.openadr import OpenAdr, OpenAdrResource, OpenAdrWebhook
from wattshift_cluster.errors import WattshiftError
from wattshift_cluster.grid.openadr.asked import BaselineW, Terms, no_baseline_w
from wattshift_cluster.grid.openadr.asking import Wishes
from wattshift_cluster.grid.openadr.callback import Callback
from wattshift_cluster.grid.openadr.client import VtnClient
from wattshift_cluster.grid.openadr.kept import KeptFile
from wattshift_cluster.grid.openadr.listener import Listener
from wattshift_cluster.grid.openadr.login import Login
from wattshift_cluster.grid.openadr.notices import Heard
from wattshift_cluster.grid.openadr.readings import Readings
from wattshift_cluster.grid.openadr.topics import Topics
from wattshift_cluster.grid.openadr.ven import OpenAdrVen
from wattshift_cluster.grid.openadr.words import Payload, ResourceWish, SubscriptionWish
from wattshift_cluster.grid.said import Say
from wattshift_scheduler.signals.words import Work

TOPICS_AGAIN_S = 300.0
"""How often it is asked where MQTT tells of our programs."""
TOKEN_BYTES = 32


class OpenAdrSource:
    """One VTN of OpenADR 3 as site.toml names it (see `said.Source`)."""

    def __init__(
        self,
        config: OpenAdr,
        state_dir: Path,
        *,
        readings: Readings | None = None,
        baseline_w: BaselineW = no_baseline_w,
        clock_s: Callable[[], float] = time.time,
    ) -> None:
        """Prepare; nothing is read or sent yet.

        Args:
            state_dir: what is known of the VTN is kept there, as `openadr-NAME.json`.
            readings: what its reports tell; None: it reports nothing.
            baseline_w: see `asked.BaselineW`.
            clock_s: unix time, s.

        Raises:
            ConfigInvalid: the address or the file of authorities cannot be used.
        """
        self._config = config
        self._verify: bool | str = config.verify
        if config.verify and config.ca_file is not None:
            self._verify = str(config.ca_file)
        # A token of this run alone: what an older run asked for is taken over by this one.
        self._bearer = secrets.token_urlsafe(TOKEN_BYTES)
        self._heard = Heard()
        self._client = VtnClient(
            config.url,
            _login(config),
            version=config.version,
            verify=self._verify,
            deadline_s=config.deadline_s,
            targets=config.targets,
        )
        self._ven = OpenAdrVen(
            self._client,
            terms_of(config, baseline_w),
            _wishes(config, self._bearer),
            KeptFile(state_dir / f"openadr-{config.name}.json"),
            readings=readings,
            clock_s=clock_s,
        )

    @property
    def name(self) -> str:
        """Its name, unique in the site."""
        return self._config.name

    def power_lost(self) -> None:
        """The grid's power failed: no limit counts until the VTN has answered."""
        self._ven.power_lost()

    async def run(self, say: Say) -> None:
        """Speak until cancelled; faults of the outside world are said, not raised."""
        async with AsyncExitStack() as closing:
            closing.push_async_callback(self._client.close)
            if self._config.webhook is not None:
                # Before the first poll: the VTN knocks on it when it is asked to tell us.
                await self._receive(self._config.webhook, closing)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._ven.run(say))
                if self._config.mqtt:
                    tasks.create_task(self._listen())

    async def _receive(self, webhook: OpenAdrWebhook, closing: AsyncExitStack) -> None:
        callback = Callback(
            self._bearer,
            self._ven.notice,
            path=urlsplit(webhook.url).path or "/",
            cert=webhook.certificate,
            key=webhook.key,
            heard=self._heard,
        )
        host, port = split_address(webhook.listen)
        try:
            await callback.start(host, port)
        except WattshiftError as fault:
            self._ven.remark("webhook", f"no webhook: {fault}")
            return
        closing.push_async_callback(callback.close)

    async def _listen(self) -> None:
        """Follow the topics of our programs, and look now and then whether they have changed."""
        following: Topics | None = None
        listening: asyncio.Task[None] | None = None
        await self._ven.answered.wait()
        try:
            while True:
                topics = await self._topics()
                if topics is not None and topics != following:
                    if listening is not None:
                        listening.cancel()
                    following = topics
                    listening = asyncio.create_task(self._listener(topics).run())
                await asyncio.sleep(TOPICS_AGAIN_S)
        finally:
            if listening is not None:
                listening.cancel()
                await asyncio.gather(listening, return_exceptions=True)

    async def _topics(self) -> Topics | None:
        try:
            found = await self._client.topics(
                ven_id=self._ven.ven_id, program_ids=tuple(self._ven.known.programs)
            )
        except WattshiftError as fault:
            self._ven.remark("mqtt", f"no notices by MQTT: {fault}")
            return None
        self._ven.remark("mqtt", None if found else "no notices by MQTT: the VTN has none for us")
        return found

    def _broker(self, fault: str | None) -> None:
        told = None if fault is None else f"no notices by MQTT: the broker is away: {fault}"
        self._ven.remark("broker", told)

    def _listener(self, topics: Topics) -> Listener:
        return Listener(
            topics,
            self._ven.notice,
            on_connected=self._ven.poll_now,
            on_fault=self._broker,
            client_id=self._config.client_id or "",
            token=self._client.token,
            verify=self._verify,
            heard=self._heard,
        )


def terms_of(config: OpenAdr, baseline_w: BaselineW = no_baseline_w) -> Terms:
    """What site.toml says was agreed with this VTN."""
    return Terms(
        config.name,
        config.ven_name,
        {one.name: Work(one.work) for one in config.resources},
        frozenset(config.targets),
        config.levels_w,
        config.nominal_w,
        config.subscription_w,
        config.units,
        config.currencies,
        config.commitments_w,
        baseline_w,
    )


def _login(config: OpenAdr) -> Login | None:
    if config.client_id is None or config.secret_file is None:
        return None
    return Login(config.client_id, config.secret_file, token_url=config.token_url)


def _wishes(config: OpenAdr, bearer: str) -> Wishes:
    callback = None
    if config.webhook is not None:
        callback = SubscriptionWish(
            client_name=config.ven_name, callback_url=config.webhook.url, bearer=bearer
        )
    return Wishes(
        config.poll_s,
        config.programs,
        tuple(_wish(one) for one in config.resources) if config.register_site else None,
        callback,
        each_program=config.version == "3.0",
        skew_alarm_s=config.skew_alarm_s,
    )


def _wish(resource: OpenAdrResource) -> ResourceWish:
    if resource.max_w is None:
        return ResourceWish(name=resource.name)
    most = Payload(type="MAX_POWER_CONSUMPTION", values=(resource.max_w / 1e3,))
    return ResourceWish(name=resource.name, attributes=(most,))
