"""The part of KubeRay's RayCluster (ray.io/v1) that our chart may use, as a strict schema.

Field names are those of KubeRay 1.7.0. A pod template is checked apart, as a Kubernetes Pod.
"""

from typing import Any

TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
# KubeRay refuses `labels` among them since 1.5.0 (validateRayGroupLabels).
START_PARAMS = {**TEXTS, "not": {"required": ["labels"]}}
COUNT = {"type": "integer", "minimum": 0}


def _closed(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        "required": list(required),
    }


TEMPLATE = _closed({"metadata": {"type": "object"}, "spec": {"type": "object"}}, "spec")
HEAD = _closed(
    {
        "serviceType": {"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
        "enableIngress": {"type": "boolean"},
        "rayStartParams": START_PARAMS,
        "labels": TEXTS,
        "resources": TEXTS,
        "template": TEMPLATE,
    },
    "rayStartParams",
    "template",
)
WORKERS = _closed(
    {
        "groupName": {"type": "string", "minLength": 1},
        "suspend": {"type": "boolean"},
        "replicas": COUNT,
        "minReplicas": COUNT,
        "maxReplicas": COUNT,
        "numOfHosts": COUNT,
        "idleTimeoutSeconds": COUNT,
        "rayStartParams": START_PARAMS,
        "labels": TEXTS,
        "resources": TEXTS,
        "template": TEMPLATE,
    },
    "groupName",
    "minReplicas",
    "maxReplicas",
    "rayStartParams",
    "template",
)
SCHEMA = _closed(
    {
        "apiVersion": {"const": "ray.io/v1"},
        "kind": {"const": "RayCluster"},
        "metadata": {"type": "object", "required": ["name"]},
        "spec": _closed(
            {
                "rayVersion": {"type": "string"},
                "suspend": {"type": "boolean"},
                "enableInTreeAutoscaling": {"type": "boolean"},
                "headGroupSpec": HEAD,
                "workerGroupSpecs": {"type": "array", "items": WORKERS},
            },
            "headGroupSpec",
        ),
    },
    "apiVersion",
    "kind",
    "metadata",
    "spec",
)
