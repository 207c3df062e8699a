"""`wattshift node`: the compute nodes, their watts, and having one's work leave it."""

from typing import Any
from urllib.parse import quote

import click

from wattshift_cluster.cli.explain_compute import node_text
from wattshift_cluster.cli.options import controller_options
from wattshift_cluster.cli.output import emit, grid, output_option, talk, watts
from wattshift_cluster.client import ControllerClient


@click.group()
def node() -> None:
    """List the nodes that Ray's work runs on, have all work leave one, or forget a lost one.

    \b
      wattshift node list
      wattshift node drain gpu-node-1
      wattshift node forget gpu-node-1
    """


@node.command(name="list")
@controller_options
@output_option
def list_nodes(url: str | None, token: str | None, output: str) -> None:
    """List the compute nodes with the watts granted, used, and drawn unasked.

    \b
      wattshift node list
      wattshift node list -o json
    """
    with ControllerClient.find(url, token) as controller:
        found = controller.get("/v1/nodes")["nodes"]
    emit(found, output, nodes_text)


@node.command()
@click.argument("name", metavar="NODE")
@click.option("--yes", is_flag=True, help="Do not ask: Ray knows no way back.")
@controller_options
@output_option
def drain(name: str, yes: bool, url: str | None, token: str | None, output: str) -> None:
    """Have all work leave a node, for good: services move, batch ends at its checkpoint.

    \b
      wattshift node drain gpu-node-1
      wattshift node drain gpu-node-1 --yes

    Ray cannot undo it: the node takes work again only after Ray was restarted on it. Admins only.
    """
    if not yes:
        click.confirm(f"drain {name}? Only a restart of Ray there undoes it", abort=True, err=True)
    with ControllerClient.find(url, token) as controller:
        view = controller.post(f"/v1/nodes/{quote(name, safe='')}:drain")
    if view.get("note"):
        talk(f"{name}: {view['note']}")
    emit(view, output, node_text)


@node.command()
@click.argument("name", metavar="NODE")
@click.option("--yes", is_flag=True, help="Do not ask: you vouch that the machine is off.")
@controller_options
@output_option
def forget(name: str, yes: bool, url: str | None, token: str | None, output: str) -> None:
    """Give the watts of a lost node to others: you vouch that its machine is switched off.

    \b
      wattshift node forget gpu-node-1
      wattshift node forget gpu-node-1 --yes

    A node that Ray has lost keeps its watts, for it may still draw them where nobody can see it. Go
    and look, or cut its supply: if it runs all the same, the site may draw more than its cap.
    Refused (exit 6) while Ray answers there, and for a minute after. A node that comes back is
    taken as a new one, with no watts. Admins only.
    """
    if not yes:
        asked = f"forget {name}? Do you vouch that this machine is switched off"
        click.confirm(asked, abort=True, err=True)
    with ControllerClient.find(url, token) as controller:
        view = controller.post(f"/v1/nodes/{quote(name, safe='')}:forget")
    if view.get("note"):
        talk(f"{name}: {view['note']}")
    emit(view, output, node_text)


def node_state(one: dict[str, Any]) -> str:
    """Return one word for where a node stands."""
    if not one["up"]:
        return "forgotten" if one["forgotten"] else "down"
    return "draining" if one["draining"] else "up"


def nodes_text(found: list[dict[str, Any]]) -> str:
    """Return compute nodes for people."""
    if not found:
        return "no compute nodes"
    headers = ("NODE", "STATE", "FEEDER", "GRANTED", "USED", "UNASKED", "MAX", "GPUS", "JOBS")
    rows = [
        (
            one["node"],
            node_state(one),
            one["feeder"],
            watts(one["power_w"]),
            watts(one["used_w"]),
            watts(one["unasked_w"]),
            watts(one["max_w"]),
            f"{one['gpus']:g}",
            ", ".join(f"{job} {n}" for job, n in sorted(one["units"].items())) or "-",
        )
        for one in found
    ]
    return grid(headers, rows, headers[3:8])
