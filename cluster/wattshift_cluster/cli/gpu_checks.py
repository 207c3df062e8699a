"""What `doctor` looks at where there are GPUs: it reads and changes nothing."""

import importlib.util
from contextlib import closing

from wattshift_cluster.agent.gpu.cards import Card, find_cards
from wattshift_cluster.agent.gpu.library import GpuFault, Library
from wattshift_cluster.agent.gpu.setters import missing_privilege
from wattshift_cluster.agent.gpu.zeusd import ZeusdSetter
from wattshift_cluster.cli.findings import Finding, Place
from wattshift_cluster.gate import ClientsView, GateInvalid
from wattshift_cluster.gate.clients import SUFFIX

DEFAULT_MODE, ALONE_MODE, NOBODY_MODE = 0, 3, 2
"""Compute modes as nvml.h numbers them."""


def driver(place: Place) -> Finding:
    """Look for NVIDIA's driver and its GPUs."""
    cards, trouble = _cards()
    if not cards:
        return Finding("driver", "warn", f"no GPU can be used: {trouble or 'there is none'}")
    names = ", ".join(f"{card.index} {card.name}" for card in cards)
    return Finding("driver", "ok", f"driver {cards[0].driver}, {len(cards)} GPU(s): {names}")


def power_limits(place: Place) -> Finding:
    """Look whether GPU power limits may be set; without that the agent reads them."""
    if not _cards()[0]:
        return Finding("power-limits", "ok", "no GPU, nothing to permit")
    sections = [agent.gpu for agent in place.agents]
    if any(section.power_limits == "read_only" for section in sections):
        return Finding("power-limits", "ok", "read_only is set: GPUs are steered by gates alone")
    for section in sections:
        if section.power_limits == "zeusd":
            refusal = ZeusdSetter(section.zeusd_socket, section.zeusd_token_file).refusal()
            mend = "systemctl status zeusd"
            return _permitted("set through zeusd", refusal, mend)
    mend = "run the agent as root, or with AmbientCapabilities=CAP_SYS_ADMIN, or use zeusd"
    return _permitted("may be set", missing_privilege(), mend)


def _permitted(text: str, refusal: str | None, mend: str) -> Finding:
    if refusal is None:
        return Finding("power-limits", "ok", text)
    return Finding("power-limits", "warn", f"{refusal}: GPUs are steered by gates alone", mend)


def compute_mode(place: Place) -> Finding:
    """Look whether a miner and an inference server may both use each GPU."""
    cards, _ = _cards()
    closed = [card for card in cards if card.compute_mode in (ALONE_MODE, NOBODY_MODE)]
    if closed:
        names = ", ".join(f"{card.index} {card.name}" for card in closed)
        text = f"one process only, or none: {names}; a miner there would shut inference out"
        mend = f"nvidia-smi -i {','.join(str(card.index) for card in closed)} -c DEFAULT"
        return Finding("compute-mode", "warn", text, mend)
    sliced = [f"{card.index} {card.name}" for card in cards if card.mig]
    if sliced:
        text = f"cut into MIG slices, so not mined on: {', '.join(sliced)}"
        return Finding("compute-mode", "warn", text)
    return Finding("compute-mode", "ok", "shared" if cards else "no GPU")


def cupy(place: Place) -> Finding:
    """Look for CuPy, which GPUs need to hash."""
    if importlib.util.find_spec("cupy") is not None:
        return Finding("cupy", "ok", "installed")
    if not _cards()[0]:
        return Finding("cupy", "ok", "not installed; no GPU needs it")
    return Finding("cupy", "warn", "not installed: no GPU hashes", "pip install wattshift[cuda12]")


def gates(place: Place) -> Finding:
    """Look who marks the gates that the site's agents keep."""
    folders = {agent.agent.gate_dir for agent in place.agents}
    files = sorted(file for folder in folders for file in folder.glob(f"*{SUFFIX}"))
    if not files:
        return Finding("gates", "ok", "none yet" if folders else "no agent file named")
    told, unread = [], []
    for file in files:
        try:
            with closing(ClientsView(file)) as view:
                told.append(f"{file.stem} {len(view.clients())}")
        except GateInvalid as fault:
            unread.append(str(fault))
    if unread:
        return Finding("gates", "warn", "; ".join(unread), "restart the agent that keeps it")
    return Finding("gates", "ok", f"clients that mark each: {', '.join(told)}")


def _cards() -> tuple[tuple[Card, ...], str | None]:
    """The cards here, and why there are none."""
    library = Library()
    try:
        library.open()
        return find_cards(library), None
    except GpuFault as fault:
        return (), fault.text
    finally:
        library.close()
