"""Routes of /v1: thin, each one asks the controller's port and renders what it says."""

import hashlib
import json
import math
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from wattshift_cluster.api.auth import admin, operator, viewer
from wattshift_cluster.api.bodies import (
    CapBody,
    EventBody,
    TokenBody,
    parse_body,
)
from wattshift_cluster.api.compute_views import JobView, LogView
from wattshift_cluster.api.encode import encode
from wattshift_cluster.api.idempotency import Answers
from wattshift_cluster.api.jobspec import parse_job
from wattshift_cluster.api.port import ControllerPort
from wattshift_cluster.api.problems import Problem
from wattshift_cluster.api.signal_views import SignalsView
from wattshift_cluster.api.site_views import CapView, SiteView
from wattshift_cluster.api.stream import EventResponse, Fanout
from wattshift_cluster.api.tokens import TokenStore, role_of
from wattshift_cluster.controller.feasible import Infeasible
from wattshift_cluster.errors import NotFound

PAGE_MAX = 1000
DECISIONS_MAX = 1000
LINES_MAX = 1000
JOB_STATES = (
    "pending|starting|running|pausing|paused|cancelling|completed|failed|cancelled"  # jobs.JobState
)
SINCE_RULE = "must be Unix seconds or an RFC 3339 time with its zone"

read = APIRouter(prefix="/v1", dependencies=[Depends(viewer)])
write = APIRouter(prefix="/v1", dependencies=[Depends(operator)])
govern = APIRouter(prefix="/v1/tokens", dependencies=[Depends(admin)])


def controller(request: Request) -> ControllerPort:
    """Return the controller behind this app."""
    port: ControllerPort = request.app.state.port
    return port


Port = Annotated[ControllerPort, Depends(controller)]


def answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return `value` as a JSON response; NaN becomes null."""
    return Response(encode(value), status, headers, media_type="application/json")


def etag(value: Any) -> str:
    """Return a strong entity tag of a view."""
    return f'"{hashlib.sha256(encode(value)).hexdigest()[:16]}"'


def body_schema(name: str) -> dict[str, Any]:
    """Return the OpenAPI part that names the schema of a JSON body which the route parses."""
    schema = {"$ref": f"#/components/schemas/{name}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


async def json_body(request: Request) -> Any:
    """Return the body as JSON. Raises Problem (400) if it is none, (415) if it claims none."""
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip()
    if kind != "application/json":
        raise Problem(415, f"send application/json, not {kind}")
    try:
        return json.loads(await request.body())
    except (ValueError, RecursionError) as error:
        raise Problem(400, f"the body is not valid JSON: {error}") from None


@read.get("/site", response_model=SiteView)
async def get_site(port: Port) -> Response:
    """Show the site now."""
    return answer(port.site())


@read.get("/jobs")
async def get_jobs(
    port: Port,
    state: Annotated[str | None, Query(pattern=f"^({JOB_STATES})$")] = None,
    limit: Annotated[int, Query(ge=1, le=PAGE_MAX)] = 200,
    cursor: Annotated[str | None, Query(max_length=128)] = None,
) -> Response:
    """List jobs, oldest first; `cursor` is the last id of the page before."""
    jobs = port.jobs(state)
    if cursor is not None:
        at = next((i for i, job in enumerate(jobs) if job["id"] == cursor), None)
        if at is None:
            raise Problem(422, f"cursor {cursor!r} names no job of this list")
        jobs = jobs[at + 1 :]
    page = jobs[:limit]
    more = page[-1]["id"] if len(jobs) > limit else None
    return answer({"jobs": page, "next_cursor": more})


@read.get("/jobs/{job_id}", response_model=JobView)
async def get_job(port: Port, job_id: str) -> Response:
    """Show one job."""
    return answer(port.job(job_id))


@read.get("/jobs/{job_id}/logs", response_model=LogView)
async def get_job_logs(
    port: Port, job_id: str, lines: Annotated[int, Query(ge=1, le=LINES_MAX)] = 200
) -> Response:
    """Show what was decided about a job, and the newest lines that its own code printed."""
    return answer(await port.job_logs(job_id, lines))


@read.get("/signals", response_model=SignalsView)
async def get_signals(port: Port) -> Response:
    """Show what each source says, with its age and faults, the price, and overrides."""
    return answer(port.signals())


@read.get("/caps")
async def get_caps(port: Port) -> Response:
    """List caps in force and to come; the ETag guards a later change."""
    caps = port.caps()
    return answer({"caps": caps}, headers={"ETag": etag(caps)})


@read.get("/decisions")
async def get_decisions(
    port: Port,
    subject: Annotated[str | None, Query(max_length=256)] = None,
    since: Annotated[str | None, Query(max_length=64)] = None,
    limit: Annotated[int, Query(ge=1, le=DECISIONS_MAX)] = 100,
) -> Response:
    """List decisions with their reasons, newest first; `since` is Unix s or RFC 3339."""
    return answer({"decisions": port.decisions(subject, unix_s(since), limit)})


def unix_s(text: str | None) -> float | None:
    """Return a query's time as Unix s. Raises Problem (422)."""
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise Problem(422, f"since {SINCE_RULE}") from None
    if moment.tzinfo is None:
        raise Problem(422, f"since {SINCE_RULE}")
    return moment.timestamp()


