"""One finding of the doctor, and the place it looks at."""

from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from wattshift_cluster.config.agent import AgentConfig
from wattshift_cluster.config.load import load_agent, load_site
from wattshift_cluster.config.site import SiteConfig
from wattshift_cluster.errors import ConfigInvalid, WattshiftError

PROBE_S = 2.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor; `level` is ok, warn or fail, `mend` a command or empty."""

    check: str
    level: str
    text: str
    mend: str = ""


@dataclass(frozen=True, slots=True)
class Reached:
    """What answers where the site's controller is looked for.

    Attributes:
        url: where it answers; None when nothing does.
        site: its `/v1/site`; None without a token for it.
        trouble: why it cannot be reached; None when it can.
    """

    url: str | None
    site: dict[str, Any] | None
    trouble: str | None


@dataclass
class Place:
    """What is looked at: a site file if one was named, and the controller to reach.

    `quick` leaves out what takes seconds.
    """

    site_file: Path | None
    url: str | None = None
    token: str | None = None
    quick: bool = False

    @cached_property
    def site(self) -> SiteConfig | None:
        """The site file, if it is valid."""
        try:
            return None if self.site_file is None else load_site(self.site_file)
        except ConfigInvalid:
            return None

    @cached_property
    def agents(self) -> tuple[AgentConfig, ...]:
        """The valid agent files that the site file names."""
        found = []
        for ref in () if self.site is None else self.site.agents:
            with suppress(ConfigInvalid):
                if ref.config is not None:
                    found.append(load_agent(ref.config))
        return tuple(found)

    @property
    def controller_url(self) -> str | None:
        """The address asked for, else the site file's; None leaves the choice to the client."""
        if self.url is None and self.site is not None:
            return f"http://{self.site.api.listen}"
        return self.url

    @cached_property
    def controller(self) -> Reached:
        """The controller that answers now, asked once."""
        from wattshift_cluster.client import ControllerClient, find_controller

        try:
            endpoint = find_controller(self.controller_url, self.token)
            with ControllerClient(endpoint.url, endpoint.token, deadline_s=PROBE_S) as client:
                client.get("/readyz")
                site = None if endpoint.token is None else client.get("/v1/site")
        except WattshiftError as error:
            return Reached(None, None, str(error))
        return Reached(endpoint.url, site, None)

    @property
    def state_dir(self) -> Path:
        """Where the state goes, or would go."""
        return Path.cwd() if self.site is None else self.site.site.state_dir
