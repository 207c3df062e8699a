"""Routes of /v1/overrides: a named cap that does not hold for a while, by an admin's word."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from wattshift_cluster.api.auth import admin, operator, viewer
from wattshift_cluster.api.bodies import OverrideBody, parse_body
from wattshift_cluster.api.problems import Problem
from wattshift_cluster.api.routes import Port, answer, answers, body_schema, json_body
from wattshift_cluster.api.signal_views import OverrideList, OverrideView
from wattshift_cluster.api.tokens import Token

read = APIRouter(prefix="/v1", dependencies=[Depends(viewer)])
write = APIRouter(prefix="/v1", dependencies=[Depends(operator)])
govern = APIRouter(prefix="/v1", dependencies=[Depends(admin)])

Named = Annotated[str | None, Query(max_length=512)]


@read.get("/overrides", response_model=OverrideList)
async def get_overrides(port: Port) -> Response:
    """List the overrides that hold."""
    return answer({"overrides": port.overrides()})


@govern.post(
    "/overrides",
    status_code=201,
    response_model=OverrideView,
    openapi_extra=body_schema("OverrideBody"),
)
async def post_override(request: Request, port: Port) -> Response:
    """Let another limit hold in place of one cap, until a time; it is recorded who and why.

    Refused (409) for a breaker's cap and for the connection; a second one replaces the first.
    """

    async def act() -> Response:
        body = parse_body(OverrideBody, await json_body(request), "body")
        by: Token = request.state.token
        view = await port.override_cap(
            body.source, body.cap, body.limit, body.ends_s(), by=by.name, reason=body.reason
        )
        return answer(view, 201, {"Location": "/v1/overrides"})

    return await answers(request).once(request, act)


@write.delete("/overrides", status_code=204)
async def delete_overrides(
    request: Request, port: Port, source: Named = None, cap: Named = None
) -> Response:
    """End one override, or without `source` and `cap` all: the caps themselves hold again."""
    if (source is None) != (cap is None):
        raise Problem(422, "source and cap go together: give both, or none to end every override")
    by: Token = request.state.token
    await port.clear_override(source, cap, by=by.name)
    return Response(status_code=204)