@read.get("/flexibility")
async def get_flexibility(port: Port) -> Response:
    """Show the watts that can be shed within each deadline, for how long, and the re-arm time."""
    return answer({"steps": port.flexibility()})


STREAM_ANSWER: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {}}}}


@read.get("/stream", response_class=Response, responses=STREAM_ANSWER)
async def get_stream(request: Request) -> Response:
    """Stream events; Last-Event-ID resumes, and id 0 sends all that is held."""
    fanout: Fanout = request.app.state.fanout
    last = request.headers.get("last-event-id")
    if last is not None and not (last.isascii() and last.isdigit() and len(last) <= 20):
        raise Problem(400, "Last-Event-ID must be a number that this stream sent")
    fanout.admit()
    return EventResponse(fanout.read(None if last is None else int(last)))


def answers(request: Request) -> Answers:
    """Return the memory of Idempotency-Keys."""
    kept: Answers = request.app.state.answers
    return kept


@write.post("/jobs", status_code=201, openapi_extra=body_schema("Job"))
async def post_job(request: Request, port: Port) -> Response:
    """Submit a job; once this answers 201 the job survives any crash.

    One that could never run here is refused (409); `errors` then holds the rule and the limit.
    """

    async def act() -> Response:
        wanted = parse_job(await json_body(request), "body")
        key = request.headers.get("idempotency-key")
        try:
            job = await port.submit_job(wanted.to_spec(), key, wanted.id)
        except Infeasible as never:
            raise problem_of(never) from None
        return answer(job, 201, {"Location": f"/v1/jobs/{job['id']}"})

    return await answers(request).once(request, act)


def problem_of(never: Infeasible) -> Problem:
    """Return a refusal with its rule and limit, for machines, beside the words."""
    one = never.verdict
    have_w = None if math.isnan(one.have_w) else one.have_w
    figures = {"bound_by": one.bound_by or None, "need_w": one.need_w, "have_w": have_w}
    row = {"path": one.rule.value, "message": one.words, "value": json.dumps(figures)}
    return Problem(409, one.words, slug="refused", errors=[row])


@write.post("/jobs/{job_id}:{action}", response_model=JobView)
async def post_job_action(request: Request, port: Port, job_id: str, action: str) -> Response:
    """Pause, resume or cancel a job."""
    if action not in ("pause", "resume", "cancel"):
        raise NotFound(f"no action {action}; there are pause, resume and cancel")

    async def act() -> Response:
        return answer(await port.job_action(job_id, action))

    return await answers(request).once(request, act)


@write.post(
    "/caps",
    status_code=201,
    response_model=CapView,
    openapi_extra=body_schema("CapBody"),
)
async def post_cap(request: Request, port: Port) -> Response:
    """Set an operator cap; with If-Match only if the caps are still the ones seen."""

    async def act() -> Response:
        cap = parse_body(CapBody, await json_body(request), "body")
        unchanged(request, port)
        starts_s, ends_s = cap.span_s()
        view = await port.set_cap(cap.limit, starts_s, ends_s, "operator", cap.strict)
        return answer(view, 201, {"Location": f"/v1/caps/{view['id']}"})

    return await answers(request).once(request, act)


@write.delete("/caps", status_code=204)
async def delete_caps(request: Request, port: Port) -> Response:
    """Lift every operator cap."""
    unchanged(request, port)
    await port.clear_cap(None)
    return Response(status_code=204)


@write.delete("/caps/{cap_id}", status_code=204)
async def delete_cap(request: Request, port: Port, cap_id: str) -> Response:
    """Lift one cap."""
    unchanged(request, port)
    await port.clear_cap(cap_id)
    return Response(status_code=204)


def unchanged(request: Request, port: ControllerPort) -> None:
    """Raise Problem (412) if If-Match names other caps than the present ones."""
    wanted = request.headers.get("if-match")
    if wanted is not None and wanted != "*" and wanted != etag(port.caps()):
        raise Problem(412, "the caps have changed since they were read; read them again")


@write.post("/signals", status_code=202, openapi_extra=body_schema("EventBody"))
async def post_signal(request: Request, port: Port) -> Response:
    """Inject a grid event as if a feed had sent it."""

    async def act() -> Response:
        event = parse_body(EventBody, await json_body(request), "body")
        return answer(await port.inject_signal(event.to_signal()), 202)

    return await answers(request).once(request, act)


@govern.get("")
async def get_tokens(request: Request) -> Response:
    """List tokens, without their secrets, which nobody keeps."""
    store: TokenStore = request.app.state.tokens
    return answer({"tokens": [token.view() for token in store.tokens()]})


@govern.post("", status_code=201, openapi_extra=body_schema("TokenBody"))
async def post_token(request: Request) -> Response:
    """Make a token; its secret is shown in this answer and never again."""
    store: TokenStore = request.app.state.tokens
    body = parse_body(TokenBody, await json_body(request), "body")
    secret, token = store.create(body.name, role_of(body.role), body.ttl)
    view = {**token.view(), "secret": secret}
    return answer(view, 201, {"Cache-Control": "no-store"})


@govern.delete("/{token_id}", status_code=204)
async def delete_token(request: Request, token_id: str) -> Response:
    """Revoke a token; it counts no more from the next request on."""
    store: TokenStore = request.app.state.tokens
    store.revoke(token_id)
    return Response(status_code=204)
