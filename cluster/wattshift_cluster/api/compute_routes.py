"""Routes of /v1 about compute nodes: what they hold, and having one's work leave it."""

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from wattshift_cluster.api import port as views
from wattshift_cluster.api.auth import admin, viewer
from wattshift_cluster.api.routes import Port, answer, answers
from wattshift_cluster.api.tokens import Token
from wattshift_cluster.errors import NotFound

read = APIRouter(prefix="/v1", dependencies=[Depends(viewer)])
govern = APIRouter(prefix="/v1", dependencies=[Depends(admin)])


@read.get("/nodes", response_model=views.NodeList)
async def get_nodes(port: Port) -> Response:
    """List the compute nodes."""
    return answer({"nodes": port.site()["compute"]})


@govern.post("/nodes/{node}:{action}", status_code=202, response_model=views.NodeView)
async def post_node_action(request: Request, port: Port, node: str, action: str) -> Response:
    """Have all work leave a node, for good: Ray knows no way back but a restart of the node."""
    if action != "drain":
        raise NotFound(f"no action {action[:40]}; there is drain")

    async def act() -> Response:
        by: Token = request.state.token
        return answer(await port.drain_node(node, by=by.name), 202)

    return await answers(request).once(request, act)
