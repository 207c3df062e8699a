"""A learnt power model on disk: one small JSON file per device, replaced as a whole."""

import json
import os
from contextlib import suppress
from pathlib import Path

import structlog

from wattshift_cluster.agent.power.model import PowerModel

log = structlog.get_logger()

LIMIT_BYTES = 64 * 1024
"""A full memory is about 12 KiB."""


def load(path: Path, prior: PowerModel) -> PowerModel:
    """What was learnt of this device; `prior` when there is nothing, or nothing usable."""
    try:
        with path.open("rb") as file:
            text = file.read(LIMIT_BYTES + 1)
        if len(text) > LIMIT_BYTES:
            raise ValueError("far too long")
        return PowerModel.from_dict(json.loads(text))
    except FileNotFoundError:
        return prior
    except (OSError, ValueError, RecursionError) as fault:
        log.warning("power_model.unusable", path=str(path), reason=str(fault))
        return prior


def save(path: Path, model: PowerModel) -> None:
    """Write it so that a crash leaves the old file or the new one. Raises: OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        with fresh.open("w", encoding="utf-8") as file:
            json.dump(model.as_dict(), file, allow_nan=False)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    finally:
        with suppress(FileNotFoundError):
            fresh.unlink()
