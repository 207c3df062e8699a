"""`wattshift pool`: the loopback pool for dry runs, and the proxy in front of a site's ASICs."""

from pathlib import Path

import click
import structlog

from wattshift_cluster.cli.options import DURATION
from wattshift_cluster.cli.output import talk

COINS = ("sha256d", "autolykos2", "etchash", "kheavyhash", "blake3")
FILE = click.Path(dir_okay=False, path_type=Path)


@click.group()
def pool() -> None:
    """Stand before a site's ASICs as their pool, or serve one that pays nobody for dry runs.

    \b
      wattshift pool proxy proxy.toml
      wattshift pool serve
    """


@pool.command()
@click.option("--listen", default="127.0.0.1:3333", show_default=True, help="Stratum; loopback.")
@click.option("--status", default="127.0.0.1:3334", show_default=True, help="HTTP; loopback.")
@click.option("--algorithm", type=click.Choice(COINS), default=COINS[0], show_default=True)
@click.option("--difficulty", type=float, default=1e-4, show_default=True, help="1 is 2^32 hashes.")
@click.option("--shares-per-minute", type=float, help="Vary the difficulty to get as many.")
@click.option("--least-difficulty", type=float, help="Lower bound of the variable difficulty.")
@click.option("--most-difficulty", type=float, help="Upper bound of the variable difficulty.")
@click.option("--job-every", type=DURATION, default="15s", show_default=True, help="New jobs.")
@click.option("--clean-every", type=DURATION, default="2m", show_default=True, help="New tips.")
@click.option("--resume", type=DURATION, default="10m", show_default=True, help="Keep sessions.")
@click.option("--extranonce2-size", type=click.IntRange(0, 8), default=4, show_default=True)
@click.option("--max-connections", type=click.IntRange(1, 65_536), default=64, show_default=True)
@click.option("--tls-cert", type=FILE, metavar="FILE", help="Speak TLS with this certificate.")
@click.option("--tls-key", type=FILE, metavar="FILE", help="Its key, if in a file of its own.")
@click.option("--like-ckpool", is_flag=True, help="Never answer a method that is not known.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the synthetic blocks.")
def serve(
    listen: str,
    status: str,
    algorithm: str,
    difficulty: float,
    shares_per_minute: float | None,
    least_difficulty: float | None,
    most_difficulty: float | None,
    job_every: float,
    clean_every: float,
    resume: float,
    extranonce2_size: int,
    max_connections: int,
    tls_cert: Path | None,
    tls_key: Path | None,
    like_ckpool: bool,
    seed: int,
) -> None:
    """Serve a Stratum pool that PAYS NOBODY, for dry runs and tests: no public pool.

    \b
      wattshift pool serve
      wattshift pool serve --listen 127.0.0.1:3333 --difficulty 0.001
      wattshift pool serve --shares-per-minute 20 --least-difficulty 0.0001
      wattshift pool serve --algorithm autolykos2 --difficulty 0.000001
      wattshift pool serve --tls-cert pool.pem --tls-key pool.key
      curl http://127.0.0.1:3334/v1/status

    Every share is checked in full, and blocks are synthetic: their coinbase pays zero to nobody. It
    speaks as the pools of that algorithm's coin do, and listens on loopback only, which no option
    changes. Only with sha256d does the difficulty vary, are sessions resumed, and is there an
    extranonce2. Runs until Ctrl-C. When it listens, one JSON line on stdout says where. Exit 1
    where a port is in use, 3 where an option is invalid, 6 where an address is not on loopback.
    """
    import sys

    from wattshift_cluster.errors import ConfigInvalid, Fault
    from wattshift_cluster.mining.pool.process import Places
    from wattshift_cluster.mining.pool.process import serve as serve_pool
    from wattshift_cluster.mining.pool.settings import PoolSettings

    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    usual = PoolSettings()
    least = usual.least_difficulty if least_difficulty is None else least_difficulty
    most = usual.most_difficulty if most_difficulty is None else most_difficulty
    try:
        settings = PoolSettings(
            difficulty=difficulty,
            seed=seed,
            job_every_s=job_every,
            clean_every_s=clean_every,
            extranonce2_size=extranonce2_size,
            max_connections=max_connections,
            shares_per_minute=shares_per_minute,
            least_difficulty=least,
            most_difficulty=most,
            resume_s=resume,
            silent_on_unknown=like_ckpool,
            algorithm=algorithm,
        )
    except ValueError as wrong:
        raise ConfigInvalid([Fault("command line", "", None, str(wrong))]) from wrong
    talk("this pool pays nobody: for dry runs on this machine alone; Ctrl-C ends it")
    serve_pool(settings, Places(listen, status, tls_cert, tls_key))


@pool.command()
@click.argument("path", metavar="[CONFIG.toml]", type=FILE, required=False)
@click.option("--upstream", metavar="URL", help="The pool: stratum+tls://host:port.")
@click.option("--user", help="Account there: the owner's, for all miners.")
@click.option("--listen", metavar="ADDR", help="For miners.  [default: 127.0.0.1:3335]")
@click.option("--status", metavar="ADDR", help="For questions.  [default: 127.0.0.1:3336]")
@click.option("--consent", type=FILE, metavar="FILE", help="The owner's word for this pool.")
@click.option("--plaintext", is_flag=True, help="Take a pool that speaks no TLS.")
@click.option("--public", is_flag=True, help="Take addresses that others may reach.")
def proxy(
    path: Path | None,
    upstream: str | None,
    user: str | None,
    listen: str | None,
    status: str | None,
    consent: Path | None,
    plaintext: bool,
    public: bool,
) -> None:
    """Be the pool of a site's ASICs: one connection to the real one, and accounts by machine.

    \b
      wattshift pool proxy proxy.toml
      wattshift pool proxy proxy.toml --listen 10.1.0.2:3333
      wattshift pool proxy --upstream stratum+tcp://127.0.0.1:3333 --user site
      curl http://127.0.0.1:3336/v1/status
      curl http://127.0.0.1:3336/metrics

    All miners work for the account of the file, whatever they call themselves; their names are
    those of their devices here. A pool that is not on this machine needs the owner's consent file.
    Runs until Ctrl-C. When it listens, one JSON line on stdout says where. Exit 1 where a port is
    in use or open files do not suffice, 3 where the file or an option is invalid, 6 where the owner
    has not agreed.
    """
    import sys

    from wattshift_cluster.agent import consent as owner
    from wattshift_cluster.config.load import trace_proxy
    from wattshift_cluster.mining.proxy.process import serve as serve_proxy

    if path is None and (upstream is None or user is None):
        raise click.UsageError("Give a CONFIG.toml, or --upstream and --user.")
    given: dict[str, object | None] = {
        "pool.url": upstream,
        "pool.user": user,
        "pool.plaintext": plaintext or None,
        "proxy.listen": listen or (None if path else "127.0.0.1:3335"),
        "proxy.status": status,
        "proxy.public": public or None,
        "proxy.consent_file": consent and str(consent.absolute()),
    }
    flags = {key: value for key, value in given.items() if value is not None}
    config = trace_proxy(path, flags=flags).config
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    file = config.proxy.consent_file
    talk("all miners of this proxy work for the account in its configuration; Ctrl-C ends it")
    serve_proxy(
        config,
        lambda url, account: owner.pool_refusal(url, account, file),
        owner.consented_pools(file),
    )
