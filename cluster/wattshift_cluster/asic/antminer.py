"""Stock Antminer: hashrate over port 4028, sleep and wake by a careful rewrite of the mode.

Most of it reports no watts (the newest names a figure, which a full sample passes on), so a poll is
a hashrate. Two points are known, asleep and awake; Bitmain's tables of the low and high modes were
not found. Awake means in the mode that the owner chose: a machine in its low mode is left in it,
and is woken into it again by the driver that put it to sleep.

The owner's mode is told as `owners_choice`: whoever keeps that, and hands it to the driver of a
later life, has the machine woken into it then, too.

A command reads the configuration, changes the mode alone, posts, and reads again. Nothing is posted
where the read was not whole (`antminer_conf`), or where the mode is already held: each change
restarts the miner, which costs minutes. Pools are not ours to write, but a write has to carry them;
they go back as they were just read. If they are *empty* afterwards, the machine has lost them and
the same write is repeated once; if they merely differ, somebody else wrote them, and they stay.
"""

import asyncio

from wattshift_cluster.asic.antminer_conf import (
    ASLEEP,
    HIGH,
    LOW,
    NORMAL,
    Doubtful,
    changed,
    check,
    check_pools,
    mode_of,
    with_mode,
)
from wattshift_cluster.asic.antminer_sample import (
    ideal_rate,
    stats_sample,
    summary_rate,
    web_sample,
)
from wattshift_cluster.asic.driver import (
    SLEEP,
    AsicIdentity,
    AsicPoint,
    AsicReading,
    AsicRefused,
)
from wattshift_cluster.asic.http import HttpSession, words
from wattshift_cluster.asic.http_auth import Digest
from wattshift_cluster.asic.models import rating
from wattshift_cluster.asic.reported import Json, text
from wattshift_cluster.asic.setup import Setup
from wattshift_cluster.asic.wire import ask_cgminer, parsed
from wattshift_cluster.bootclock import boot_s

ACCOUNT = "root"
AWAKE = "normal"
CONF = "/cgi-bin/get_miner_conf.cgi"
SET_CONF = "/cgi-bin/set_miner_conf.cgi"
SYSTEM = "/cgi-bin/get_system_info.cgi"
STATS = "/cgi-bin/stats.cgi"
PATIENCE_S = 30.0
"""A write was seen to answer after 21 s (256foundation/asic-rs, issue 245)."""

NO_PASSWORD = "no password: name it for this machine in the agent's configuration"
CHOICES = {NORMAL: "normal", LOW: "low"}
"""The owner's modes that we may wake into: a high one may draw more than the nameplate."""

_POINT_OF = {NORMAL: AWAKE, LOW: AWAKE, ASLEEP: SLEEP, HIGH: "high"}


