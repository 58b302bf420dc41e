"""LiveKit's webhooks of single egresses, through the outbox, on both databases (LK-137, LK-138, LK-139)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from livekit import api
from livekit.protocol import egress as pb

from server.domain.egress import Egress, EgressSecrets, EgressStatus, EgressWebhook, Orders
from server.domain.webhook import WebhookEndpoint
from server.ids import derived_id
from server.ports.unit_of_work import Database
from server.webhooks.livekit_events import LiveKitEgressEvents, wants
from tests.conftest import Eventually
from tests.contract.webhook_stage import PROJECT, Stage
from tests.sinks import Answer, Received, Sink
from tests.unit.egress.egresses import accepted_of, egress_of

KEY, KEY_SECRET = "APIofTheProject", "secret-of-the-project-0123456789abcdef"
COMPOSITE = "RoomCompositeEgressRequest"


@pytest.fixture
async def stage(database: Database, eventually: Eventually) -> AsyncIterator[Stage]:
    async with Stage(database, eventually) as stage:
        # LiveKit's tokens are verified by the time of day.
        stage.clock.moment = datetime.now(UTC)
        yield stage


def request(*webhooks: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"roomName": "r", "fileOutputs": [{}], "webhooks": list(webhooks)}


async def added(stage: Stage, body: Mapping[str, Any], egress_id: str = "EG_1") -> Egress:
    """A stored egress whose webhooks are signed with the project's key."""
    egress = egress_of(COMPOSITE, body, project_id=PROJECT, id=egress_id)
    signed = tuple(
        replace(one, signing_key=KEY, secret=KEY_SECRET)
        for one in accepted_of(COMPOSITE, body).secrets.webhooks
    )
    async with stage.database.begin() as tx:
        await tx.egresses.add(egress, Orders(), EgressSecrets(webhooks=signed))
        await tx.commit()
    return egress


async def life_of(stage: Stage, egress: Egress) -> None:
    """STARTING, ACTIVE, ENDING, COMPLETE, each in a transaction of its own, as the worker and the API write them."""
    watcher = LiveKitEgressEvents(stage.wake, stage.clock)
    async with stage.database.begin() as tx:
        await watcher.started(tx, egress)
        await tx.commit()
    for status in (EgressStatus.ACTIVE, EgressStatus.ENDING, EgressStatus.COMPLETE):
        after = replace(egress, status=status, updated_at=egress.updated_at + 1)
        async with stage.database.begin() as tx:
            await tx.egresses.save(after)
            await watcher.changed(tx, egress, after, None)
            await watcher.changed(tx, after, replace(after, updated_at=after.updated_at + 1), None)
            await tx.commit()
        egress = after


def names(received: list[Received]) -> list[str]:
    return [json.loads(one.body)["event"] for one in received]


async def endpoint_of(stage: Stage, egress_id: str, index: int = 0) -> WebhookEndpoint | None:
    async with stage.database.read() as tx:
        return await tx.webhooks.get(PROJECT, derived_id("wh", egress_id, str(index)))


async def test_livekits_own_receiver_takes_them(stage: Stage) -> None:
    """LK-137, LK-139, 8: the official receiver verifies the token and the digest of the very bytes."""
    async with Sink() as sink:
        await life_of(stage, await added(stage, request({"url": sink.url, "signingKey": KEY})))
        stage.start_relay()
        received = await sink.wait_for(4)
    receiver = api.WebhookReceiver(api.TokenVerifier(KEY, KEY_SECRET))
    events = [receiver.receive(one.body.decode(), one.headers["Authorization"]) for one in received]
    assert [one.event for one in events] == [
        "egress_started", "egress_updated", "egress_updated", "egress_ended",
    ]  # fmt: skip
    assert [one.egress_info.status for one in events] == [
        pb.EGRESS_STARTING, pb.EGRESS_ACTIVE, pb.EGRESS_ENDING, pb.EGRESS_COMPLETE,
    ]  # fmt: skip
    assert (events[0].room.name, events[0].room.sid) == ("r", "RM_1")
    assert events[0].created_at == int(stage.clock.now().timestamp())
    assert len({one.id for one in events}) == 4
    assert all(one.id.startswith("EV_") for one in events)
    headers = received[0].headers
    assert headers["Content-Type"] == "application/webhook+json"
    assert headers["User-Agent"] == "LiveKit"
    assert not headers["Authorization"].startswith("Bearer")
    with pytest.raises(Exception, match=r"(?i)signature"):
        api.WebhookReceiver(api.TokenVerifier(KEY, "x" * 40)).receive(
            received[0].body.decode(), headers["Authorization"]
        )


