"""The worker's view of a gate: may I launch now, and how large a share of the time?

Asked before every launch of 0.5 to 1 ms. Whatever is missing, damaged or out of date means no.
"""

from pathlib import Path

from wattshift_cluster.gate import agent_file, clients
from wattshift_cluster.gate.layout import GateInvalid


class WorkerGate:
    """Both files of a gate, mapped for reading.

    Attributes:
        reason: why the last answer was 0; None when it was not, or when the lease itself says so.
        leased: whether the last answer would be more than 0 with no client busy.
    """

    def __init__(self, path: Path) -> None:
        """Map `DIR/<device>.gate` and the clients' file beside it.

        Raises:
            GateInvalid: one is missing or short. Without a clients' file nobody could claim the
                device, so a worker does not run then either.
        """
        path = Path(path)
        self.reason: str | None = None
        self.leased = False
        self._gate = agent_file.GateReader(path)
        try:
            self._clients = clients.ClientsView(path.with_suffix(clients.SUFFIX))
        except GateInvalid:
            self._gate.close()
            raise

    def duty_pct(self, now_ns: int) -> int:
        """Share of time to launch in, %; 0 means: do not launch.

        The intensity beside busy clients is the word of the device's owner about servers that mark
        the gate. Whoever is only observed never agreed to it, so beside those nothing is launched.

        Args:
            now_ns: the boot clock, ns.
        """
        try:
            state = self._gate.read()
        except GateInvalid as fault:
            self.reason, self.leased = str(fault), False
            return 0
        idle_pct = state.duty_pct(now_ns, busy=False)
        busy_pct = state.duty_pct(now_ns, busy=True)
        self.reason, self.leased = None, idle_pct > 0
        if idle_pct == busy_pct == 0:
            return 0
        match self._clients.busy_kind(now_ns):
            case None:
                return idle_pct
            case "client":
                return busy_pct
            case _:
                return 0

    def memory_wanted(self) -> bool:
        """Whether a living client wants the device's memory: give all of it back and end."""
        return self._clients.memory_wanted()

    def close(self) -> None:
        """Unmap both."""
        self._gate.close()
        self._clients.close()
