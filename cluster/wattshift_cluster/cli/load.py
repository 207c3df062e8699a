"""`wattshift load`: an open-loop load test of any HTTP service, and of LLMs.

Only the given URL is asked; redirects are not followed. What a header says is never printed.
"""

import json
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from wattshift_cluster.cli.load_text import compared, result_text
from wattshift_cluster.cli.options import DURATION, Number
from wattshift_cluster.cli.output import emit, output_option, talk
from wattshift_cluster.errors import ConfigInvalid, Fault

FILE = click.Path(dir_okay=False, path_type=Path)
SECONDS_MAX = 86_400.0
RATE_MAX_PER_S = 10_000.0
IN_FLIGHT_MAX = 4096
BODY_BYTES_MAX = 8 << 20
BODIES_MAX = 100_000
DEFAULT_PER_S = 10.0
UNREACHABLE, INTERRUPTED = 5, 130

RATE = Number(0, RATE_MAX_PER_S, min_open=True)
ARRIVALS = click.Choice(["poisson", "constant", "burst", "trace"])
BURST = Number(1, 3)
SPEED = Number(0.001, 1e6)
COUNT = click.IntRange(1, 100_000)
FLIGHT = click.IntRange(1, IN_FLIGHT_MAX)
OPTIONS = (
    click.option("--rate", type=RATE, help="Mean requests per second; 10, or the trace's own."),
    click.option("--ramp", metavar="A:B", help="A rate that goes from A to B, to find the limit."),
    click.option("--seconds", type=DURATION, default="30s", show_default=True, help="Measured."),
    click.option("--warmup", type=DURATION, default="0s", help="Sent before that, not counted."),
    click.option("--arrivals", type=ARRIVALS, help="poisson, or trace where one is given."),
    click.option("--burst-ratio", type=BURST, default=1.6, help="Rate in a burst over the mean."),
    click.option("--trace", metavar="CSV[#MODEL]", help="Azure's, Mooncake's, ServeGen's format."),
    click.option("--speed", type=SPEED, default=1.0, help="The trace goes by so much faster."),
    click.option("--seed", type=int, default=7, show_default=True, help="Of all that is random."),
    click.option("--body", metavar="TEXT|@FILE|texts", help="{n} and {text} are filled in."),
    click.option("--words", type=COUNT, default=12, show_default=True, help="Of {text}, in mean."),
    click.option("--words-max", type=COUNT, default=4096, help="A trace's texts are cut to this."),
    click.option("--method", type=click.Choice(["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"])),
    click.option("--header", "headers", multiple=True, metavar="'N: V'", help="May be repeated."),
    click.option("--bearer-env", metavar="NAME", help="Environment variable that holds a token."),
    click.option("--openai", is_flag=True, help="Ask an LLM, streamed: TTFT, ITL, tokens/s."),
    click.option("--model", metavar="NAME", help="The LLM's name."),
    click.option("--max-tokens", type=COUNT, default=128, help="Of an answer, if no trace says."),
    click.option("--slo-p95", type=DURATION, help="Exit 1 if 95 % are not answered by then."),
    click.option("--slo-ttft-p95", type=DURATION, help="The same for the first token."),
    click.option("--slo-itl-p95", type=DURATION, help="The same between tokens."),
    click.option("--deadline", type=DURATION, default="30s", show_default=True, help="Of each."),
    click.option("--in-flight-max", type=FLIGHT, default=256, help="What is due beyond, fails."),
    click.option("--cacert", type=FILE, help="Authorities of an https server's certificate."),
    click.option("--compare", type=FILE, metavar="BEFORE.json", help="What -o json printed."),
    click.option("--report", type=FILE, metavar="F.html", help="Also write a page with pictures."),
    click.option("-q", "--quiet", is_flag=True, help="No progress on stderr."),
)


def with_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options in the order of the table."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


