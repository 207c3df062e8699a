"""The FastAPI app around a controller's port.

    request ─▶ BodyLimit ─▶ token (auth) ─▶ route ─▶ port ─▶ controller
                                              │
    problem details (problems) ◀── any error ─┘

Open without a token: /healthz, /readyz and the page's static files, which hold no data. There is no
/docs page, because FastAPI's loads scripts from elsewhere.
"""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request
from starlette.responses import Response

from wattshift_cluster.api import (
    compute_routes,
    device_routes,
    economics_routes,
    metrics,
    override_routes,
    plan_routes,
    problems,
    routes,
)
from wattshift_cluster.api.auth import viewer
from wattshift_cluster.api.bodies import (
    CapBody,
    EventBody,
    FleetBody,
    LearntBody,
    LimitsBody,
    OverrideBody,
    ProfileBody,
    TokenBody,
)
from wattshift_cluster.api.bodylimit import BodyLimit
from wattshift_cluster.api.idempotency import Answers
from wattshift_cluster.api.jobspec import job_schema
from wattshift_cluster.api.port import ControllerPort
from wattshift_cluster.api.stream import Fanout
from wattshift_cluster.api.tokens import TokenStore
from wattshift_cluster.errors import NotFound, TryLater

API_VERSION = "1"
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
ASSETS = {
    "page.css": "text/css; charset=utf-8",
    "alarms.js": "text/javascript; charset=utf-8",
    "chart.js": "text/javascript; charset=utf-8",
    "grid.js": "text/javascript; charset=utf-8",
    "picture.js": "text/javascript; charset=utf-8",
    "plan.js": "text/javascript; charset=utf-8",
    "short.js": "text/javascript; charset=utf-8",
    "stream.js": "text/javascript; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def create_app(port: ControllerPort, tokens: TokenStore) -> FastAPI:
    """Return the app.

    Args:
        port: the controller.
        tokens: who may call it.
    """
    fanout = Fanout(port)

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        fanout.start()
        yield
        await fanout.close()

    app = FastAPI(
        title="wattshift controller",
        version=API_VERSION,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=life,
    )
    app.state.port = port
    app.state.tokens = tokens
    app.state.fanout = fanout
    app.state.answers = Answers()
    problems.install(app)
    app.add_middleware(BodyLimit)
    devices = (device_routes.read, device_routes.write)
    money = (economics_routes.read, economics_routes.write)
    nodes = (compute_routes.read, compute_routes.govern)
    lifted = (override_routes.read, override_routes.write, override_routes.govern)
    reads = (routes.read, plan_routes.read)
    for router in (*reads, *devices, *money, *nodes, *lifted, routes.write, routes.govern):
        app.include_router(router)
    app.include_router(plain)
    app.include_router(opened)
    return app


plain = APIRouter(dependencies=[Depends(viewer)])
opened = APIRouter(include_in_schema=False)


@plain.get("/metrics", response_class=Response)
async def get_metrics(request: Request, port: routes.Port) -> Response:
    """Show the figures for Prometheus."""
    return Response(metrics.exposition(port.metrics_snapshot()), media_type=METRICS_TYPE)


@plain.get("/openapi.json", include_in_schema=False)
async def get_openapi(request: Request) -> Response:
    """Describe this API."""
    return routes.answer(openapi(request.app))


def openapi(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document, with the bodies' schemas and the bearer scheme added."""
    document = app.openapi()
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    others = (FleetBody, LearntBody, LimitsBody, OverrideBody, ProfileBody, TokenBody)
    models = (CapBody, EventBody, *others)
    bodies = {model.__name__: model.model_json_schema() for model in models}
    for name, schema in (bodies | {"Job": job_schema()}).items():
        for inner, definition in schema.pop("$defs", {}).items():
            schemas[inner] = in_components(definition)
        schemas[name] = in_components(schema)
    components["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{"bearer": []}]
    return document


def in_components(schema: Any) -> Any:
    """Return a JSON Schema whose references point into the OpenAPI components."""
    if isinstance(schema, dict):
        return {key: in_components(value) for key, value in schema.items()}
    if isinstance(schema, list):
        return [in_components(value) for value in schema]
    if isinstance(schema, str):
        return schema.replace("#/$defs/", "#/components/schemas/")
    return schema


@opened.get("/healthz")
async def healthz() -> Response:
    """Say that the process answers."""
    return routes.answer({"status": "ok", "at_s": time.time()})


@opened.get("/readyz")
async def readyz(port: routes.Port) -> Response:
    """Say whether the controller has made its first decision."""
    if not port.site()["tick"]:
        raise TryLater("the controller has not made its first tick yet")
    return routes.answer({"status": "ready"})


@opened.get("/")
async def page() -> Response:
    """Show the live page."""
    return asset("index.html", "text/html; charset=utf-8")


@opened.get("/page/{name}")
async def page_asset(name: str) -> Response:
    """Serve one of the page's files."""
    if name not in ASSETS:
        raise NotFound(f"no page file {name}")
    return asset(name, ASSETS[name])


def asset(name: str, media_type: str) -> Response:
    """Return a file of the page, which is part of the package."""
    content = files("wattshift_cluster.api").joinpath("page", name).read_bytes()
    return Response(content, headers=PAGE_HEADERS, media_type=media_type)
