"""What holds for all tests: which are left out, and that Ctrl-C reaches what they start.

Tests marked `nightly` show what goes wrong rarely or takes long to show. The usual run, which has
to be over in minutes, leaves them out.
"""

import os
import signal

import pytest

NIGHTLY = "WATTSHIFT_NIGHTLY"


def pytest_configure() -> None:
    """A shell starts its background jobs deaf to interrupts, and so all that they start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out the nightly tests, unless they are asked for."""
    if os.environ.get(NIGHTLY) == "1":
        return
    for item in items:
        if item.get_closest_marker("nightly"):
            item.add_marker(pytest.mark.skip(reason=f"nightly: set {NIGHTLY}=1 to run it"))
