"""WebhookService: endpoints and their secrets, rotation, test pings, the delivery log and replay, on both databases."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable
from datetime import timedelta

import pytest
from google.protobuf import timestamp_pb2

from generated.baxcloud.v1 import webhook_pb2 as pb
from generated.baxcloud.v1.webhook_service import WebhookService as WebhookServiceProtocol
from server.context import CallContext, Caller, CallerKind
from server.errors import Code, ServiceError
from server.ids import ProjectId
from server.ports.unit_of_work import Database
from server.services.webhooks import WebhookService
from server.webhooks.signing import standard_signature
from server.webhooks.verification import WebhookVerifier, verify_body
from tests.conftest import Eventually
from tests.contract.webhook_stage import OTHER_PROJECT, PROJECT, Stage
from tests.sinks import Answer, Sink

URL = "https://hooks.example.com/bax"


def calling(project_id: ProjectId = PROJECT) -> CallContext:
    caller = Caller(CallerKind.API_KEY, project_id, key_id="key_1")
    return CallContext(method="", transport="test", request_id="r", caller=caller, headers={})


CTX = calling()


@pytest.fixture
async def stage(database: Database, eventually: Eventually) -> AsyncIterator[Stage]:
    async with Stage(database, eventually) as stage:
        yield stage


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    async with Sink() as sink:
        yield sink


@pytest.fixture
def service(stage: Stage) -> WebhookServiceProtocol:
    sender = stage.sender()
    return WebhookService(stage.database, sender, stage.clock, check_url=sender.check_url, wake=stage.wake)


async def refusal(call: Awaitable[object]) -> ServiceError:
    with pytest.raises(ServiceError) as refused:
        await call
    return refused.value


class TestSecrets:
    async def test_left_out_one_is_made_and_shown_once(self, service: WebhookServiceProtocol) -> None:
        """GN-24, design section 13, WB-52; contract C.5 row 46."""
        created = await service.create_webhook(pb.CreateWebhookRequest(url=URL, events=["video.*"]), CTX)
        assert created.secret.startswith("whsec_")
        assert created.has_secret
        assert (created.url, list(created.events), created.enabled) == (URL, ["video.*"], True)
        assert created.id.startswith("wh_")
        shown = await service.get_webhook(pb.GetWebhookRequest(webhook_id=created.id), CTX)
        assert (shown.secret, shown.has_secret) == ("***", True)
        listed = await service.list_webhooks(pb.ListWebhooksRequest(), CTX)
        assert [item.secret for item in listed.items] == ["***"]
        assert listed.total == 1

    async def test_empty_is_unsigned(self, service: WebhookServiceProtocol, sink: Sink) -> None:
        """WB-41."""
        created = await service.create_webhook(pb.CreateWebhookRequest(url=sink.url, secret=""), CTX)
        assert (created.HasField("secret"), created.has_secret) == (False, False)
        await service.test_webhook(pb.TestWebhookRequest(webhook_id=created.id), CTX)
        assert "X-BaxCloud-Signature" not in sink.received[0].headers

    async def test_given_is_used_and_stars_leave_it_as_it_is(
        self, service: WebhookServiceProtocol, sink: Sink
    ) -> None:
        created = await service.create_webhook(pb.CreateWebhookRequest(url=sink.url, secret="mine"), CTX)
        assert created.secret == "mine"
        same = await service.update_webhook(
            pb.UpdateWebhookRequest(webhook_id=created.id, secret="***", enabled=False), CTX
        )
        assert (same.secret, same.enabled) == ("***", False)
        await service.test_webhook(pb.TestWebhookRequest(webhook_id=created.id), CTX)
        assert verify_body(sink.received[0].body, sink.received[0].headers["X-BaxCloud-Signature"], ["mine"])

    async def test_update_replaces_or_removes_it(self, service: WebhookServiceProtocol, sink: Sink) -> None:
        created = await service.create_webhook(pb.CreateWebhookRequest(url=sink.url, secret="old"), CTX)
        changed = await service.update_webhook(
            pb.UpdateWebhookRequest(webhook_id=created.id, secret="new"), CTX
        )
        assert changed.secret == "new"
        await service.test_webhook(pb.TestWebhookRequest(webhook_id=created.id), CTX)
        (request,) = sink.received
        assert verify_body(request.body, request.headers["X-BaxCloud-Signature"], ["new"])
        assert len(request.headers["webhook-signature"].split(" ")) == 1
        unsigned = await service.update_webhook(
            pb.UpdateWebhookRequest(webhook_id=created.id, secret=""), CTX
        )
        assert (unsigned.HasField("secret"), unsigned.has_secret) == (False, False)

    @pytest.mark.parametrize("secret", ["***", " padded", "new\nline", "nul\0"])
    async def test_odd_ones_are_refused_by_name(self, service: WebhookServiceProtocol, secret: str) -> None:
        error = await refusal(service.create_webhook(pb.CreateWebhookRequest(url=URL, secret=secret), CTX))
        assert (error.code, error.field) == (Code.INVALID_ARGUMENT, "secret")
        assert secret.strip() == "***" or secret.strip() not in error.message


class TestRotation:
    async def test_old_and_new_sign_until_the_overlap_is_over(
        self, service: WebhookServiceProtocol, stage: Stage, sink: Sink
    ) -> None:
        """Issue section 6, 2.8 case 28: two valid secrets, a receiver with either passes; later only the new one."""
        created = await service.create_webhook(pb.CreateWebhookRequest(url=sink.url, secret="old"), CTX)
        rotated = await service.rotate_webhook_secret(
            pb.RotateWebhookSecretRequest(webhook_id=created.id, overlap_seconds=60), CTX
        )
        assert rotated.secret.startswith("whsec_")
        ends = stage.clock.now() + timedelta(seconds=60)
        assert rotated.previous_secret_expires_at.ToDatetime(tzinfo=ends.tzinfo) == ends

        await service.test_webhook(pb.TestWebhookRequest(webhook_id=created.id), CTX)
        request = sink.received[-1]
        for secret in ("old", rotated.secret):
            verified = WebhookVerifier((secret,), stage.clock).verify(request.headers, request.body)
            assert verified.event_id == request.headers["webhook-id"]
        assert verify_body(request.body, request.headers["X-BaxCloud-Signature"], [rotated.secret])

        stage.clock.advance(timedelta(seconds=60))
        await service.test_webhook(pb.TestWebhookRequest(webhook_id=created.id), CTX)
        request = sink.received[-1]
        assert request.headers["webhook-signature"] == standard_signature(
            rotated.secret,
            request.headers["webhook-id"],
            int(request.headers["webhook-timestamp"]),
            request.body,
        )
        shown = await service.get_webhook(pb.GetWebhookRequest(webhook_id=created.id), CTX)
        assert not shown.HasField("previous_secret_expires_at")

    async def test_default_overlap_is_a_day_and_zero_is_none(
        self, service: WebhookServiceProtocol, stage: Stage
    ) -> None:
        created = await service.create_webhook(pb.CreateWebhookRequest(url=URL), CTX)
        request = pb.RotateWebhookSecretRequest(webhook_id=created.id)
        rotated = await service.rotate_webhook_secret(request, CTX)
        tomorrow = stage.clock.now() + timedelta(days=1)
        assert rotated.previous_secret_expires_at.ToDatetime(tzinfo=tomorrow.tzinfo) == tomorrow
        request.overlap_seconds = 0
        at_once = await service.rotate_webhook_secret(request, CTX)
        assert not at_once.HasField("previous_secret_expires_at")
        assert len({created.secret, rotated.secret, at_once.secret}) == 3

    async def test_secrets_do_not_pile_up(self, service: WebhookServiceProtocol, sink: Sink) -> None:
        created = await service.create_webhook(pb.CreateWebhookRequest(url=sink.url), CTX)
        for _ in range(8):
            await service.rotate_webhook_secret(pb.RotateWebhookSecretRequest(webhook_id=created.id), CTX)
        await service.test_webhook(pb.TestWebhookRequest(webhook_id=created.id), CTX)
        assert len(sink.received[0].headers["webhook-signature"].split(" ")) == 5

    async def test_an_unsigned_endpoint_gets_its_first_secret(self, service: WebhookServiceProtocol) -> None:
        created = await service.create_webhook(pb.CreateWebhookRequest(url=URL, secret=""), CTX)
        rotated = await service.rotate_webhook_secret(
            pb.RotateWebhookSecretRequest(webhook_id=created.id), CTX
        )
        assert rotated.has_secret
        assert not rotated.HasField("previous_secret_expires_at")


class TestEndpoints:
    async def test_no_events_means_all(self, service: WebhookServiceProtocol) -> None:
        created = await service.create_webhook(pb.CreateWebhookRequest(url=URL), CTX)
        assert list(created.events) == ["*"]

    async def test_update_changes_only_what_is_given(
        self, service: WebhookServiceProtocol, stage: Stage
    ) -> None:
        created = await service.create_webhook(pb.CreateWebhookRequest(url=URL, events=["video.*"]), CTX)
        stage.clock.advance(timedelta(minutes=1))
        updated = await service.update_webhook(
            pb.UpdateWebhookRequest(webhook_id=created.id, events=["moderation.*", "room.started"]), CTX
        )
        assert list(updated.events) == ["moderation.*", "room.started"]
        assert (updated.url, updated.enabled, updated.created_at) == (URL, True, created.created_at)
        assert updated.updated_at != created.updated_at
        moved = await service.update_webhook(
            pb.UpdateWebhookRequest(webhook_id=created.id, url=URL + "/2", enabled=False), CTX
        )
        assert (moved.url, moved.enabled, list(moved.events)) == (
            URL + "/2",
            False,
            ["moderation.*", "room.started"],
        )
        assert await service.get_webhook(pb.GetWebhookRequest(webhook_id=created.id), CTX) == moved

    async def test_bad_fields_are_named(self, service: WebhookServiceProtocol) -> None:
        """Issue section 8."""
        create, update = service.create_webhook, service.update_webhook
        created = await create(pb.CreateWebhookRequest(url=URL), CTX)
        for call, field in [
            (create(pb.CreateWebhookRequest(url="ftp://x.example/"), CTX), "url"),
            (create(pb.CreateWebhookRequest(url="not a url"), CTX), "url"),
            (create(pb.CreateWebhookRequest(url="https://user:hush@x.example/"), CTX), "url"),
            (create(pb.CreateWebhookRequest(url=URL, events=["nope"]), CTX), "events"),
            (update(pb.UpdateWebhookRequest(webhook_id=created.id, url="gopher://x"), CTX), "url"),
            (update(pb.UpdateWebhookRequest(webhook_id=created.id, events=["nope"]), CTX), "events"),
            (update(pb.UpdateWebhookRequest(webhook_id=created.id, secret=" "), CTX), "secret"),
        ]:
            error = await refusal(call)
            assert (error.code, error.field) == (Code.INVALID_ARGUMENT, field)
            assert "hush" not in error.message
        listed = await service.list_webhooks(pb.ListWebhooksRequest(), CTX)
        assert list(listed.items) == [replace_secret(created)]

    async def test_deleted_is_gone(self, service: WebhookServiceProtocol) -> None:
        created = await service.create_webhook(pb.CreateWebhookRequest(url=URL), CTX)
        await service.delete_webhook(pb.DeleteWebhookRequest(webhook_id=created.id), CTX)
        error = await refusal(service.delete_webhook(pb.DeleteWebhookRequest(webhook_id=created.id), CTX))
        assert error.code is Code.NOT_FOUND

    async def test_foreign_endpoints_are_as_good_as_unknown(
        self, service: WebhookServiceProtocol, stage: Stage
    ) -> None:
        """2.8 case 23: the same answer for a foreign id as for one that never was."""
        endpoint = await stage.endpoint(URL)
        other = calling(OTHER_PROJECT)
        foreign = await refusal(service.get_webhook(pb.GetWebhookRequest(webhook_id=endpoint.id), other))
        unknown = await refusal(service.get_webhook(pb.GetWebhookRequest(webhook_id="wh_none"), other))
        assert foreign.code is unknown.code is Code.NOT_FOUND
        assert foreign.message == unknown.message.replace("wh_none", endpoint.id)
        for call in [
            service.update_webhook(pb.UpdateWebhookRequest(webhook_id=endpoint.id, enabled=False), other),
            service.delete_webhook(pb.DeleteWebhookRequest(webhook_id=endpoint.id), other),
            service.test_webhook(pb.TestWebhookRequest(webhook_id=endpoint.id), other),
            service.rotate_webhook_secret(pb.RotateWebhookSecretRequest(webhook_id=endpoint.id), other),
            service.replay_webhook(pb.ReplayWebhookRequest(webhook_id=endpoint.id, event_id="cm"), other),
            service.list_deliveries(pb.ListDeliveriesRequest(webhook_id=endpoint.id), other),
        ]:
            assert (await refusal(call)).code is Code.NOT_FOUND
        assert (await service.list_webhooks(pb.ListWebhooksRequest(), other)).total == 0
        assert (await service.list_webhooks(pb.ListWebhooksRequest(), CTX)).total == 1

    async def test_their_number_is_limited(self, service: WebhookServiceProtocol, stage: Stage) -> None:
        for _ in range(100):
            await stage.endpoint(URL)
        error = await refusal(service.create_webhook(pb.CreateWebhookRequest(url=URL), CTX))
        assert error.code is Code.FAILED_PRECONDITION


def replace_secret(webhook: pb.Webhook) -> pb.Webhook:
    hidden = pb.Webhook()
    hidden.CopyFrom(webhook)
    hidden.secret = "***"
    return hidden


class TestPing:
    async def test_it_is_sent_at_once_signed_and_told(
        self, service: WebhookServiceProtocol, sink: Sink
    ) -> None:
        """Contract C.5 row 47; also for an endpoint that subscribed to other events or is disabled."""
        created = await service.create_webhook(
            pb.CreateWebhookRequest(url=sink.url, events=["video.*"], secret="s", enabled=False), CTX
        )
        sink.script.append(Answer(status=202))
        told = await service.test_webhook(pb.TestWebhookRequest(webhook_id=created.id), CTX)
        assert (told.delivered, told.status_code, told.HasField("error")) == (True, 202, False)
        (request,) = sink.received
        body = json.loads(request.body)
        assert body["event"] == request.headers["X-BaxCloud-Event"] == "webhook.test"
        assert body["data"] == {"webhookId": created.id}
        assert body["projectId"] == PROJECT
        assert verify_body(request.body, request.headers["X-BaxCloud-Signature"], ["s"])

    async def test_failures_are_told_not_raised(
        self, service: WebhookServiceProtocol, stage: Stage, sink: Sink
    ) -> None:
        refusing = await stage.endpoint(sink.url)
        sink.script.append(Answer(status=500))
        told = await service.test_webhook(pb.TestWebhookRequest(webhook_id=refusing.id), CTX)
        assert (told.delivered, told.status_code) == (False, 500)
        gone = await stage.endpoint("http://127.0.0.1:1/hook")
        told = await service.test_webhook(pb.TestWebhookRequest(webhook_id=gone.id), CTX)
        assert (told.delivered, told.HasField("status_code")) == (False, False)
        assert told.error


class TestDeliveryLog:
    async def test_attempts_newest_first_in_pages(
        self, service: WebhookServiceProtocol, stage: Stage, sink: Sink
    ) -> None:
        """GN-24, WB-47; contract C.5 row 48."""
        sink.script.append(Answer(status=500))
        endpoint = await stage.endpoint(sink.url)
        other = await stage.endpoint(sink.url, "moderation.*")
        stage.start_relay()
        event = stage.event()
        await stage.emit(event)
        await stage.logged(1, endpoint)
        stage.pass_time(timedelta(seconds=5))
        await stage.logged(2, endpoint)
        page = await service.list_deliveries(pb.ListDeliveriesRequest(), CTX)
        assert (page.total, page.page, page.limit) == (2, 1, 20)
        newest, oldest = page.items
        assert [(item.attempt, item.status_code, item.delivered) for item in (newest, oldest)] == [
            (2, 200, True),
            (1, 500, False),
        ]
        assert newest.event_id == oldest.event_id == event.id
        assert (newest.event, newest.webhook_id) == ("video.conversion.started", endpoint.id)
        assert newest.HasField("created_at")

        second = await service.list_deliveries(pb.ListDeliveriesRequest(page=2, limit=1), CTX)
        assert (list(second.items), second.total, second.page, second.limit) == ([oldest], 2, 2, 1)
        sized = await service.list_deliveries(pb.ListDeliveriesRequest(page_size=500), CTX)
        assert sized.limit == 100
        of_other = await service.list_deliveries(pb.ListDeliveriesRequest(webhook_id=other.id), CTX)
        assert of_other.total == 0


class TestReplay:
    async def test_one_event_with_its_id_and_bytes(
        self, service: WebhookServiceProtocol, stage: Stage, sink: Sink
    ) -> None:
        """Design section 13: also one that was delivered."""
        endpoint = await stage.endpoint(sink.url)
        stage.start_relay()
        events = [stage.event(subject=f"cm_{n}", number=n) for n in range(3)]
        await stage.emit(*events)
        await stage.logged(3)
        answer = await service.replay_webhook(
            pb.ReplayWebhookRequest(webhook_id=endpoint.id, event_id=events[1].id), CTX
        )
        assert answer.replayed == 1
        await stage.logged(4)
        assert sink.received[-1].body == events[1].body
        assert len(sink.received) == 4

    async def test_all_since_a_time(self, service: WebhookServiceProtocol, stage: Stage, sink: Sink) -> None:
        endpoint = await stage.endpoint(sink.url)
        stage.start_relay()
        await stage.emit(stage.event(number=1))
        await stage.logged(1)
        stage.clock.advance(timedelta(hours=1))
        since = timestamp_pb2.Timestamp()
        since.FromDatetime(stage.clock.now())
        await stage.emit(stage.event(number=2), stage.event(number=3))
        await stage.logged(3)
        stage.clock.advance(timedelta(days=29))
        answer = await service.replay_webhook(
            pb.ReplayWebhookRequest(webhook_id=endpoint.id, since=since), CTX
        )
        assert answer.replayed == 2
        await stage.logged(5)
        assert [json.loads(request.body)["data"]["number"] for request in sink.received] == [1, 2, 3, 2, 3]

    async def test_what_cannot_be_replayed_is_refused(
        self, service: WebhookServiceProtocol, stage: Stage
    ) -> None:
        endpoint = await stage.endpoint(URL)
        now = stage.clock.now()

        def at(moment: timedelta) -> timestamp_pb2.Timestamp:
            stamp = timestamp_pb2.Timestamp()
            stamp.FromDatetime(now + moment)
            return stamp

        for request, code, field in [
            (pb.ReplayWebhookRequest(), Code.INVALID_ARGUMENT, "eventId"),
            (pb.ReplayWebhookRequest(event_id="cm", since=at(-timedelta(1))), Code.INVALID_ARGUMENT, "since"),
            (pb.ReplayWebhookRequest(since=at(-timedelta(days=31))), Code.INVALID_ARGUMENT, "since"),
            (pb.ReplayWebhookRequest(since=at(timedelta(hours=1))), Code.INVALID_ARGUMENT, "since"),
            (pb.ReplayWebhookRequest(event_id="cm_unknown"), Code.NOT_FOUND, None),
        ]:
            request.webhook_id = endpoint.id
            error = await refusal(service.replay_webhook(request, CTX))
            assert (error.code, error.field) == (code, field)
