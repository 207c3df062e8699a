"""A language model by vLLM on Ray Serve, within a site's watts: `pip install 'wattshift[llm]'`.

    wattshift submit examples/llm-service.yaml
    wattshift load http://127.0.0.1:8000/chat/v1 --openai --model qwen --slo-ttft-p95 800ms

`app` takes the arguments of the job file. Three things in it are wattshift's:

* `busy_replica` marks the gates of a replica's host while the engine loads and from a request's
  admission to its last token. The ingress in front of it is another process, on whichever node,
  so a middleware there would mark the wrong GPUs.
* WATTSHIFT_GANG: the replica itself holds no GPU, its engine's workers do; so it marks all gates
  of its host. Name the cards instead where others share the host.
* vLLM's sleep mode, and Ray's development ingress with `/sleep` and `/wakeup`, for a job with
  `hand_over: sleep`.

The watts of a replica are not here: the bridge adds `power_w` of the job to the replica and to the
first bundle of its placement group. STRICT_PACK keeps its cards on the node that gives the watts.

Written against the source of Ray 2.60.0 and never run with vLLM: docs/inference.md says what was.
"""

from collections.abc import Mapping
from typing import Any

from wattshift_cluster.gate.hooks.serve import busy_replica

ANSWERING = ("chat", "completions", "embeddings", "score", "transcriptions")
"""Methods of Ray's LLMServer that make tokens; the ingress calls no others for requests."""


def settings(args: Mapping[str, Any]) -> dict[str, Any]:
    """What LLMConfig takes.

    Args:
        args: `model` the name that clients ask for; `source` a Hugging Face id or a folder;
            `accelerator` of Ray ("H200"); `cards` of one replica (1); `max_model_len` tokens;
            `target_ongoing_requests` of a replica before another is wanted (32), and
            `max_ongoing_requests` before they queue (128); `engine` further arguments of vLLM.
    """
    engine = {
        "tensor_parallel_size": int(args.get("cards", 1)),
        "max_model_len": int(args.get("max_model_len", 8192)),
        "enable_sleep_mode": True,
        **args.get("engine", {}),
    }
    return {
        "model_loading_config": {"model_id": args["model"], "model_source": args["source"]},
        "accelerator_type": args.get("accelerator"),
        "engine_kwargs": engine,
        "placement_group_config": {"bundle_per_worker": {"GPU": 1}, "strategy": "STRICT_PACK"},
        "deployment_config": {
            "max_ongoing_requests": int(args.get("max_ongoing_requests", 128)),
            # Ray's own default for language models, 10**9, never asks for a second replica.
            "autoscaling_config": {
                "target_ongoing_requests": int(args.get("target_ongoing_requests", 32)),
            },
        },
        "runtime_env": {"env_vars": {"WATTSHIFT_GANG": "all"}},
        # Its metrics are where the time to the first token and between tokens is read.
        "log_engine_metrics": True,
    }


def app(args: Mapping[str, Any]) -> Any:
    """The application, bound. Ray and vLLM are imported here.

    Raises:
        ImportError: `ray[llm]` is not installed.
    """
    from ray.llm._internal.serve.core.ingress.dev_ingress import build_dev_openai_app
    from ray.serve.llm import LLMConfig, LLMServer

    @busy_replica(methods=[name for name in ANSWERING if hasattr(LLMServer, name)])
    class BusyServer(LLMServer):  # type: ignore[misc]
        """Ray's server of one model, whose replicas make mining yield."""

    config = LLMConfig(**settings(args), server_cls=BusyServer)
    return build_dev_openai_app({"llm_configs": [config]})
