"""What a service, a batch job and a mining order say; `to_spec` turns each into what is kept.

A key is written as a person thinks of it (`watts: 300W`); in a specification the unit ends the
name (`watts_w`). A key that says nothing is left out there, so that a reader needs one default.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from wattshift_cluster.api.jobfields import (
    CHUNK_ITEMS_MAX,
    UNITS_MAX,
    Env,
    Folders,
    Gpus,
    JobId,
    Labels,
    LabelValue,
    PathText,
    Slo,
    Steps,
    Tree,
    Units,
    UsdPerHour,
    Watts,
    When,
    Words,
)
from wattshift_cluster.config.fields import (
    ImportPath,
    Name,
    Section,
    Switch,
    number,
    seconds,
    whole,
)

GPU_LABEL = "ray.io/accelerator-type"
MOST_CPUS = 1024


class ComputeJob(Section):
    """What every job that Ray runs may say: who asks, where it may run, what may be taken from it.

    `gpu_type` is short for the label that Ray gives a node of that accelerator. `flexibility` is
    the class 0 to 3: 0, 10, 25 or 50 % of its throughput may be taken in an event.
    """

    name: Name
    id: JobId | None = None
    tenant: Name = "default"
    priority: Annotated[int, whole(-1000, 1000)] = 0
    labels: Labels = Field(default_factory=dict)
    gpu_type: LabelValue | None = None
    gpus: Gpus = 0.0
    num_cpus: Annotated[float, number(0, MOST_CPUS)] = 0.1
    env: Env = Field(default_factory=dict)
    value: UsdPerHour = 0.0
    flexibility: Annotated[int, whole(0, 3)] = 0

    @model_validator(mode="after")
    def _one_gpu_type(self) -> "ComputeJob":
        stated = self.labels.get(GPU_LABEL)
        if self.gpu_type is not None and stated not in (None, self.gpu_type):
            raise ValueError(f"gpu_type {self.gpu_type} and the label {GPU_LABEL} {stated} differ")
        return self

    def common(self) -> dict[str, Any]:
        """Return the part of the specification that services and batch jobs share."""
        typed = {} if self.gpu_type is None else {GPU_LABEL: self.gpu_type}
        return {
            "name": self.name,
            "tenant": self.tenant,
            "priority": self.priority,
            "labels": {**self.labels, **typed},
            "gpus": self.gpus,
            "num_cpus": self.num_cpus,
            "env": dict(self.env),
            "value_usd_per_h": self.value,
            "flexibility": self.flexibility,
        }


class BatchJob(ComputeJob):
    """A callable or a command over the items of a dataset, in chunks that survive a restart.

    `watts`, `gpus` and `num_cpus` are those of one worker. `pause_within` is what a worker gets to
    finish the chunk it works on when it must leave; then it is killed and the chunk done again. A
    `deadline` that is a duration counts from when the controller first takes the job, and is kept
    as given too: the same request again is the same, whatever the clock says by then.
    """

    kind: Literal["batch"] = "batch"
    callable: ImportPath | None = None
    command: Words | None = None
    input: PathText
    format: Literal["auto", "jsonl", "csv", "parquet"] = "auto"
    output: PathText
    watts: Watts
    workers: Units = 1
    gang: Switch = False
    deadline: When = None
    chunk_items: Annotated[int, whole(1, CHUNK_ITEMS_MAX)] = 64
    min_run: Annotated[float, seconds(0, 30 * 86400.0)] = 0.0
    pause_within: Annotated[float, seconds(0.1, 3600.0)] = 10.0
    item_attempts: Annotated[int, whole(1, 20)] = 3
    python_path: Folders = Field(default_factory=list)

    @model_validator(mode="after")
    def _one_work(self) -> "BatchJob":
        if (self.callable is None) == (self.command is None):
            raise ValueError("give one of callable (package.module:name) and command (words)")
        return self

    def _due(self) -> dict[str, float | None]:
        if self.deadline is None:
            return {"deadline_at_s": None}
        given = {} if self.deadline.in_s is None else {"deadline_in_s": self.deadline.in_s}
        return {"deadline_at_s": self.deadline.at_s, **given}

    def to_spec(self) -> dict[str, Any]:
        """Return what the controller keeps."""
        work = {"callable": self.callable} if self.command is None else {"command": self.command}
        return {
            "kind": self.kind,
            **self.common(),
            **work,
            "input": self.input,
            "format": self.format,
            "output": self.output,
            "watts_w": self.watts,
            "workers": self.workers,
            "gang": self.gang,
            **self._due(),
            "chunk_items": self.chunk_items,
            "min_run_s": self.min_run,
            "pause_within_s": self.pause_within,
            "item_attempts": self.item_attempts,
            "python_path": list(self.python_path),
        }


class ServiceJob(ComputeJob):
    """A Ray Serve application that is scaled within the site's watts.

    `serve_config` (FILE or FILE#APPLICATION) is read by the command line, which sends the one
    application as `serve_app`. `watts_per_replica` is the draw of a replica without a limit;
    with `learn_watts` it is the most, and what is measured may lower it. That is put to use while
    no replica is deployed, so it does not go with `hand_over: sleep`, which keeps them.
    """

    kind: Literal["service"] = "service"
    import_path: ImportPath | None = None
    args: Tree | None = None
    serve_config: PathText | None = None
    serve_app: Tree | None = None
    watts_per_replica: Watts
    power_steps: Steps = Field(default_factory=list)
    learn_watts: Switch = False
    min_replicas: Annotated[int, whole(0, UNITS_MAX)] = 1
    max_replicas: Units = 1
    slo_p95: Slo | None = None
    slo_ttft_p95: Slo | None = None
    slo_itl_p95: Slo | None = None
    scaling: Literal["policy", "external"] = "policy"
    hand_over: Literal["none", "sleep"] = "none"
    healthy_within: Annotated[float, seconds(1.0, 6 * 3600.0)] = 120.0

    @model_validator(mode="after")
    def _one_application(self) -> "ServiceJob":
        if self.serve_config is not None:
            raise ValueError("serve_config names a file of the submitter; send it as serve_app")
        if (self.import_path is None) == (self.serve_app is None):
            raise ValueError("give one of import_path and serve_config (in a body: serve_app)")
        if self.serve_app is not None:
            if not isinstance(self.serve_app.get("import_path"), str):
                raise ValueError("serve_app has no import_path: it is no application of Ray Serve")
            if self.args is not None:
                raise ValueError("args stand in the Serve config itself when there is one")
        return self

    @model_validator(mode="after")
    def _ordered(self) -> "ServiceJob":
        if self.min_replicas > self.max_replicas:
            raise ValueError(
                f"min_replicas {self.min_replicas} is above max_replicas {self.max_replicas};"
                f" allowed: 0 to {self.max_replicas}"
            )
        steps = sorted(self.power_steps, key=lambda step: -step.watts)
        for above, step in zip([None, *steps], steps, strict=False):
            most_w = self.watts_per_replica if above is None else above.watts
            if step.watts >= most_w:
                what = "watts_per_replica" if above is None else "the step above it"
                raise ValueError(f"power_steps: {step.watts:g} W is not below {what}, {most_w:g} W")
            if above is not None and step.throughput > above.throughput:
                raise ValueError(
                    f"power_steps: {step.watts:g} W keeps more throughput than {most_w:g} W"
                )
        return self

    @model_validator(mode="after")
    def _learnable(self) -> "ServiceJob":
        if self.learn_watts and self.hand_over == "sleep":
            raise ValueError(
                "learn_watts and hand_over: sleep do not go together: what is learnt is put to use"
                " while no replica is deployed, and replicas that sleep stay; give one of them"
            )
        return self

    def to_spec(self) -> dict[str, Any]:
        """Return what the controller keeps."""
        app = (
            {"import_path": self.import_path, "args": dict(self.args or {})}
            if self.serve_app is None
            else {"serve_app": dict(self.serve_app)}
        )
        steps = sorted(self.power_steps, key=lambda step: -step.watts)
        return {
            "kind": self.kind,
            **self.common(),
            **app,
            "watts_per_replica_w": self.watts_per_replica,
            "power_steps": [{"watts_w": s.watts, "throughput": s.throughput} for s in steps],
            "learn_watts": self.learn_watts,
            "min_replicas": self.min_replicas,
            "max_replicas": self.max_replicas,
            "slo_p95_ms": _ms(self.slo_p95),
            "slo_ttft_p95_ms": _ms(self.slo_ttft_p95),
            "slo_itl_p95_ms": _ms(self.slo_itl_p95),
            "scaling": self.scaling,
            "hand_over": self.hand_over,
            "healthy_within_s": self.healthy_within,
        }


def _ms(value_s: float | None) -> float | None:
    return None if value_s is None else value_s * 1000.0


class MiningJob(Section):
    """A standing order to mine with every device whose id matches one of the patterns."""

    kind: Literal["mining"] = "mining"
    name: Name = "mining"
    id: JobId | None = None
    devices: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=128)]],
        Field(min_length=1, max_length=256),
    ]

    def to_spec(self) -> dict[str, Any]:
        """Return what the controller keeps."""
        return {"kind": self.kind, "name": self.name, "devices": list(self.devices)}
