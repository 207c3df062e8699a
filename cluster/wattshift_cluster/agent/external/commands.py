"""The command line of a foreign program, made by us, so that it cannot pay anybody else.

Pool and account come from the owner's file and are checked against the owner's consent before; of
an owner's further options only those of the program's row are taken, since any other could name a
pool, an account or a file that does. Secrets go into files of mode 0600, never on a command line
where the program can read one.
"""

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from wattshift_cluster.agent.external.miners import MINERS
from wattshift_cluster.agent.external.orders import Orders, private
from wattshift_cluster.config.agent import Miner

HANDED_ON = ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH")
"""Of our environment; the rest, with its tokens and paths, is no foreign program's business."""


def orders_for(miner: Miner, visible: str, folder: Path) -> Orders:
    """The orders for one section of the owner's file.

    Args:
        miner: the section; consent for it was checked.
        visible: the card, as CUDA_VISIBLE_DEVICES names it.
        folder: where a configuration of the program's may be written.

    Raises:
        OSError: it could not be.
    """
    row = MINERS[miner.program]
    token = secrets.token_hex(16) if row.config is not None else None
    words = {
        "algorithm": miner.algorithm,
        "pool": miner.url.replace("stratum+tls://", "stratum+ssl://"),
        "user": miner.user,
        "password": miner.password,
        "api_port": str(miner.api_port),
        "api_token": token or "",
        "config": str(folder / f"{miner.device}.{row.name}.json"),
    }
    if row.config is not None:
        private(Path(words["config"]), json.dumps(_filled(row.config, words)))
    own = miner.arguments if row.name == "command" else _extras(miner.arguments)
    command = (str(miner.path), *(part.format_map(words) for part in row.arguments), *own)
    environment = {name: os.environ[name] for name in HANDED_ON if name in os.environ}
    return Orders(
        program=row.name,
        command=command,
        environment={**environment, "CUDA_VISIBLE_DEVICES": visible},
        api_port=miner.api_port,
        api_token=token,
        keep_s=miner.keep_s,
        quiet_s=miner.quiet_s,
    )


def refused_extras(program: str, arguments: tuple[str, ...]) -> str | None:
    """Why further options are not taken; None when they are.

    Each is `--name=value` or `--name`, and its name stands in the program's row.
    """
    row = MINERS[program]
    if row.name == "command":
        return None
    for one in arguments:
        name = one.partition("=")[0]
        if name not in row.extras:
            known = ", ".join(sorted(row.extras)) or "none"
            return f"{program} does not take {name!r} from us; allowed: {known}"
    return None


def _extras(arguments: tuple[str, ...]) -> tuple[str, ...]:
    parts: list[str] = []
    for one in arguments:
        name, equals, value = one.partition("=")
        parts.extend((name, value) if equals else (name,))
    return tuple(parts)


def _filled(value: object, words: Mapping[str, str]) -> object:
    """A template with its words filled in; a port alone becomes a number."""
    if isinstance(value, Mapping):
        return {key: _filled(one, words) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_filled(one, words) for one in value]
    if value == "{api_port}":
        return int(words["api_port"])
    return value.format_map(words) if isinstance(value, str) else value
