"""For tests: when a set point counts as reached: by measured watts, never by the machine's word.

A firmware answers "done" to commands it drops, and pyasic calls a dead machine mining. Hence a
ceiling falls only when a sample taken after the command shows watts at or below the point.
"""

from wattshift_cluster.asic.driver import AsicPoint, AsicReading


def confirmed(
    reading: AsicReading, point: AsicPoint, tolerance: float, *, since_boot_s: float | None = None
) -> bool:
    """Whether the sample shows the machine at or below the point.

    Args:
        reading: a sample. One without watts confirms nothing.
        point: what was asked for.
        tolerance: share by which the draw may exceed the point's watts.
        since_boot_s: boot clock when the command was accepted; an older sample confirms nothing.
    """
    if reading.watts_w is None:
        return False
    if since_boot_s is not None and reading.at_boot_s <= since_boot_s:
        return False
    return reading.watts_w <= point.watts_w * (1.0 + tolerance)
