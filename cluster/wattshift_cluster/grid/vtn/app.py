"""The VTN over HTTP: paths, tokens and problems of OpenADR 3.1.1. What they mean is the desk's."""

import json
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from wattshift_cluster.grid.vtn.clients import Caller, Clients
from wattshift_cluster.grid.vtn.desk import Desk
from wattshift_cluster.grid.vtn.kinds import KINDS, Kind
from wattshift_cluster.grid.vtn.problems import Problem, bad
from wattshift_cluster.grid.vtn.publisher import BrokerSettings
from wattshift_cluster.grid.vtn.topics import names

MAX_BODY_BYTES = 4 << 20
MAX_FORM_BYTES = 64 * 1024
MAX_FIELDS = 200

Answer = Callable[[Request], Awaitable[Response]]


def build(desk: Desk, clients: Clients, broker: BrokerSettings | None) -> FastAPI:
    """The app. Args: broker: None: there is no MQTT."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(HTTPException, _http_problem)
    _add_login(app, clients)
    _add_notifiers(app, desk, clients, broker)
    for kind in KINDS:
        _add_kind(app, kind, desk, clients)
    return app


def _add_login(app: FastAPI, clients: Clients) -> None:
    async def server(request: Request) -> Response:
        return JSONResponse({"tokenURL": str(request.base_url) + "auth/token"})

    async def token(request: Request) -> Response:
        said = _fields(await _body(request, MAX_FORM_BYTES))
        wanted = ("grant_type", "client_id", "client_secret")
        if any(key not in said for key in wanted):
            missing = f"wanted a form with {', '.join(wanted)}"
            raise Problem(HTTPStatus.BAD_REQUEST, missing, "invalid_request")
        grant, client_id, secret = (said[key] for key in wanted)
        made = clients.login(grant, client_id, secret, said.get("scope", ""))
        return JSONResponse(made, headers={"Cache-Control": "no-store"})

    _route(app, "/auth/server", {"GET": server})
    _route(app, "/auth/token", {"POST": token})


def _add_notifiers(
    app: FastAPI, desk: Desk, clients: Clients, broker: BrokerSettings | None
) -> None:
    async def notifiers(request: Request) -> Response:
        _caller(request, clients)
        said: dict[str, Any] = {"WEBHOOK": True}
        return JSONResponse(said if broker is None else said | {"MQTT": broker.binding()})

    async def topics(request: Request) -> Response:
        caller = _caller(request, clients)
        if broker is None:
            raise Problem(HTTPStatus.NOT_FOUND, "this VTN has no broker")
        told = names(request.path_params["path"], desk.store, caller)
        return JSONResponse({"topics": told})

    _route(app, "/notifiers", {"GET": notifiers})
    _route(app, "/notifiers/mqtt/topics/{path:path}", {"GET": topics})


def _add_kind(app: FastAPI, kind: Kind, desk: Desk, clients: Clients) -> None:
    async def search(request: Request) -> Response:
        caller = _caller(request, clients)
        query = parse_qs(request.url.query, keep_blank_values=True, max_num_fields=MAX_FIELDS)
        return JSONResponse(desk.search(kind, caller, query))

    async def create(request: Request) -> Response:
        caller = _caller(request, clients)
        made = await desk.create(kind, caller, await _json(request))
        return JSONResponse(made, HTTPStatus.CREATED)

    async def read(request: Request) -> Response:
        return JSONResponse(desk.read(kind, _caller(request, clients), _id(request)))

    async def update(request: Request) -> Response:
        caller = _caller(request, clients)
        made = await desk.update(kind, caller, _id(request), await _json(request))
        return JSONResponse(made)

    async def delete(request: Request) -> Response:
        return JSONResponse(desk.delete(kind, _caller(request, clients), _id(request)))

    _route(app, f"/{kind.path}", {"GET": search, "POST": create})
    _route(app, f"/{kind.path}/{{id}}", {"GET": read, "PUT": update, "DELETE": delete})


def _route(app: FastAPI, path: str, by_method: dict[str, Answer]) -> None:
    async def answer(request: Request) -> Response:
        return await by_method[request.method](request)

    app.router.add_route(path, answer, methods=list(by_method))


def _caller(request: Request, clients: Clients) -> Caller:
    return clients.caller(request.headers.get("authorization"))


def _id(request: Request) -> str:
    return str(request.path_params["id"])


async def _body(request: Request, most: int) -> bytes:
    data = b""
    async for chunk in request.stream():
        data += chunk
        if len(data) > most:
            raise bad(f"the body is larger than {most} bytes")
    return data


async def _json(request: Request) -> Any:
    try:
        return json.loads(await _body(request, MAX_BODY_BYTES), parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise bad("the body is not JSON") from None


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def _fields(data: bytes) -> dict[str, str]:
    try:
        told = parse_qs(data.decode(), max_num_fields=MAX_FIELDS)
    except ValueError:
        raise Problem(HTTPStatus.BAD_REQUEST, "not a form", "invalid_request") from None
    return {key: values[0] for key, values in told.items() if len(values) == 1}


async def _problem(request: Request, problem: Exception) -> Response:
    assert isinstance(problem, Problem), "registered for no other"
    # The schema names application/json, not application/problem+json.
    headers = {"WWW-Authenticate": "Bearer"} if problem.status == HTTPStatus.UNAUTHORIZED else None
    return JSONResponse(problem.body(), problem.status.value, headers)


async def _http_problem(request: Request, fault: Exception) -> Response:
    assert isinstance(fault, HTTPException), "registered for no other"
    said = Problem(HTTPStatus(fault.status_code), str(fault.detail))
    return JSONResponse(said.body(), fault.status_code, fault.headers)
