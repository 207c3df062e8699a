"""Serve's own router at a replica that is full now and then: whoever asks gets an answer.

The router runs on a clock that jumps to whatever is due next; nothing here waits, and no Ray runs.
"""

import asyncio
import random
from typing import Any

import pytest

from wattshift_cluster.workload.cluster.ray_link import internal
from wattshift_cluster.workload.serving import routing

SEED = 11
PLACES = 8
WORK_S = 0.1
RATE_PER_S = 70.0
"""Of 80 that the replica could take at most."""

FOR_S = 6.0
PATIENCE_S = 5.0
WAY_S = 0.05
"""From router to replica and back on a busy machine, at most."""


class Jumping(asyncio.SelectorEventLoop):
    """A loop whose time is that of the next timer as soon as nothing else is to be done."""

    now_s = 0.0

    def time(self) -> float:
        return self.now_s

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:  # type: ignore[attr-defined]
            self.now_s = max(self.now_s, self._scheduled[0].when())  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]


class Replica:
    """What the router sees of a replica, and the replica behind it."""

    max_ongoing_requests = PLACES
    node_id, availability_zone = "n", None
    multiplexed_model_ids: frozenset[str] = frozenset()

    def __init__(self, number: Any, dice: random.Random) -> None:
        self.replica_id = number
        self.ongoing = self.refused = 0
        self._dice = dice

    async def way(self) -> None:
        await asyncio.sleep(self._dice.uniform(0.0, WAY_S))

    async def get_queue_len(self, *, deadline_s: float) -> int:
        await self.way()
        return self.ongoing

    async def send(self) -> tuple[int, "asyncio.Task[None] | None"]:
        await self.way()
        taken = self.ongoing < PLACES
        self.ongoing += taken
        self.refused += not taken
        told, work = self.ongoing, asyncio.create_task(self._work()) if taken else None
        await self.way()
        return told, work

    async def _work(self) -> None:
        await asyncio.sleep(WORK_S)
        self.ongoing -= 1
        await self.way()


def _routers(module: str) -> Any:
    return internal(f"ray.serve._private.request_router.{module}")


async def asked(router: Any, number: int) -> None:
    """One request, routed as Serve's proxy does it: a refused one is routed again."""
    metadata = internal("ray.serve._private.common").RequestMetadata(str(number), str(number))
    request = _routers("common").PendingRequest(args=[], kwargs={}, metadata=metadata)
    again = False
    while True:
        replica = await router._choose_replica_for_request(request, is_retry=again)
        router.on_send_request(replica.replica_id)
        ongoing, work = await replica.send()
        router.on_new_queue_len_info(replica.replica_id, ongoing)
        if work is not None:
            await work
            router.decrement_queue_len_cache(replica.replica_id)
            return
        again = True


async def burst(max_backoff_s: float | None) -> tuple[int, int, int]:
    """Requests, those without an answer in time, and how often the replica refused one."""
    names = internal("ray.serve._private.common")
    deployment = names.DeploymentID(name="d", app_name="a")
    router = _routers("pow_2_router").PowerOfTwoChoicesRequestRouter(
        deployment_id=deployment,
        handle_source=names.DeploymentHandleSource.REPLICA,
        self_node_id="n",
        self_actor_id="a",
        self_actor_handle=None,
        use_replica_queue_len_cache=True,
    )
    router.update_backoff_params(None, None, max_backoff_s)
    replica = Replica(names.ReplicaID("r", deployment), random.Random(SEED))
    router.update_replicas([replica])
    asking = []
    for number in range(round(RATE_PER_S * FOR_S)):
        asking.append(asyncio.create_task(asyncio.wait_for(asked(router, number), PATIENCE_S)))
        await asyncio.sleep(1.0 / RATE_PER_S)
    ended = await asyncio.gather(*asking, return_exceptions=True)
    others = [one for one in ended if one is not None and not isinstance(one, TimeoutError)]
    assert not others, others[0]
    return len(ended), sum(one is not None for one in ended), replica.refused


def test_no_request_is_lost_at_a_replica_that_refuses_some_and_is_not_overloaded() -> None:
    pytest.importorskip("ray")
    with asyncio.Runner(loop_factory=Jumping) as runner:
        requests, lost, refused = runner.run(burst(routing.WAIT_MAX_S))
    assert requests == RATE_PER_S * FOR_S
    assert refused > 0, "nothing was shown: the replica was never full"
    assert lost == 0


def test_every_deployment_gets_the_short_wait_but_where_its_author_chose() -> None:
    pytest.importorskip("ray")
    serve, config = internal("ray.serve"), internal("ray.serve.config").RequestRouterConfig

    class Own:
        pass

    if "max_backoff_s" not in config.model_fields:
        pytest.skip("this Ray Serve has no such setting")
    plain = serve.deployment(Own)
    found = plain.options(**routing.options(plain))._deployment_config.request_router_config
    assert found.max_backoff_s == routing.WAIT_MAX_S
    assert found.initial_backoff_s == config().initial_backoff_s
    chosen = serve.deployment(request_router_config=config(max_backoff_s=2.0))(Own)
    assert routing.options(chosen) == {}