@click.command()
@click.argument("url", metavar="URL")
@with_options
@output_option
def load(
    url: str,
    compare: Path | None,
    report: Path | None,
    quiet: bool,
    output: str,
    **named: Any,
) -> None:
    """Send requests at a service when they are due, whatever it does, and say how it did.

    \b
      wattshift load http://127.0.0.1:8000/own --body '{"text": "{text}"}' --rate 20 --slo-p95 300ms
      wattshift load http://127.0.0.1:8000/own --body @bodies.jsonl --ramp 5:80 --seconds 2m
      wattshift load http://127.0.0.1:8000/v1 --openai --model qwen --slo-ttft-p95 800ms
      wattshift load http://127.0.0.1:8000/v1 --openai --model qwen \\
          --trace azure_llm_2023_conv.csv.gz --rate 2
      wattshift load http://127.0.0.1:8000/own -o json >before.json

    Latency counts from the moment a request was due, so that queueing shows. Ctrl-C ends with the
    report and 130. Exit 1 if an objective was missed, 5 if nothing was answered.
    """
    from wattshift_cluster.inference.user_load import run

    before = None if compare is None else earlier(compare)
    asked = user_load(url, **named)
    found, interrupted = run(asked, (lambda line: None) if quiet else talk)
    if before is not None:
        found["compared"] = compared(before, found)
    emit(found, output, result_text)
    if report is not None:
        from wattshift_cluster.cli.load_page import write

        write(report, found)
        talk(f"page written to {report}")
    context = click.get_current_context()
    if interrupted:
        context.exit(INTERRUPTED)
    if found["answered"] == 0:
        causes = ", ".join(found["failed_by"]) or "nothing was due"
        talk(f"wattshift: nothing was answered: {causes}")
        context.exit(UNREACHABLE)
    if not all(objective["met"] for objective in found["objectives"]):
        context.exit(1)


def user_load(url: str, **named: Any) -> Any:
    """The load that the options describe. Raises UsageError and ConfigInvalid."""
    from wattshift_cluster.inference.asking import Model
    from wattshift_cluster.inference.load_report import Objectives
    from wattshift_cluster.inference.open_loop import Limits
    from wattshift_cluster.inference.user_load import UserLoad

    bodies = bodies_of(named["body"])
    model = None
    if named["openai"]:
        url, chat = llm_url(url)
        if not named["model"]:
            raise click.UsageError("--openai needs --model NAME")
        model = Model(named["model"], chat, named["max_tokens"], named["seed"])
    checked_url(url)
    rhythm = rhythm_of(named)
    slo = (named[key] for key in ("slo_p95", "slo_ttft_p95", "slo_itl_p95"))
    objectives = Objectives(*(None if s is None else s * 1000 for s in slo))
    if model is None and (objectives.ttft_p95_ms is not None or objectives.itl_p95_ms is not None):
        raise click.UsageError("--slo-ttft-p95 and --slo-itl-p95 need --openai")
    if not named["deadline"] > 0:
        raise click.UsageError("--deadline must be above 0")
    total_s = rhythm.warmup_s + rhythm.seconds
    method = named["method"] or ("POST" if bodies or model else "GET")
    return UserLoad(
        url=url,
        method=method,
        bodies=bodies,
        rhythm=rhythm,
        limits=Limits(total_s, named["in_flight_max"], min(named["deadline"], SECONDS_MAX)),
        headers=headers_of(named["headers"], named["bearer_env"], bodies, model is not None),
        objectives=objectives,
        model=model,
        certificates=named["cacert"],
    )


def rhythm_of(named: dict[str, Any]) -> Any:
    """When requests are due. Raises UsageError and ConfigInvalid."""
    from wattshift_cluster.inference.load_report import OUTCOMES_MAX
    from wattshift_cluster.inference.user_load import Rhythm, located

    ramp = None if named["ramp"] is None else ramp_of(named["ramp"])
    kind = named["arrivals"] or ("trace" if named["trace"] else "poisson")
    if (kind == "trace") != bool(named["trace"]):
        raise click.UsageError("--arrivals trace and --trace CSV go together")
    if ramp is not None and (named["rate"] is not None or named["warmup"]):
        raise click.UsageError("--ramp A:B stands in place of --rate, and has no --warmup")
    trace, trace_model = located(named["trace"]) if named["trace"] else (None, None)
    rate = named["rate"]
    if rate is None and ramp is None and trace is None:
        rate = DEFAULT_PER_S
    if not 0 < named["seconds"] <= SECONDS_MAX or named["warmup"] > SECONDS_MAX:
        raise click.UsageError("--seconds: allowed: above 0, at most 24h; --warmup: at most 24h")
    mean_per_s = sum(ramp) / 2 if ramp else rate or 0.0
    if mean_per_s * (named["seconds"] + named["warmup"]) > OUTCOMES_MAX:
        raise click.UsageError(f"that would be more than {OUTCOMES_MAX} requests")
    return Rhythm(
        kind=kind,
        rate_per_s=rate,
        ramp_per_s=ramp,
        seconds=named["seconds"],
        warmup_s=named["warmup"],
        burst_ratio=named["burst_ratio"],
        trace=trace,
        trace_model=trace_model,
        speed=named["speed"],
        words=named["words"],
        words_max=named["words_max"],
        seed=named["seed"],
    )


