"""The route of /v1 about the look-ahead plan."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from starlette.responses import Response

from wattshift_cluster.api.auth import viewer
from wattshift_cluster.api.plan_views import PlanView
from wattshift_cluster.api.routes import Port, answer

HOURS_MAX = 7 * 24

read = APIRouter(prefix="/v1", dependencies=[Depends(viewer)])


@read.get("/plan", response_model=PlanView)
async def get_plan(
    port: Port, hours: Annotated[float | None, Query(ge=0, le=HOURS_MAX)] = None
) -> Response:
    """Show what the next hours hold; `hours` of them, by default all."""
    return answer(port.plan(hours))
