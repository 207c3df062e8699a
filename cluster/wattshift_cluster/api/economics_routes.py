"""Routes of /v1 about money: what hashing earns and costs; a word on a figure that is held."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from wattshift_cluster.api import economics_views as views
from wattshift_cluster.api.auth import operator, viewer
from wattshift_cluster.api.routes import Port, answer, answers
from wattshift_cluster.api.tokens import Token

DEVICES_MAX = 1000

read = APIRouter(prefix="/v1", dependencies=[Depends(viewer)])
write = APIRouter(prefix="/v1", dependencies=[Depends(operator)])


@read.get("/economics", response_model=views.EconomicsView)
async def get_economics(
    port: Port,
    device: Annotated[str | None, Query(max_length=128)] = None,
    limit: Annotated[int, Query(ge=0, le=DEVICES_MAX)] = 200,
) -> Response:
    """Show the hashprice, what each device earns and costs, and the income so far."""
    return answer(port.economics(device, limit))


@write.post("/economics/confirm", response_model=views.ConfirmView)
async def post_confirm(request: Request, port: Port) -> Response:
    """Take the figures of the hashprice that are held back because they jumped."""

    async def act() -> Response:
        by: Token = request.state.token
        return answer({"confirmed": await port.confirm_hashprice(by.name)})

    return await answers(request).once(request, act)
