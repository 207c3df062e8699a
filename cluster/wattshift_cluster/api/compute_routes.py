"""Routes of /v1 about compute nodes: what they hold, having work leave one, forgetting one."""

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from wattshift_cluster.api.auth import admin, viewer
from wattshift_cluster.api.compute_views import NodeList, NodeView
from wattshift_cluster.api.routes import Port, answer, answers
from wattshift_cluster.api.tokens import Token
from wattshift_cluster.errors import NotFound

read = APIRouter(prefix="/v1", dependencies=[Depends(viewer)])
govern = APIRouter(prefix="/v1", dependencies=[Depends(admin)])


@read.get("/nodes", response_model=NodeList)
async def get_nodes(port: Port) -> Response:
    """List the compute nodes."""
    return answer({"nodes": port.site()["compute"]})


@govern.post("/nodes/{node}:{action}", status_code=202, response_model=NodeView)
async def post_node_action(request: Request, port: Port, node: str, action: str) -> Response:
    """Have all work leave a node (`drain`), or count nothing of one that is lost (`forget`).

    Ray knows no way back from a drain but a restart of the node. Who forgets one vouches that its
    machine is off; refused (409) while it answers, and in its first minute of silence.
    """
    acts = {"drain": port.drain_node, "forget": port.forget_node}
    if action not in acts:
        raise NotFound(f"no action {action[:40]}; there are {' and '.join(acts)}")

    async def act() -> Response:
        by: Token = request.state.token
        return answer(await acts[action](node, by=by.name), 202)

    return await answers(request).once(request, act)
