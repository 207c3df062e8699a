"""`wattshift simulate`: a site file against a modelled world, and what a run came to."""

import csv
from pathlib import Path
from typing import Any

import click

from wattshift_cluster.cli.options import Number
from wattshift_cluster.cli.output import emit, output_option, pairs, talk

FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.argument("site_file", metavar="SITE.toml", type=FILE)
@click.option("--prices", metavar="F", help="CSV: time, usd_per_mwh.")
@click.option("--column", metavar="NAME", help="Column of the price file.")
@click.option("--hashprice", metavar="F", help="CSV of hashprice, or of the network's figures.")
@click.option("--hashprice-column", metavar="NAME", help="Column of that file.")
@click.option("--demand", metavar="F", help="CSV of inference demand.")
@click.option("--signal", metavar="F", help="CSV: starts,ends,limit,kind.")
@click.option("--fleet", type=FILE, help="JSON list of {count, model, agent}.")
@click.option("--days", type=Number(0, 3660, min_open=True), default=1.0)
@click.option("--seed", type=int, default=1, show_default=True, help="Of all that is random.")
@click.option("--faults-per-day", type=Number(0, 1e5), default=24.0, show_default=True)
@click.option("--rows", type=FILE, help="Also write the time series to this CSV file.")
@output_option
def simulate(site_file: Path, rows: Path | None, output: str, **named: Any) -> None:
    """Run a site file against modelled devices on a simulated clock, with faults from a seed.

    \b
      wattshift simulate site.toml --days 7 --seed 3
      wattshift simulate site.toml --prices prices.csv --signal events.csv -o json
      wattshift simulate site.toml --hashprice hashprice.csv --days 30

    Exit 1 if the site was above its cap at a time that nothing excuses. All figures are modelled.
    """
    from wattshift_cluster.simulate.run import ROWS, run_simulation

    result = run_simulation(site_file, **named)
    if rows is not None:
        with rows.open("w", newline="") as file:
            csv.writer(file).writerows([ROWS, *result.rows])
        talk(f"{len(result.rows)} rows written to {rows}")
    emit(result.to_json(), output, result_text)
    if result.breaches:
        click.get_current_context().exit(1)


def result_text(view: dict[str, Any]) -> str:
    """Return a run for people."""

    def by_name(key: str, form: str) -> str:
        return ", ".join(f"{name} {form.format(n)}" for name, n in view[key].items()) or "none"

    sources = ", ".join(f"{name} from {source}" for name, source in view["sources"].items())
    return pairs(
        [
            ("simulated", f"{view['simulated_hours']:g} h, {view['devices']} devices, modelled"),
            ("energy", by_name("energy_mwh", "{:.3f} MWh")),
            ("revenue", by_name("revenue_usd", "{:,.2f} USD")),
            ("cost", f"{view['cost_usd']:,.2f} USD"),
            ("wear", f"{view['wear_usd']:,.2f} USD of {view['cycles']} sleeps and wakes"),
            ("net", f"{view['net_usd']:,.2f} USD"),
            ("above cap", f"{view['overcap_seconds']:g} s, {len(view['breaches'])} unexcused"),
            ("sheds", str(len(view["sheds"]))),
            ("faults", by_name("faults", "{}")),
            ("seed", f"{view['seed']}; {view['decisions']} decisions in {view['steps']} steps"),
            ("sources", sources),
            ("took", f"{view['wall_seconds']:.1f} s"),
        ]
    )
