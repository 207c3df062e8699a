"""From what the grid says to the cap that the controller acts on, on this machine.

    event_to_cap_ms_p99   from the utility's POST of an event to the VTN until the effective cap of
                          the controller is the event's: by webhook, by MQTT, by polling alone
    over_poll_ms_p99      by polling, what it took beyond the poll period
    comms_loss_error_s    how far from the second at which its last limit ran out the subscribed
                          capacity held, the VTN being dead since the limit was heard
    frequency_response_ms_max
                          from the crossing to the first watt shed, in the 30 Hz trace; the
                          sensor's window is counted
    event_types, …_mapped of the event payloads that OpenADR 3.1.1 lists

VTN and broker are processes of their own; the controller runs in this one, with its journal on
disk, so that one clock sees both ends. Events lower and raise the cap in turn.
"""

import asyncio
import os
import sys
import tempfile
from pathlib import Path

from benchmarks import signals_caps, signals_frequency
from benchmarks.cannot import CannotRunHere

from wattshift_cluster.grid.openadr.meanings import MEANINGS, Becomes


def run() -> dict[str, object]:
    """Measure; the keys are those of INTERFACES."""
    folder = os.environ.get("WATTSHIFT_DATA")
    if not folder:
        raise CannotRunHere("WATTSHIFT_DATA names no folder of traces: the 30 Hz event is in it")
    with tempfile.TemporaryDirectory(prefix="wattshift-signals-") as place:
        caps = asyncio.run(signals_caps.measure(Path(place)))
    story = signals_frequency.replay(
        signals_frequency.gmlc(Path(folder)), signals_frequency.TERMS, signals_frequency.SENSOR
    )
    sys.stderr.write(f"{story.text()}\n")
    mapped = [one for one in MEANINGS.values() if one.becomes is not Becomes.IGNORED]
    p99 = {way: taken.p99_ms for way, taken in caps.ways.items()}
    return {
        "quality": "measured on loopback; the frequency replayed from a simulated trace",
        "event_to_cap_ms_p99": p99,
        "event_to_cap_ms_p50": {way: taken.p50_ms for way, taken in caps.ways.items()},
        "events_each": {way: taken.events for way, taken in caps.ways.items()},
        "webhook_ms_p99": p99["webhook"],
        "mqtt_ms_p99": p99["mqtt"],
        "over_poll_ms_p99": round(p99["poll"] - signals_caps.POLL_S * 1e3, 3),
        "poll_s": signals_caps.POLL_S,
        "comms_loss_error_s": caps.comms_loss_error_s,
        "frequency_response_ms_max": story.response_ms_max,
        "event_types": len(MEANINGS),
        "event_types_mapped": len(mapped),
    }
