"""The `wattshift` command: a table of subcommands, and the one map from errors to exit codes.

Exit codes: 0 ok, 1 the job or run failed, 2 usage, 3 configuration invalid, 4 not found,
5 unreachable, 6 refused, 75 try later, 130 interrupted. Data go to stdout, talk to stderr.
"""

import difflib
import importlib
from typing import Any

import click

from wattshift_cluster.errors import WattshiftError

INTERRUPTED = 130

# name: (module under cli, attribute, one line of help). A module is imported when it is called.
COMMANDS: dict[str, tuple[str, str, str]] = {
    "up": ("runs", "up", "Run a whole site on this machine."),
    "demo": ("runs", "demo", "Run the embedded demo site and judge its promise."),
    "agent": ("runs", "agent", "Run the agent of one host or one miner LAN."),
    "submit": ("submit", "submit", "Submit a service, a batch job or a mining job."),
    "jobs": ("jobs", "jobs", "List jobs."),
    "job": ("jobs", "job", "Show, pause, resume or cancel one job, or read its log."),
    "node": ("node", "node", "List compute nodes, or have all work leave one."),
    "status": ("status", "status", "Show the site now."),
    "top": ("top", "top", "Watch the site in the terminal."),
    "fleet": ("fleet", "fleet", "Look at devices, limit their power, measure it."),
    "commission": (
        "commission",
        "commission",
        "Pulse machines against their meter, once, at first.",
    ),
    "busy": ("busy", "busy", "Start a server with mining out of its way."),
    "load": ("load", "load", "Load-test a service: open loop, any HTTP, or an LLM."),
    "economics": ("economics", "economics", "Say what hashing earns and what it costs."),
    "plan": ("plan", "plan", "Show what the next hours hold."),
    "explain": ("explain", "explain", "Say why a device, a job or the site is as it is."),
    "cap": ("cap", "cap", "Set, clear or show caps."),
    "event": ("event", "event", "Inject a grid event."),
    "token": ("token", "token", "Make, list or revoke tokens."),
    "purge": ("purge", "purge", "End what wattshift left in a Ray cluster."),
    "doctor": ("doctor", "doctor", "Check this machine and say how to mend it."),
    "config": ("config", "config", "Check, show or describe site and agent files."),
    "report": ("report", "report", "Settle events and state what each tenant used."),
    "verify": ("verify", "verify", "Check an evidence log: every byte, hash and signature."),
    "simulate": ("simulate", "simulate", "Run a site file against a modelled world."),
    "pool": ("pool", "pool", "Serve a pool that pays nobody, or a proxy for ASICs."),
    "emulate": ("emulate", "emulate", "Emulate miners, for a dry run before real ones."),
    "version": ("version", "version", "Show the version."),
}


class Wattshift(click.Group):
    """A group that loads a subcommand when it is called and turns our errors into exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one subcommand."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        loaded = importlib.import_module(f"wattshift_cluster.cli.{module}")
        command: click.Command = getattr(loaded, attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the subcommand; a slip is answered with the nearest names."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], COMMANDS)
            hint = f" Did you mean {' or '.join(near)}?" if near else ""
            ctx.fail(f"No such command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of subcommands from the table, without importing any of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, row[2]) for name, row in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand; an operating error ends with its exit code and one message."""
        try:
            return super().invoke(ctx)
        except WattshiftError as error:
            click.echo(f"wattshift: {error}", err=True)
            ctx.exit(error.exit_code)
        except click.Abort:  # a question that was not answered by yes, or by nobody at all
            click.echo("wattshift: not confirmed, nothing was done; --yes does not ask", err=True)
            ctx.exit(INTERRUPTED)
        except KeyboardInterrupt:
            click.echo("wattshift: interrupted", err=True)
            ctx.exit(INTERRUPTED)


@click.group(
    cls=Wattshift,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
def main() -> None:
    """Hold a site's power where the grid wants it, with inference first and mining as the reserve.

    \b
      wattshift demo                              see it work, on any machine
      wattshift up site.toml                      run a site on this machine
      wattshift status                            what the site does now
      wattshift cap set 800kW --for 30m           shed to 800 kW for half an hour
      wattshift explain asic-7                    why is that machine asleep?

    Commands talk to the controller that `wattshift up` started here, or to --url / WATTSHIFT_URL
    with --token / WATTSHIFT_TOKEN.
    """
