"""Whether a server answers: its ready URL is asked every half second until it says 2xx."""

import http.client
import threading
import time
import urllib.parse
import urllib.request

from wattshift_cluster.errors import ConfigInvalid

PROBE_EVERY_S = 0.5
PROBE_S = 2.0


class Probe:
    """Asks in a thread of its own, so that a server that hangs holds nobody up.

    Attributes:
        answered: set once the server said 2xx.
    """

    def __init__(self, url: str) -> None:
        """Begin to ask. Raises: ConfigInvalid when it is no http or https URL."""
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigInvalid([f"{url!r}: allowed: http://HOST… or https://HOST…"])
        self.answered = threading.Event()
        self._url = url
        self._closed = threading.Event()
        # A proxy's answer would say nothing of the server.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        threading.Thread(target=self._ask, name="gate-probe", daemon=True).start()

    def close(self) -> None:
        """Stop asking."""
        self._closed.set()

    def _ask(self) -> None:
        while not self._closed.is_set():
            began_s = time.monotonic()
            if self._once():
                self.answered.set()
                return
            self._closed.wait(max(0.0, PROBE_EVERY_S - (time.monotonic() - began_s)))

    def _once(self) -> bool:
        try:
            with self._opener.open(self._url, timeout=PROBE_S):
                return True  # all but 2xx raises
        except (OSError, ValueError, http.client.HTTPException):
            return False  # not there yet, or not yet itself
