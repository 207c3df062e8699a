"""Job files and job bodies: one set of models for the API, the CLI and `wattshift submit FILE`.

A job is written with the keys of its kind (jobmodels), each quantity a number in its base unit or
text with a unit; docs/jobs.md shows them all. `to_spec` turns it into what the controller keeps:
the same keys with units in their names.

    kind: batch                      kind: service                   kind: mining
    name: embed-corpus               name: embed                     name: soak
    callable: pkg.mod:function       import_path: pkg.mod:app        devices: ["*"]
    input: items.jsonl               watts_per_replica: 60W
    output: out/                     min_replicas: 1
    watts: 60W                       max_replicas: 3
    workers: 2                       slo_p95: 500ms
    deadline: 2h  (or a UTC time)    value: 2.0        (USD/h of one replica)
    tenant: research                 flexibility: 2
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeAlias

from pydantic import Field, ValidationError
from pydantic import TypeAdapter as Adapter

from wattshift_cluster.api.jobfields import absolute_s as absolute_s
from wattshift_cluster.api.jobmodels import BatchJob, MiningJob, ServiceJob
from wattshift_cluster.config.credentials import names_credential
from wattshift_cluster.config.draft import unknown_key
from wattshift_cluster.config.fields import Section
from wattshift_cluster.config.service_route import route_of
from wattshift_cluster.errors import ConfigInvalid, Fault

JOBS_PER_FILE = 256
UNSHOWN = ("env", "serve_app", "args")
"""Keys under which people keep credentials: an error names them and never shows a value."""

JobModel: TypeAlias = BatchJob | ServiceJob | MiningJob
AnyJob: TypeAlias = Annotated[JobModel, Field(discriminator="kind")]
KINDS: Mapping[str, type[JobModel]] = {
    "batch": BatchJob,
    "service": ServiceJob,
    "mining": MiningJob,
}


def parse_job(raw: object, source: str) -> JobModel:
    """Return the job that `raw` describes.

    Args:
        raw: keys and values as written.
        source: where it comes from, for the error ("job.yaml", "command line", "body").

    Raises:
        ConfigInvalid: with one fault per wrong key or value.
    """
    if not isinstance(raw, dict):
        raise ConfigInvalid(
            [Fault(source, "", None, "must be a table of keys, not a list or text")]
        )
    kind = raw.get("kind")
    model = KINDS.get(kind) if isinstance(kind, str) else None
    if model is None:
        allowed = f"allowed: {', '.join(KINDS)}"
        raise ConfigInvalid([Fault(source, "kind", short(kind), f"not a kind of job; {allowed}")])
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise ConfigInvalid(faults(error, source, model)) from None


def parse_jobs(documents: Sequence[object], source: str) -> list[JobModel]:
    """Return every job of a file. Raises ConfigInvalid with every fault of every one of them."""
    if not 1 <= len(documents) <= JOBS_PER_FILE:
        told = f"holds {len(documents)} jobs; allowed: 1 to {JOBS_PER_FILE}"
        raise ConfigInvalid([Fault(source, "", None, told)])
    found: list[JobModel] = []
    wrong: list[Fault | str] = []
    for at, raw in enumerate(documents):
        where = source if len(documents) == 1 else f"{source} (job {at + 1})"
        try:
            found.append(parse_job(raw, where))
        except ConfigInvalid as invalid:
            wrong += invalid.faults
    ids = [job.id for job in found if job.id is not None]
    told = "given to more than one job of the file"
    wrong += [Fault(source, "id", one, told) for one in _twice(ids)]
    routes = [route_of(job.to_spec()) for job in found if isinstance(job, ServiceJob)]
    told = "more than one service of the file would answer there; give them different names"
    wrong += [Fault(source, "name", route, told) for route in _twice(routes)]
    if wrong:
        raise ConfigInvalid(wrong)
    return found


def _twice(values: Sequence[str]) -> list[str]:
    return sorted({one for one in values if values.count(one) > 1})


def faults(error: ValidationError, source: str, model: type[Section]) -> list[Fault]:
    """Return one fault per error that pydantic found in a body of `model`."""
    found = []
    for entry in error.errors():
        way = entry["loc"]
        path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in way)
        message = entry["msg"].removeprefix("Value error, ")
        value = short(entry["input"])
        if entry["type"] == "extra_forbidden":
            message = _unknown(model, way)
            # A slip of the pen in `env` must not show what was meant for it.
            if isinstance(entry["input"], dict | list) or names_credential(str(way[-1])):
                value = None
        elif entry["type"] == "missing":
            message, value = "missing; a value is required", None
        elif isinstance(entry["input"], dict):
            value = None
        if way and way[0] in UNSHOWN:
            value = None
        found.append(Fault(source, path.removeprefix("."), value, message))
    return found


def _unknown(model: type[Section], way: Sequence[int | str]) -> str:
    owners = [kind for kind, one in KINDS.items() if way[0] in one.model_fields]
    if len(way) == 1 and owners and model in KINDS.values():
        return f"not a key of this kind of job: it is one of {' and '.join(owners)}"
    return unknown_key(model, way)


def short(value: object) -> str | None:
    """Return a value as an error shows it; None if there is none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."


def job_schema() -> dict[str, Any]:
    """Return the JSON Schema of a job file."""
    adapter: Adapter[Any] = Adapter(AnyJob)
    return adapter.json_schema()
