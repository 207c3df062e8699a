"""What each kind of inference server says about its work: a table of facts, and how to read it.

Gauges are summed over their series; any of them above zero is work. A counter that changed between
two looks is work that came and went in between, or a restart. Names and meanings, as published:

    vllm      vllm-project/vllm, docs/usage/metrics.md, vllm/v1/metrics/loggers.py. The client
              library adds `_total` to counters. The swapped gauge ended with the V0 engine. With
              `--disable-log-stats` nothing is exported. Gauges are set after each engine step.
    sglang    sgl-project/sglang, docs/references/production_metrics.md and the scheduler's
              metrics collector. Needs `--enable-metrics`. The queues of disaggregated and of
              structured work have gauges of their own.
    triton    triton-inference-server/server, docs/user_guide/metrics.md. Port 8002. The pending
              gauge counts requests until a backend begins them, and counters move when they have
              ended: what runs is not shown at all. Old releases lack the pending gauge.
    tgi       huggingface/text-generation-inference, docs/source/reference/metrics.md,
              router/src/server.rs. Its gauges appear with the first request: until then unknown.
    llamacpp  ggml-org/llama.cpp, tools/server/README.md. Needs `--metrics`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from wattshift_cluster.agent.observe.prometheus import Labels, ObservationFailed, Samples

Kind = Literal["vllm", "sglang", "triton", "tgi", "llamacpp"]


@dataclass(frozen=True, slots=True)
class ServerKind:
    """One row of the table.

    Attributes:
        title: its name in sentences.
        gauges: all must be there; above zero is work.
        further: gauges that some releases have.
        counters: a change between two looks is work in between.
        counters_needed: at least one counter must be there.
        shows_running: whether the gauges count the requests that the GPU works on right now.
    """

    title: str
    gauges: tuple[str, ...]
    further: tuple[str, ...]
    counters: tuple[str, ...]
    counters_needed: bool = False
    shows_running: bool = True

    @property
    def wanted(self) -> frozenset[str]:
        """Every sample name that matters."""
        return frozenset((*self.gauges, *self.further, *self.counters))


KINDS: Mapping[Kind, ServerKind] = {
    "vllm": ServerKind(
        title="vLLM",
        gauges=("vllm:num_requests_running", "vllm:num_requests_waiting"),
        further=("vllm:num_requests_swapped",),
        counters=(
            "vllm:prompt_tokens_total",
            "vllm:generation_tokens_total",
            "vllm:request_success_total",
        ),
    ),
    "sglang": ServerKind(
        title="SGLang",
        gauges=("sglang:num_running_reqs", "sglang:num_queue_reqs"),
        further=(
            "sglang:num_grammar_queue_reqs",
            "sglang:num_running_reqs_offline_batch",
            "sglang:num_prefill_prealloc_queue_reqs",
            "sglang:num_prefill_inflight_queue_reqs",
            "sglang:num_decode_prealloc_queue_reqs",
            "sglang:num_decode_transfer_queue_reqs",
        ),
        counters=(
            "sglang:prompt_tokens_total",
            "sglang:generation_tokens_total",
            "sglang:num_requests_total",
        ),
    ),
    "triton": ServerKind(
        title="Triton",
        gauges=(),
        further=("nv_inference_pending_request_count",),
        counters=(
            "nv_inference_count",
            "nv_inference_exec_count",
            "nv_inference_request_success",
            "nv_inference_request_failure",
        ),
        counters_needed=True,
        shows_running=False,
    ),
    "tgi": ServerKind(
        title="Text Generation Inference",
        gauges=("tgi_queue_size", "tgi_batch_current_size"),
        further=(),
        counters=("tgi_request_count", "tgi_batch_inference_count"),
    ),
    "llamacpp": ServerKind(
        title="llama.cpp",
        gauges=("llamacpp:requests_processing", "llamacpp:requests_deferred"),
        further=(),
        counters=(
            "llamacpp:prompt_tokens_total",
            "llamacpp:tokens_predicted_total",
            "llamacpp:n_decode_total",
        ),
    ),
}


@dataclass(frozen=True, slots=True)
class Work:
    """What one look saw: requests running or waiting, and every counter's value."""

    requests: float
    counters: Mapping[str, Mapping[Labels, float]]


def read_work(kind: Kind, samples: Samples) -> Work:
    """Read a server's work out of its samples.

    Raises:
        ObservationFailed: what every such server has is missing, or a number makes no sense.
    """
    row = KINDS[kind]
    for name, series in samples.items():
        if not all(math.isfinite(value) and value >= 0 for value in series.values()):
            raise ObservationFailed(f"{name} is not a number of things")
    missing = [name for name in row.gauges if not samples.get(name)]
    if missing:
        raise ObservationFailed(f"{row.title}'s {missing[0]} is missing")
    counters = {name: samples[name] for name in row.counters if name in samples}
    if row.counters_needed and not counters:
        raise ObservationFailed(f"{row.title}'s {row.counters[0]} is missing")
    gauges = (samples.get(name, {}) for name in (*row.gauges, *row.further))
    return Work(sum(value for series in gauges for value in series.values()), counters)