class AntminerDriver:
    """AsicDriver for one Antminer with the maker's firmware.

    Args:
        setup: the machine and its owner's password; without one only what port 4028 tells is read.
    """

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        login = setup.credentials
        self._auth = Digest(login.username or ACCOUNT, login.password) if login else None
        self._web = HttpSession(setup.address, deadline_s=setup.deadline_s, auth=self._auth)
        self._identity: AsicIdentity | None = None
        self._owners_mode: int | None = None
        self._commands = asyncio.Lock()

    @property
    def address(self) -> str:
        """Where the machine answers."""
        return self._setup.address

    @property
    def command_s(self) -> float:
        """See Slow: two reads, a post, two reads, and a login at most with each."""
        return PATIENCE_S + 6.0 * self._setup.deadline_s

    @property
    def owners_choice(self) -> str | None:
        """See Choosing: "normal" or "low"."""
        return None if self._owners_mode is None else CHOICES[self._owners_mode]

    @owners_choice.setter
    def owners_choice(self, choice: str | None) -> None:
        self._remember(next((mode for mode, name in CHOICES.items() if name == choice), None))

    async def identify(self) -> AsicIdentity:
        """Read model and firmware. Raises AsicRefused where nobody knows what it draws at most."""
        system = await self._web.get_json(SYSTEM) if self._auth else {}
        found = self._setup.found
        model = text(system.get("minertype")) or found.model
        rated = rating(model)
        top_w = self._setup.nameplate_w or (rated.watts_w if rated else None)
        if top_w is None:
            reason = f"our table does not rate a {model}: name its nameplate in the configuration"
            raise AsicRefused(self.address, "identify", reason)
        top_h = rated.hashrate_h_per_s if rated else await self._ideal_h_per_s(model)
        mac = text(system.get("macaddr"))
        version = text(system.get("system_filesystem_version")) or found.version
        ability = self._setup.ability
        self._identity = AsicIdentity(
            address=self.address,
            model=model,
            firmware=f"Antminer {version}",
            mac=mac.upper() if mac else None,
            algorithm="sha256d",
            nameplate_w=top_w,
            tolerance=ability.tolerance,
            safe_w=ability.standby_w,
            power_on_w=top_w,
            continuous=False,
            points=(
                AsicPoint(SLEEP, ability.standby_w, 0.0, ability.sleep_s),
                AsicPoint(AWAKE, top_w, top_h, ability.settle_s),
            ),
            serial=text(system.get("serinum")) or text(system.get("serial_no")),
        )
        return self._identity

    async def prepare(self) -> None:
        """Log in and hold the connection; repeated, it checks that both still hold."""
        if self._auth is None:
            await self.poll()
        else:
            await self._conf("prepare")

    async def close(self) -> None:
        """See AsicDriver."""
        await self._web.close()

    async def poll(self) -> AsicReading:
        """See AsicDriver. Hashrate alone; needs no login."""
        rate = summary_rate(await self._ask("summary"))
        return AsicReading(boot_s(), None, rate, None, None)

    async def read(self) -> AsicReading:
        """Take one full sample. Without a password temperature and hashrate are all there is."""
        if self._auth is None:
            rate, hot_c = stats_sample(await self._ask("stats"))
            return AsicReading(boot_s(), None, rate, hot_c, None)
        sample = web_sample(await self._web.get_json(STATS))
        mode = sample.mode
        if mode is None:
            # A sleeping machine may give no figures at all, and new firmware names no mode here.
            mode = mode_of(await self._conf("read"))
        self._remember(mode)
        return AsicReading(
            at_boot_s=boot_s(),
            watts_w=sample.watts_w,
            hashrate_h_per_s=sample.hashrate_h_per_s,
            temperature_c=sample.temperature_c,
            power_limit_w=None,
            mode=None if mode is None else _POINT_OF[mode],
            estimated=sample.watts_w is not None,
        )

    async def set_point(self, mode: str, watts_w: float) -> None:
        """Sleep, or be awake at up to the nameplate; see AsicDriver."""
        if mode == SLEEP:
            await self.sleep()
            return
        doing = f"set {mode}"
        if mode != AWAKE:
            raise AsicRefused(self.address, doing, "the machine has no such point")
        known = self._identity or await self.identify()
        if watts_w < known.nameplate_w * 0.999:
            raise AsicRefused(self.address, doing, f"the lease allows {watts_w:.0f} W")
        await self._hold(doing, (NORMAL, LOW))

    async def sleep(self) -> None:
        """Sleep mode; see AsicDriver."""
        await self._hold("sleep", (ASLEEP,))

    async def wake(self) -> None:
        """Resume in the mode that was held before the sleep, normal where that is not known."""
        await self._hold("wake", (NORMAL, LOW, HIGH))

    async def _hold(self, doing: str, accepted: tuple[int, ...]) -> None:
        """See to it that the configuration names one of the modes `accepted`."""
        if self._auth is None:
            raise AsicRefused(self.address, doing, NO_PASSWORD)
        async with self._commands:
            before = await self._conf(doing)
            try:
                check(before)
            except Doubtful as doubt:
                reason = f"its configuration is left alone: {doubt}"
                raise AsicRefused(self.address, doing, reason) from None
            held = mode_of(before)
            self._remember(held)
            if held in accepted:
                return
            awake = NORMAL if self._owners_mode is None else self._owners_mode
            wanted = ASLEEP if accepted == (ASLEEP,) else awake
            answer = await self._post(doing, with_mode(before, wanted))
            after = await self._conf(doing)
            if differing := changed(before, after):
                after = await self._faced(doing, before, after, wanted, differing)
            if mode_of(after) != wanted:
                raise AsicRefused(self.address, doing, f"the mode did not change: {answer}")
            if differing:
                reason = f"the mode is set, but these changed with it: {_named(differing)}"
                raise AsicRefused(self.address, doing, reason)

    async def _faced(
        self, doing: str, before: Json, after: Json, wanted: int, differing: list[str]
    ) -> Json:
        """The configuration, after pools that the machine has lost were given back to it."""
        if "pools" not in differing:
            return after
        try:
            check_pools(after)
        except Doubtful:
            # Whoever waits for the command may lose patience, but the pools must come back.
            await asyncio.shield(self._post(doing, with_mode(before, wanted)))
            after = await self._conf(doing)
            back = "pools" not in changed(before, after)
            outcome = "the same write brought them back" if back else "they are NOT back"
            reason = f"the machine lost its pools in the write; {outcome}"
            raise AsicRefused(self.address, doing, reason) from None
        return after

    async def _post(self, doing: str, conf: Json) -> str:
        """Send a configuration once and return what the machine said to it."""
        # A session of its own: readings need not wait for it.
        once = HttpSession(self.address, deadline_s=self._setup.deadline_s, auth=self._auth)
        status, answer = await once.request_slow("POST", SET_CONF, conf, patience_s=PATIENCE_S)
        if status != 200:
            raise once.fault(doing, status, answer)
        return words(answer)

    async def _conf(self, doing: str) -> Json:
        """The configuration, from a whole answer with status 200."""
        status, answer = await self._web.request("GET", CONF)
        if status != 200:
            raise self._web.fault(doing, status, answer)
        return parsed(self.address, doing, answer)

    async def _ask(self, command: str) -> Json:
        return await ask_cgminer(self.address, command, deadline_s=self._setup.deadline_s)

    async def _ideal_h_per_s(self, model: str) -> float:
        """The rate that the machine names as its own. Raises AsicRefused where it names none."""
        rate = ideal_rate(await self._ask("stats"))
        if not rate:
            reason = f"neither our table nor the firmware names the hashrate of a {model}"
            raise AsicRefused(self.address, "identify", reason)
        return rate

    def _remember(self, mode: int | None) -> None:
        """Keep the mode to wake into."""
        if mode in CHOICES:
            self._owners_mode = mode


def _named(fields: list[str]) -> str:
    return words(", ".join(fields).encode())