def ramp_of(text: str) -> tuple[float, float]:
    """The two rates of `A:B`. Raises UsageError."""
    first, colon, last = text.partition(":")
    try:
        ramp = float(first), float(last)
    except ValueError:
        ramp = math.nan, math.nan
    if not colon or not all(0 <= r <= RATE_MAX_PER_S for r in ramp) or not sum(ramp) > 0:
        raise click.UsageError(f"--ramp: allowed: A:B, rates of 0 to {RATE_MAX_PER_S:g} per second")
    return ramp


def checked_url(url: str) -> None:
    """Nothing, if it is an http(s) URL. Raises UsageError."""
    from wattshift_cluster.inference.httplink import web_url

    try:
        web_url(url)
    except ValueError as fault:
        raise click.UsageError(f"URL: {fault}") from None


def llm_url(url: str) -> tuple[str, bool]:
    """The URL of completions below a server's /v1, and whether they are a chat's."""
    bare = url.rstrip("/")
    if bare.endswith("/chat/completions"):
        return bare, True
    if bare.endswith("/completions"):
        return bare, False
    return f"{bare}/chat/completions", True


def headers_of(
    texts: Sequence[str], bearer_env: str | None, bodies: Sequence[bytes], llm: bool
) -> list[tuple[str, str]]:
    """The headers of every request. Raises UsageError, which tells no value."""
    from wattshift_cluster.inference.httplink import header_of

    found = []
    for text in texts:
        try:
            found.append(header_of(text))
        except ValueError as fault:
            raise click.UsageError(f"--header: {fault}") from None
    if bearer_env is not None:
        try:
            found.append(header_of(f"Authorization: Bearer {os.environ[bearer_env]}"))
        except KeyError:
            raise click.UsageError(f"--bearer-env: {bearer_env} is not set") from None
        except ValueError:
            raise click.UsageError(f"--bearer-env: {bearer_env} holds no token") from None
    given = {name.lower() for name, _ in found}
    if "content-type" not in given and (bodies or llm):
        looks_json = llm or bodies[0].lstrip()[:1] in (b"{", b"[", b'"')
        found.append(("Content-Type", "application/json" if looks_json else "text/plain"))
    if "user-agent" not in given:
        found.append(("User-Agent", "wattshift-load"))
    return found


def bodies_of(body: str | None) -> list[bytes]:
    """Templates of `texts`, a text, `@FILE`, or `@FILE.jsonl` with one a line.

    Raises:
        ConfigInvalid: the file cannot be read, or holds too much or nothing.
    """
    from wattshift_cluster.inference.asking import TEXTS_BODY

    if body is None:
        return []
    if body == "texts":
        return [TEXTS_BODY]
    if not body.startswith("@"):
        return [body.encode()]
    path = Path(body[1:])
    try:
        with path.open("rb") as file:
            held = file.read(BODY_BYTES_MAX + 1)
    except OSError as fault:
        raise ConfigInvalid([Fault(str(path), "", None, f"cannot be read: {fault}")]) from fault
    if len(held) > BODY_BYTES_MAX:
        told = f"more than {BODY_BYTES_MAX >> 20} MiB"
        raise ConfigInvalid([Fault(str(path), "", None, told)])
    if path.suffix != ".jsonl":
        return [held]
    lines = [line.strip() for line in held.splitlines() if line.strip()]
    if not 1 <= len(lines) <= BODIES_MAX:
        told = f"{len(lines)} bodies; allowed: 1 to {BODIES_MAX}"
        raise ConfigInvalid([Fault(str(path), "", None, told)])
    return lines


def earlier(path: Path) -> dict[str, Any]:
    """A report that was written before. Raises ConfigInvalid."""
    try:
        if path.stat().st_size > BODY_BYTES_MAX:
            raise ValueError("too long")
        view = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as fault:
        raise ConfigInvalid([Fault(str(path), "", None, f"no report: {fault}")]) from fault
    if not isinstance(view, dict) or "latency_ms" not in view or "rate_due_per_s" not in view:
        raise ConfigInvalid([Fault(str(path), "", None, "no report of wattshift load -o json")])
    return view
