"""Contactors and relays over Modbus TCP: coils, an auxiliary contact, a watchdog register.

There is no common register map, so the owner writes one: a coil per outlet and, where they exist, a
discrete input that shows whether the contactor really closed, an input register with its draw, and
the holding register of a watchdog. A contactor that is not fed opens by itself, which is what makes
the device behind it fenced.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pymodbus.client import AsyncModbusTcpClient
from pymodbus.exceptions import ModbusException

from wattshift_cluster.outlets.driver import PduRefused, PduUnreachable

LARGEST_BEAT = 65_535


@dataclass(frozen=True, slots=True)
class Contactor:
    """The addresses of one outlet, as in the request (the first is 0).

    Attributes:
        coil: closes it while set.
        state: discrete input of its auxiliary contact; None: the coil is believed.
        watts: input register of its draw in units of `watts_scale` W; None: not metered.
    """

    coil: int
    state: int | None
    watts: int | None
    watts_scale: float


class ModbusWire:
    """See `driver.Wire`.

    Args:
        name: of the cabinet, in messages.
        host, port: where it answers.
        unit: its device id.
        contactors: by outlet.
        watchdog: holding register to be written; None: it has no watchdog.
        deadline_s: of one exchange.
    """

    def __init__(
        self,
        name: str,
        host: str,
        port: int,
        unit: int,
        contactors: Mapping[str, Contactor],
        watchdog: int | None,
        *,
        deadline_s: float,
    ) -> None:
        self._name = name
        self._unit = unit
        self._contactors = dict(contactors)
        self._watchdog = watchdog
        self._beat = 0
        # Reconnecting is ours: the library would do it unseen and in its own time.
        self._client = AsyncModbusTcpClient(
            host, port=port, timeout=deadline_s, retries=0, reconnect_delay=0
        )

    async def read(self, outlets: Sequence[str]) -> Mapping[str, tuple[bool | None, float | None]]:
        """See `driver.Wire`."""
        found: dict[str, tuple[bool | None, float | None]] = {}
        for outlet in outlets:
            one = self._contactors[outlet]
            if one.state is not None:
                bits = await self._ask("read", self._client.read_discrete_inputs, one.state)
            else:
                bits = await self._ask("read", self._client.read_coils, one.coil)
            watts_w = None
            if one.watts is not None:
                answer = await self._ask("read", self._client.read_input_registers, one.watts)
                watts_w = answer.registers[0] * one.watts_scale if answer.registers else None
            found[outlet] = (bool(bits.bits[0]) if bits.bits else None, watts_w)
        return found

    async def command(self, outlet: str, *, on: bool) -> None:
        """See `driver.Wire`."""
        doing = f"switch outlet {outlet} {'on' if on else 'off'}"
        await self._ask(doing, self._client.write_coil, self._contactors[outlet].coil, on)

    async def feed(self) -> None:
        """See `driver.Wire`. The value changes each time: some watchdogs look for that."""
        if self._watchdog is None:
            raise PduRefused(self._name, "feed the watchdog", "it has none")
        self._beat = self._beat % LARGEST_BEAT + 1
        await self._ask(
            "feed the watchdog", self._client.write_register, self._watchdog, self._beat
        )

    async def close(self) -> None:
        """See `driver.Wire`."""
        self._client.close()

    async def _ask(self, doing: str, request: Callable[..., Any], *what: Any) -> Any:
        try:
            if not self._client.connected and not await self._client.connect():
                raise PduUnreachable(self._name, doing, "no connection")
            answer = await request(*what, device_id=self._unit)
        except ModbusException as fault:
            self._client.close()
            raise PduUnreachable(self._name, doing, type(fault).__name__) from None
        except asyncio.CancelledError:
            # An answer that is still under way must not be taken for the next one.
            self._client.close()
            raise
        if answer.isError():
            code = getattr(answer, "exception_code", None)
            raise PduRefused(self._name, doing, f"Modbus exception {code}")
        return answer
