"""`wattshift economics`: what hashing earns and costs, live from the controller or by formula."""

from typing import Any

import click

from wattshift_cluster.cli.economics_text import economics_text, worked_text
from wattshift_cluster.cli.options import Quantity, controller_options
from wattshift_cluster.cli.output import emit, output_option, talk
from wattshift_cluster.client import ControllerClient
from wattshift_cluster.config.quantities import parse_usd, parse_usd_per_mwh

SUBSIDY_HEIGHT = 840_000
"""The first block of the present subsidy of 3.125 BTC, which lasts to block 1,049,999."""

SI = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
SCHEMES = ["pps", "fpps", "pps+", "pplns"]


def parse_count(value: object) -> float:
    """A number as miners write it, `150T` for 150e12. Raises ValueError."""
    text = str(value).strip()
    scale = SI.get(text[-1:], 1.0)
    try:
        amount = float(text[:-1] if scale != 1.0 else text) * scale
    except ValueError:
        raise ValueError("not a number; write for example 150T or 1.5e14") from None
    if not 0 <= amount < float("inf"):
        raise ValueError("not a number of zero or more")
    return amount


def parse_percent(value: object) -> float:
    """A share of 0 to below 1 from `2%` or `2`. Raises ValueError."""
    share = parse_count(str(value).strip().removesuffix("%")) / 100.0
    if share >= 1.0:
        raise ValueError("not a fee; write for example 2%")
    return share


COUNT = Quantity("NUMBER", parse_count, 0.0)
PERCENT = Quantity("PERCENT", parse_percent, 0.0)
DOLLARS = Quantity("USD", parse_usd, 0.0)
USD_PER_MWH = Quantity("USD/MWH", parse_usd_per_mwh, -1e9)


@click.command()
@click.option("--device", metavar="PATTERN", help="Only these devices.")
@click.option("--confirm", is_flag=True, help="First take the figures that are held as a jump.")
@click.option("--j-per-th", type=COUNT, multiple=True, help="By formula: efficiency, J/TH.")
@click.option("--difficulty", type=COUNT, help="By formula: of the network, as in 150T.")
@click.option("--price", type=DOLLARS, help="By formula: USD per BTC.")
@click.option("--fees", type=COUNT, default="0", show_default=True, help="BTC per block.")
@click.option("--height", type=click.IntRange(0, 10**7), help="Of the chain, for the subsidy.")
@click.option("--scheme", type=click.Choice(SCHEMES), default="fpps", show_default=True)
@click.option("--pool-fee", type=PERCENT, default="0%", show_default=True)
@click.option("--power-price", type=USD_PER_MWH, help="By formula: what energy costs.")
@controller_options
@output_option
def economics(
    device: str | None,
    confirm: bool,
    j_per_th: tuple[float, ...],
    url: str | None,
    token: str | None,
    output: str,
    **figures: Any,
) -> None:
    """Say what hashing earns, what it costs, and where it costs more than it earns.

    \b
      wattshift economics                          the site now: per device, and so far
      wattshift economics --device 'gpu*' -o json
      wattshift economics --j-per-th 17.5 --difficulty 150T --price 100000 --fees 0.03
      wattshift economics --j-per-th 21.5 --difficulty 150T --price 100000 --power-price 60 \\
                          --pool-fee 2% --scheme pps

    With figures of the network it needs no controller. A hashprice that jumped is held back until
    later samples or `--confirm` say that it is true.
    """
    if j_per_th or figures["difficulty"] is not None or figures["price"] is not None:
        emit(worked(j_per_th, **figures), output, worked_text)
        return
    with ControllerClient.find(url, token) as controller:
        if confirm:
            taken = controller.post("/v1/economics/confirm", {})
            talk(f"confirmed: {', '.join(taken['confirmed'])}")
        query = {"device": device} if device else {}
        view = controller.get("/v1/economics", **query)
    emit(view, output, economics_text)


def worked(
    j_per_th: tuple[float, ...],
    *,
    difficulty: float | None,
    price: float | None,
    fees: float,
    height: int | None,
    scheme: str,
    pool_fee: float,
    power_price: float | None,
) -> dict[str, Any]:
    """Return the worked table of one set of figures. Raises UsageError where one is missing."""
    from wattshift_scheduler import hashprice as formulas

    if not difficulty or not price:
        raise click.UsageError("by formula it needs --difficulty and --price above zero")
    if not j_per_th or not all(j_per_th):
        raise click.UsageError("by formula it needs --j-per-th above zero, once or more")
    at = SUBSIDY_HEIGHT if height is None else height
    network = formulas.Network(difficulty, formulas.subsidy_btc(at), fees, price)
    how = formulas.Scheme(scheme)
    gross = network.usd_per_ph_day(how)
    net = gross * (1.0 - pool_fee)

    def row(effort: float) -> dict[str, Any]:
        even = formulas.break_even_usd_per_mwh(net, effort)
        if power_price is None:
            return {"j_per_th": effort, "break_even_usd_per_mwh": even}
        cost = 0.024 * effort * power_price
        credit = formulas.curtailment_credit_usd_per_mwh(power_price, even)
        return {
            "j_per_th": effort,
            "break_even_usd_per_mwh": even,
            "energy_usd_per_ph_day": cost,
            "net_usd_per_ph_day": net - cost,
            "curtailment_credit_usd_per_mwh": credit,
            "verdict": "earns" if net > cost else "idles",
        }

    return {
        "difficulty": difficulty,
        "usd_per_btc": price,
        "fees_btc": fees,
        "height": at,
        "height_assumed": height is None,
        "subsidy_btc": network.subsidy_btc,
        "next_halving": formulas.next_halving(at),
        "scheme": scheme,
        "pool_fee_pct": 100.0 * pool_fee,
        "power_price_usd_per_mwh": power_price,
        "blocks_per_ph_day": network.blocks_per_ph_day,
        "hashprice_usd_per_ph_day": gross,
        "net_hashprice_usd_per_ph_day": net,
        "share_of_difficulty_1_btc": network.share_btc(1.0, how, pool_fee),
        "rows": [row(effort) for effort in j_per_th],
    }