async def test_only_the_egress_that_asked(stage: Stage) -> None:
    """LK-137: the project's own endpoint gets none of them, the request's gets those of its egress only."""
    async with Sink() as project_sink, Sink() as sink:
        await stage.endpoint(project_sink.url)
        await life_of(stage, await added(stage, request({"url": sink.url}), "EG_1"))
        await life_of(stage, await added(stage, request(), "EG_2"))
        stage.start_relay()
        received = await sink.wait_for(4)
        await stage.logged(4)
        assert project_sink.received == []
    assert {json.loads(one.body)["egressInfo"]["egressId"] for one in received} == {"EG_1"}


async def test_filters(stage: Stage) -> None:
    """8: `filter_params`, which LiveKit's server passes over; what is included counts first."""
    assert wants(EgressWebhook("u", include=("egress_ended",), exclude=("egress_ended",)), "egress_ended")
    included = {"filterParams": {"includeEvents": ["egress_ended"]}}
    excluded = {"filterParams": {"excludeEvents": ["egress_updated"]}}
    async with Sink() as first, Sink() as second:
        body = request({"url": first.url, **included}, {"url": second.url, **excluded})
        await life_of(stage, await added(stage, body))
        stage.start_relay()
        await stage.logged(3)
        assert names(first.received) == ["egress_ended"]
        assert names(second.received) == ["egress_started", "egress_ended"]


async def test_they_are_retried_in_order(stage: Stage) -> None:
    async with Sink() as sink:
        sink.script.append(Answer(status=500))
        await life_of(stage, await added(stage, request({"url": sink.url})))
        stage.start_relay()
        await stage.logged(1)
        stage.pass_time(timedelta(seconds=10))
        received = await sink.wait_for(5)
    assert names(received) == [
        "egress_started", "egress_started", "egress_updated", "egress_updated", "egress_ended",
    ]  # fmt: skip
    assert received[0].body == received[1].body
    assert received[0].headers["Authorization"] != received[1].headers["Authorization"]


async def test_no_list_shows_their_endpoints_and_they_go_in_the_end(stage: Stage) -> None:
    """The endpoint of an egress is kept while the egress runs or something is to be delivered, and no longer."""
    async with Sink() as sink:
        egress = await added(stage, request({"url": sink.url}))
        await life_of(stage, egress)
        async with stage.database.read() as tx:
            assert await tx.webhooks.list(PROJECT) == ()
        stored = await endpoint_of(stage, "EG_1")
        assert stored is not None
        assert (stored.egress_id, stored.signing_key) == ("EG_1", KEY)
        assert KEY_SECRET not in repr(stored)
        later = stage.clock.now() + timedelta(days=1)

        async def purged() -> WebhookEndpoint | None:
            async with stage.database.begin() as tx:
                await tx.outbox.purge(before=later)
                await tx.commit()
            return await endpoint_of(stage, "EG_1")

        assert await purged() is not None
        stage.start_relay()
        await stage.logged(4)
        running = replace(egress, status=EgressStatus.ACTIVE)
        async with stage.database.begin() as tx:
            await tx.egresses.save(running)
            await tx.commit()
        assert await purged() is not None
        async with stage.database.begin() as tx:
            await tx.egresses.save(replace(running, status=EgressStatus.FAILED))
            await tx.commit()
        assert await purged() is None
