"""Where a service answers: the path of its application in Ray Serve, which two cannot share."""

from collections.abc import Mapping
from typing import Any


def route_of(spec: Mapping[str, Any]) -> str:
    """Return the path, "/NAME" unless a Serve config says another.

    Args:
        spec: a service's specification, as `api.jobspec` writes it.
    """
    app = spec.get("serve_app") or {}
    stated = app.get("route_prefix") or f"/{spec['name']}"
    return "/" + str(stated).strip("/")
