"""`wattshift token`: make, list and revoke bearer tokens.

With --state-dir the token file itself is used, which needs no running controller; otherwise the
controller is asked, which needs an admin token.
"""

from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from wattshift_cluster.api.tokens import ROLE_NAMES, TokenStore, role_of
from wattshift_cluster.cli.options import DURATION, controller_options
from wattshift_cluster.cli.output import emit, grid, output_option, talk
from wattshift_cluster.client import ControllerClient

state_dir_option = click.option(
    "--state-dir",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="WATTSHIFT_STATE_DIR",
    help="Use the token file of this directory, not a running controller.",
)


@click.group()
def token() -> None:
    """Make, list or revoke tokens; the roles are viewer < operator < admin.

    \b
      wattshift token create grafana --role viewer
      wattshift token list
      wattshift token revoke 1a2b3c4d
    """


@token.command()
@click.argument("name")
@click.option("--role", type=click.Choice(ROLE_NAMES), default="viewer", show_default=True)
@click.option("--ttl", type=DURATION, help="How long it lives; for ever if not given.")
@state_dir_option
@controller_options
@output_option
def create(
    name: str,
    role: str,
    ttl: float | None,
    state_dir: Path | None,
    url: str | None,
    token: str | None,
    output: str,
) -> None:
    """Make a token and print its secret, which nobody can show again.

    \b
      wattshift token create ci --role operator --ttl 30d
    """
    if state_dir is not None:
        secret, kept = TokenStore(state_dir).create(name, role_of(role), ttl)
        view: dict[str, Any] = {**kept.view(), "secret": secret}
    else:
        body = {"name": name, "role": role} | ({} if ttl is None else {"ttl": ttl})
        with ControllerClient.find(url, token) as controller:
            view = controller.post("/v1/tokens", body)
    talk(f"token {view['id']} ({view['role']}); keep the secret, it is not shown again")
    emit(view, output, lambda one: str(one["secret"]))


@token.command(name="list")
@state_dir_option
@controller_options
@output_option
def list_tokens(state_dir: Path | None, url: str | None, token: str | None, output: str) -> None:
    """List tokens, without their secrets.

    \b
      wattshift token list
    """
    if state_dir is not None:
        found = [kept.view() for kept in TokenStore(state_dir).tokens()]
    else:
        with ControllerClient.find(url, token) as controller:
            found = controller.get("/v1/tokens")["tokens"]
    emit(found, output, tokens_text)


@token.command()
@click.argument("token_id", metavar="ID")
@state_dir_option
@controller_options
def revoke(token_id: str, state_dir: Path | None, url: str | None, token: str | None) -> None:
    """Revoke a token; it counts no more from the next request on.

    \b
      wattshift token revoke 1a2b3c4d
    """
    if state_dir is not None:
        TokenStore(state_dir).revoke(token_id)
    else:
        with ControllerClient.find(url, token) as controller:
            controller.delete(f"/v1/tokens/{quote(token_id, safe='')}")
    talk(f"token {token_id} is revoked")


def tokens_text(found: list[dict[str, Any]]) -> str:
    """Return tokens for people."""
    if not found:
        return "no tokens"
    headers = ("ID", "NAME", "ROLE", "CREATED", "EXPIRES")
    rows = [
        (one["id"], one["name"], one["role"], one["created_at"], one["expires_at"] or "never")
        for one in found
    ]
    return grid(headers, rows)
