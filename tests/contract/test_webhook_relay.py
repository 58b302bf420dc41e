"""The relay against real endpoints over loopback, on both databases."""

from __future__ import annotations

import asyncio
import json
import signal
import ssl
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import trustme

from server.domain.webhook import HOLDING_ATTEMPTS
from server.errors import unavailable
from server.ports.unit_of_work import Database, UnitOfWork
from server.ports.webhook_sender import PostResult
from server.webhooks.envelopes import core_event, rtcstack_event
from server.webhooks.recorder import OutboxRecorder
from server.webhooks.relay import RelayOptions
from server.webhooks.schedule import DEFAULT_DELAYS, RetrySchedule
from server.webhooks.verification import WebhookVerifier, verify_body
from tests.conftest import Eventually
from tests.contract.webhook_stage import EXACT, OTHER_PROJECT, PROJECT, SECRET, Stage
from tests.servers.s3 import free_port
from tests.sinks import Answer, Received, Sink


@pytest.fixture
async def stage(database: Database, eventually: Eventually) -> AsyncIterator[Stage]:
    async with Stage(database, eventually) as stage:
        yield stage


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    async with Sink() as sink:
        yield sink


def number_of(request: Received) -> int:
    return int(json.loads(request.body)["data"]["number"])


class TestOnTheWire:
    async def test_a_signed_post_with_the_recorded_bytes(self, stage: Stage, sink: Sink) -> None:
        """WB-01, WB-03, WB-16, WB-38, WB-39, WB-40, WB-41, WB-42, WB-43, WB-44, WB-51: exactly what was recorded."""
        await stage.endpoint(sink.url)
        stage.start_relay()
        event = stage.event()
        await stage.emit(event)
        (request,) = await sink.wait_for(1)
        assert (request.method, request.path, request.query) == ("POST", "/hook", "")
        assert request.body == event.body
        assert request.headers["Content-Type"] == "application/json"
        assert request.headers["User-Agent"] == "BaxCloud-VideoConverter/1.0"
        assert request.headers["X-BaxCloud-Event"] == json.loads(request.body)["event"]
        assert verify_body(request.body, request.headers["X-BaxCloud-Signature"], [SECRET])
        verified = WebhookVerifier((SECRET,), stage.clock).verify(request.headers, request.body)
        assert verified.event_id == event.id == json.loads(request.body)["eventId"]

    async def test_without_a_secret_it_is_unsigned(self, stage: Stage, sink: Sink) -> None:
        """WB-41."""
        await stage.endpoint(sink.url, secret=None)
        stage.start_relay()
        await stage.emit(stage.event())
        (request,) = await sink.wait_for(1)
        assert not any("signature" in name.lower() for name in request.headers)

    async def test_core_and_rtcstack_families(self, stage: Stage, sink: Sink) -> None:
        """B-12, B-14, B-67, WH-49, WH-50: their User-Agent and, for RTCstack, its headers."""
        await stage.endpoint(sink.url, "recording.*", "egress_ended")
        stage.start_relay()
        now = stage.clock.now()
        await stage.emit(
            core_event("recording.completed", project_id=PROJECT, subject="EG_1", data={}, now=now),
            rtcstack_event(
                "egress_ended", project_id=PROJECT, subject="EG_1", fields={"egressId": "EG_1"}, now=now
            ),
        )
        core, rtcstack = await sink.wait_for(2)
        assert core.headers["User-Agent"] == rtcstack.headers["User-Agent"] == "BaxCloud-Webhooks/1.0"
        assert "X-RTCstack-Delivery" not in core.headers
        assert json.loads(rtcstack.body) == {"event": "egress_ended", "egressId": "EG_1"}
        assert rtcstack.headers["X-RTCstack-Delivery"]
        assert verify_body(rtcstack.body, rtcstack.headers["X-RTCstack-Signature"], [SECRET])

    async def test_any_2xx_is_delivered(self, stage: Stage, sink: Sink) -> None:
        """WB-46."""
        statuses = [200, 201, 204, 299]
        sink.script.extend(Answer(status=status, body=b"") for status in statuses)
        endpoint = await stage.endpoint(sink.url)
        stage.start_relay()
        await stage.emit(*(stage.event() for _ in statuses))
        attempts = await stage.logged(4, endpoint)
        assert sorted(attempt.status_code or 0 for attempt in attempts) == statuses
        assert all(attempt.delivered and attempt.error is None for attempt in attempts)
        assert await stage.next_due() is None

    async def test_a_redirect_is_a_failure_and_is_not_followed(self, stage: Stage, sink: Sink) -> None:
        """B-16, 2.8 case 27."""
        async with Sink() as canary:
            sink.default = Answer(status=301, headers={"Location": canary.url})
            endpoint = await stage.endpoint(sink.url)
            stage.start_relay()
            await stage.emit(stage.event())
            (attempt,) = await stage.logged(1, endpoint)
            assert (attempt.delivered, attempt.status_code) == (False, 301)
            assert canary.received == []

    async def test_a_closed_port_is_a_failure_without_a_status(self, stage: Stage) -> None:
        """WB-47, 2.8 case 27; the address is not in the log's words."""
        port = free_port()
        endpoint = await stage.endpoint(f"http://127.0.0.1:{port}/hook?token=hush")
        stage.start_relay()
        await stage.emit(stage.event())
        (attempt,) = await stage.logged(1, endpoint)
        assert (attempt.delivered, attempt.status_code) == (False, None)
        assert attempt.error
        assert "hush" not in attempt.error
        assert attempt.latency_ms >= 0
        assert await stage.next_due() == stage.clock.now() + timedelta(seconds=5)

    async def test_an_endpoint_that_does_not_answer_is_a_failure(self, stage: Stage, sink: Sink) -> None:
        """WB-04, WB-45 with a shorter limit."""
        sink.script.append(Answer(hang=True))
        endpoint = await stage.endpoint(sink.url)
        stage.start_relay(sender=stage.sender(timeout_sec=0.3))
        await stage.emit(stage.event())
        (attempt,) = await stage.logged(1, endpoint)
        assert (attempt.delivered, attempt.status_code) == (False, None)
        assert "timeout" in (attempt.error or "")
        assert attempt.latency_ms >= 250

    async def test_a_dripping_answer_is_cut_off(self, stage: Stage, sink: Sink) -> None:
        """2.8 case 27: a body that takes ten minutes holds nothing longer than the time limit."""
        sink.script.append(Answer(body=b"x" * 6_000, drip_sec=0.1))
        endpoint = await stage.endpoint(sink.url)
        stage.start_relay(sender=stage.sender(timeout_sec=0.5))
        await stage.emit(stage.event())
        await stage.logged(1, endpoint)
        await stage.eventually(lambda: sink.in_flight == 0)
        assert sink.bytes_sent < 100

    async def test_a_huge_answer_is_not_read(self, stage: Stage, sink: Sink) -> None:
        """2.8 case 27: 1 GB of answer, of which little more than the socket buffers leave the endpoint."""
        sink.script.append(Answer(body_size=1 << 30))
        endpoint = await stage.endpoint(sink.url)
        stage.start_relay()
        await stage.emit(stage.event())
        (attempt,) = await stage.logged(1, endpoint)
        assert attempt.delivered
        assert sink.bytes_sent < 64 * 1024 * 1024

    async def test_tls_is_verified(self, stage: Stage) -> None:
        """2.8 case 27: a certificate that nobody trusts is a failure; the same one, trusted, is not."""
        authority = trustme.CA()
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(server)
        trusting = ssl.create_default_context()
        authority.configure_trust(trusting)
        async with Sink(tls=server) as sink:
            endpoint = await stage.endpoint(sink.url)
            distrustful = stage.start_relay()
            await stage.emit(stage.event())
            (attempt,) = await stage.logged(1, endpoint)
            assert (attempt.delivered, attempt.status_code) == (False, None)
            assert sink.received == []
            await stage.stop(distrustful)
            stage.start_relay(sender=stage.sender(tls=trusting))
            stage.pass_time(timedelta(seconds=5))
            assert (await stage.logged(2, endpoint))[1].delivered


class TestWhoGetsWhat:
    async def test_each_endpoint_gets_what_it_subscribed_to(self, stage: Stage, sink: Sink) -> None:
        """WB-02, WB-52: several endpoints, each with its own events."""
        async with Sink() as other:
            await stage.endpoint(sink.url, "video.conversion.completed", "moderation.*")
            await stage.endpoint(other.url, "*")
            stage.start_relay()
            names = ["video.conversion.started", "video.conversion.completed", "moderation.failed"]
            await stage.emit(*(stage.event(name) for name in names))
            assert [r.headers["X-BaxCloud-Event"] for r in await other.wait_for(3)] == names
            assert [r.headers["X-BaxCloud-Event"] for r in await sink.wait_for(2)] == names[1:]
            await stage.logged(5)
        assert await stage.next_due() is None

    async def test_projects_hear_only_of_themselves(self, stage: Stage, sink: Sink) -> None:
        """WH-51, WB-18."""
        async with Sink() as other:
            await stage.endpoint(sink.url)
            foreign = await stage.endpoint(other.url, project_id=OTHER_PROJECT)
            stage.start_relay()
            await stage.emit(stage.event(), stage.event(project_id=OTHER_PROJECT))
            await sink.wait_for(1)
            await other.wait_for(1)
            await stage.logged(1)
            await stage.logged(1, foreign)
            assert {json.loads(r.body)["projectId"] for r in sink.received} == {PROJECT}
            assert {json.loads(r.body)["projectId"] for r in other.received} == {OTHER_PROJECT}

    async def test_a_disabled_endpoint_gets_nothing(self, stage: Stage, sink: Sink) -> None:
        await stage.endpoint(sink.url, enabled=False)
        await stage.emit(stage.event())
        assert await stage.next_due() is None

    async def test_what_is_rolled_back_is_not_delivered(self, stage: Stage, sink: Sink) -> None:
        """Issue section 6: the event lives and dies with its state change."""
        await stage.endpoint(sink.url)
        stage.start_relay()
        async with stage.database.begin() as tx:
            await OutboxRecorder(stage.wake).record(tx, stage.event(number=1))
        await stage.emit(stage.event(number=2))
        assert [number_of(request) for request in await sink.wait_for(1)] == [2]

    @pytest.mark.parametrize("removed", [True, False], ids=["deleted", "disabled"])
    async def test_an_endpoint_that_went_away_gets_nothing_more(
        self, stage: Stage, sink: Sink, removed: bool
    ) -> None:
        endpoint = await stage.endpoint(sink.url)
        await stage.emit(stage.event())
        async with stage.database.begin() as tx:
            if removed:
                await tx.webhooks.delete(PROJECT, endpoint.id)
            else:
                await tx.webhooks.save(replace(endpoint, enabled=False))
            await tx.commit()
        stage.start_relay()
        async with Sink() as other:
            await stage.endpoint(other.url)
            await stage.emit(stage.event(number=2))
            await other.wait_for(1)

        async def settled() -> bool:
            return await stage.next_due() is None

        await stage.eventually(settled)
        assert sink.received == []


class TestRetries:
    async def test_five_failures_then_success(self, stage: Stage, sink: Sink) -> None:
        """WB-47, WB-49, B-16, 2.8 case 27: the schedule, the same bytes and id, a fresh dated signature each time."""
        sink.script.extend([Answer(status=500)] * 5)
        endpoint = await stage.endpoint(sink.url)
        stage.start_relay()
        await stage.emit(stage.event())
        for failed, pause in enumerate(DEFAULT_DELAYS[:5], start=1):
            await stage.logged(failed, endpoint)
            assert await stage.next_due() == stage.clock.now() + pause
            stage.pass_time(pause)
        attempts = await stage.logged(6, endpoint)
        assert [attempt.status_code for attempt in attempts] == [500] * 5 + [200]
        assert [attempt.delivered for attempt in attempts] == [False] * 5 + [True]
        assert [attempt.attempt for attempt in attempts] == [1, 2, 3, 4, 5, 6]
        assert len({attempt.event_id for attempt in attempts}) == 1
        assert len({request.body for request in sink.received}) == 1
        assert len({request.headers["X-BaxCloud-Signature"] for request in sink.received}) == 1
        assert len({request.headers["webhook-id"] for request in sink.received}) == 1
        assert len({request.headers["webhook-signature"] for request in sink.received}) == 6
        assert await stage.next_due() is None

    async def test_nothing_is_posted_before_its_time(self, stage: Stage, sink: Sink) -> None:
        """Another event, posted after the clock came to just before the retry, shows that the relay looked."""
        sink.script.append(Answer(status=503))
        endpoint = await stage.endpoint(sink.url)
        stage.start_relay()
        await stage.emit(stage.event(number=1))
        await stage.logged(1, endpoint)
        stage.pass_time(timedelta(seconds=4.9))
        await stage.emit(stage.event(number=2, subject="cm_other"))
        await stage.logged(2, endpoint)
        assert [number_of(request) for request in sink.received] == [1, 2]

    async def test_dead_after_the_schedule_and_delivered_again_by_replay(
        self, stage: Stage, sink: Sink
    ) -> None:
        """Design section 12: eleven attempts over about 75 hours, then dead until it is replayed, same id."""
        sink.script.extend([Answer(status=500)] * 11)
        endpoint = await stage.endpoint(sink.url)
        stage.start_relay()
        event = stage.event()
        await stage.emit(event)
        for failed, pause in enumerate(DEFAULT_DELAYS, start=1):
            await stage.logged(failed, endpoint)
            stage.pass_time(pause)
        await stage.logged(11, endpoint)
        assert await stage.next_due() is None

        async with stage.database.begin() as tx:
            replayed = await tx.outbox.replay(
                PROJECT, endpoint.id, event_id=event.id, since=None, now=stage.clock.now()
            )
            await tx.commit()
        assert replayed == 1
        stage.wake()
        attempts = await stage.logged(12, endpoint)
        assert attempts[-1].delivered
        assert {request.body for request in sink.received} == {event.body}

    async def test_schedule_is_configurable(self, stage: Stage, sink: Sink) -> None:
        """B-16."""
        sink.default = Answer(status=500)
        endpoint = await stage.endpoint(sink.url)
        stage.start_relay(options=RelayOptions(schedule=RetrySchedule((timedelta(seconds=1),), jitter=0)))
        await stage.emit(stage.event())
        await stage.logged(1, endpoint)
        stage.pass_time(timedelta(seconds=1))
        await stage.logged(2, endpoint)
        assert await stage.next_due() is None

    async def test_a_sender_that_breaks_costs_one_attempt(self, stage: Stage, sink: Sink) -> None:
        """A fault of ours is logged as a failed attempt and tried again; later events go on."""

        class BreaksOnce:
            broken = False

            def check_url(self, url: str, *, field: str) -> None: ...

            async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> PostResult:
                if not self.broken:
                    self.broken = True
                    raise RuntimeError("hush")
                return await working.post(url, body, headers)

        working = stage.sender()
        endpoint = await stage.endpoint(sink.url)
        stage.start_relay(sender=BreaksOnce())
        await stage.emit(stage.event())
        (attempt,) = await stage.logged(1, endpoint)
        assert (attempt.status_code, attempt.error) == (None, "internal error")
        stage.pass_time(timedelta(seconds=5))
        assert (await stage.logged(2, endpoint))[1].delivered


class TestOrderAndIsolation:
    async def test_events_of_one_subject_arrive_in_order_one_at_a_time(
        self, stage: Stage, sink: Sink
    ) -> None:
        """Design section 13: the order in which they happened, on a healthy endpoint."""
        await stage.endpoint(sink.url)
        stage.start_relay()
        for number in range(12):
            await stage.emit(stage.event(number=number))
        assert [number_of(request) for request in await sink.wait_for(12)] == list(range(12))
        assert sink.most_in_flight == 1

    async def test_subjects_go_side_by_side_and_each_in_order(self, stage: Stage, sink: Sink) -> None:
        """≤ 4 in flight per endpoint (encoding-and-safety 2.5)."""
        await stage.endpoint(sink.url)
        stage.start_relay()
        await stage.emit(
            *(stage.event(subject=f"cm_{n}", number=number) for number in range(4) for n in range(8))
        )
        order: dict[str, list[int]] = defaultdict(list)
        for request in await sink.wait_for(32):
            order[json.loads(request.body)["data"]["jobId"]].append(number_of(request))
        assert order == {f"cm_{n}": [0, 1, 2, 3] for n in range(8)}
        assert sink.most_in_flight <= 4

    async def test_order_holds_over_a_failure(self, stage: Stage, sink: Sink) -> None:
        """The next event of a job waits for the failed one; both arrive in order once the endpoint is well again."""
        sink.script.append(Answer(status=500))
        endpoint = await stage.endpoint(sink.url)
        stage.start_relay()
        await stage.emit(stage.event(number=1), stage.event("video.conversion.completed", number=2))
        await stage.logged(1, endpoint)
        stage.pass_time(timedelta(seconds=5))
        await stage.logged(3, endpoint)
        assert [number_of(request) for request in sink.received] == [1, 1, 2]

    async def test_an_event_that_is_refused_for_good_lets_the_next_one_go(
        self, stage: Stage, sink: Sink
    ) -> None:
        """`completed` must not wait three days because the receiver has no handler for `started`."""
        sink.default = lambda request: Answer(status=400 if number_of(request) == 1 else 200)
        endpoint = await stage.endpoint(sink.url)
        stage.start_relay()
        await stage.emit(stage.event(number=1), *(stage.event(number=number) for number in (2, 3)))
        for failed, pause in enumerate(DEFAULT_DELAYS[: HOLDING_ATTEMPTS - 1], start=1):
            await stage.logged(failed, endpoint)
            stage.pass_time(pause)
        await stage.logged(HOLDING_ATTEMPTS + 2, endpoint)
        assert [number_of(request) for request in sink.received] == [1] * HOLDING_ATTEMPTS + [2, 3]
        assert await stage.next_due() == stage.clock.now() + DEFAULT_DELAYS[HOLDING_ATTEMPTS - 1]
        stage.pass_time(DEFAULT_DELAYS[HOLDING_ATTEMPTS - 1])
        assert (await stage.logged(HOLDING_ATTEMPTS + 3, endpoint))[-1].attempt == HOLDING_ATTEMPTS + 1

    async def test_after_a_long_outage_one_of_a_subject_is_in_flight(self, stage: Stage, sink: Sink) -> None:
        """Of those that no longer wait for each other, the oldest that is due goes first, alone."""
        sink.script.extend([Answer(status=503)] * (HOLDING_ATTEMPTS + 1))
        sink.default = Answer(hang=True)
        endpoint = await stage.endpoint(sink.url)
        stage.start_relay()
        await stage.emit(stage.event(number=1), stage.event(number=2))
        for failed, pause in enumerate(DEFAULT_DELAYS[: HOLDING_ATTEMPTS - 1], start=1):
            await stage.logged(failed, endpoint)
            stage.pass_time(pause)
        await stage.logged(HOLDING_ATTEMPTS + 1, endpoint)
        assert number_of(sink.received[-1]) == 2

        stage.pass_time(timedelta(days=1))
        await sink.wait_for(HOLDING_ATTEMPTS + 2)
        # That another subject's event is posted shows that the relay looked again meanwhile.
        await stage.emit(stage.event(subject="cm_other", number=3))
        await sink.wait_for(HOLDING_ATTEMPTS + 3)
        sink.release()
        await sink.wait_for(HOLDING_ATTEMPTS + 4)
        assert [number_of(request) for request in sink.received][-3:] == [1, 3, 2]

    async def test_a_failing_event_holds_up_no_other_subject(self, stage: Stage, sink: Sink) -> None:
        """Brief and 2.5: only the subject of the failing event waits."""
        sink.default = lambda request: Answer(status=500 if number_of(request) == 0 else 200)
        await stage.endpoint(sink.url)
        stage.start_relay()
        await stage.emit(
            stage.event(subject="cm_bad", number=0),
            *(stage.event(subject=f"cm_{n}", number=n) for n in range(1, 6)),
        )
        assert sorted(number_of(request) for request in await sink.wait_for(6)) == [0, 1, 2, 3, 4, 5]

    async def test_a_hanging_endpoint_delays_no_other(self, stage: Stage, sink: Sink) -> None:
        """Issue section 6: with a backlog far above the places, and ≤ 4 posts to it at a time."""
        async with Sink(default=Answer(hang=True)) as hanging:
            await stage.endpoint(hanging.url)
            healthy = await stage.endpoint(sink.url)
            stage.start_relay(options=replace(EXACT, concurrency=8))
            await stage.emit(*(stage.event(subject=f"cm_{n}", number=n) for n in range(40)))
            assert {number_of(request) for request in await sink.wait_for(40)} == set(range(40))
            await stage.logged(40, healthy)
            assert hanging.in_flight == hanging.most_in_flight == 4

    async def test_many_hanging_endpoints_delay_no_other(self, stage: Stage, sink: Sink) -> None:
        """Endpoints known as lagging share half of the places, so that a well one finds a place at once."""
        async with Sink(default=Answer(hang=True)) as hanging:
            hanging.script.extend([Answer(status=500)] * 6)
            for _ in range(6):
                await stage.endpoint(hanging.url, "video.conversion.started")
            await stage.endpoint(sink.url, "video.conversion.completed")
            stage.start_relay(options=replace(EXACT, concurrency=4))
            await stage.emit(stage.event())
            await stage.logged(6)
            await stage.emit(*(stage.event(subject=f"cm_{n}") for n in range(20)))
            await hanging.wait_for(8)
            await stage.emit(
                *(stage.event("video.conversion.completed", subject=f"ok_{n}") for n in range(10))
            )
            await sink.wait_for(10)
            assert hanging.in_flight == 2


class TestSeveralRelays:
    async def test_two_relays_share_the_work_and_repeat_nothing(self, stage: Stage, sink: Sink) -> None:
        """Leases: each delivery is posted by one relay, in order per subject, ≤ 4 at a time over both."""
        await stage.endpoint(sink.url)
        for _ in range(2):
            stage.start_relay()
        await stage.emit(
            *(stage.event(subject=f"cm_{n}", number=number) for number in range(3) for n in range(10))
        )
        attempts = await stage.logged(30)
        assert len({attempt.event_id for attempt in attempts}) == len(attempts) == 30
        order: dict[str, list[int]] = defaultdict(list)
        for request in sink.received:
            order[json.loads(request.body)["data"]["jobId"]].append(number_of(request))
        assert order == {f"cm_{n}": [0, 1, 2] for n in range(10)}
        assert sink.most_in_flight <= 4

    async def test_a_relay_that_stops_finishes_what_is_under_way(self, stage: Stage, sink: Sink) -> None:
        """Drain: the post ends and is written down; what is left stays for another relay, and nothing is repeated."""
        sink.default = Answer(hang=True)
        endpoint = await stage.endpoint(sink.url)
        relay = stage.start_relay()
        await stage.emit(stage.event(number=1), stage.event(number=2))
        await sink.wait_for(1)
        stopping = asyncio.create_task(stage.stop(relay))
        await asyncio.sleep(0)
        sink.release()
        await stopping
        assert [attempt.delivered for attempt in await stage.attempts(endpoint)] == [True]
        stage.start_relay()
        await stage.logged(2, endpoint)
        assert [number_of(request) for request in sink.received] == [1, 2]

    async def test_what_outlasts_the_grace_is_taken_over_after_its_lease(
        self, stage: Stage, sink: Sink
    ) -> None:
        sink.script.append(Answer(hang=True))
        endpoint = await stage.endpoint(sink.url)
        relay = stage.start_relay()
        event = stage.event()
        await stage.emit(event)
        await sink.wait_for(1)
        await stage.stop(relay, grace_sec=0.05)
        assert await stage.attempts(endpoint) == []

        stage.start_relay()
        assert await stage.next_due() == stage.clock.now() + EXACT.lease
        stage.pass_time(EXACT.lease)
        (attempt,) = await stage.logged(1, endpoint)
        assert attempt.delivered
        assert [request.body for request in sink.received] == [event.body, event.body]

    async def test_kill_9_of_a_relay_loses_nothing(
        self, stage: Stage, sink: Sink, database_url: str, secret_keys: str
    ) -> None:
        """Issue section 6, WB-49: killed while the endpoint thinks; another relay posts the same id and bytes again."""
        sink.script.append(Answer(hang=True))
        endpoint = await stage.endpoint(sink.url)
        event = stage.event()
        await stage.emit(event)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.contract.relay_process", database_url, secret_keys
        )
        try:
            await sink.wait_for(1)
        finally:
            process.send_signal(signal.SIGKILL)
            await process.wait()
        assert await stage.attempts(endpoint) == []

        stage.clock.moment = datetime.now(UTC) + EXACT.lease
        stage.start_relay()
        (attempt,) = await stage.logged(1, endpoint)
        assert attempt.delivered
        assert [request.body for request in sink.received] == [event.body, event.body]
        assert sink.received[0].headers["webhook-id"] == sink.received[1].headers["webhook-id"] == event.id


class TestFaultsOfTheDatabase:
    async def test_a_database_that_is_away_for_a_moment(self, stage: Stage, sink: Sink) -> None:
        """What was posted is written down once it is back, and not posted twice."""
        outage = Outage(stage.database)
        endpoint = await stage.endpoint(sink.url)
        sink.script.append(Answer(hang=True))
        stage.start_relay(database=outage)
        await stage.emit(stage.event(number=1))
        await sink.wait_for(1)
        outage.away = True
        sink.release()
        async with asyncio.timeout(20):
            await outage.refused.wait()
        outage.away = False
        await stage.logged(1, endpoint)
        await stage.emit(stage.event(number=2))
        await stage.logged(2, endpoint)
        assert [number_of(request) for request in sink.received] == [1, 2]


class Outage:
    """A database whose transactions can be refused."""

    def __init__(self, inner: Database) -> None:
        self._inner = inner
        self.away = False
        self.refused = asyncio.Event()

    def begin(self) -> AbstractAsyncContextManager[UnitOfWork]:
        self._check()
        return self._inner.begin()

    def read(self) -> AbstractAsyncContextManager[UnitOfWork]:
        self._check()
        return self._inner.read()

    def _check(self) -> None:
        if self.away:
            self.refused.set()
            raise unavailable("the database is restarting")


async def test_old_events_are_purged_and_pending_ones_kept(stage: Stage, sink: Sink) -> None:
    """Design section 12: replayable for 30 days; WB-56: the log keeps at least 7."""
    sink.default = lambda request: Answer(status=200 if number_of(request) else 500)
    endpoint = await stage.endpoint(sink.url)
    stage.start_relay(options=RelayOptions(schedule=RetrySchedule((timedelta(days=40),), jitter=0)))
    await stage.emit(stage.event(number=1), stage.event(subject="cm_pending", number=0))
    await stage.logged(2, endpoint)

    stage.pass_time(timedelta(days=29))
    await stage.emit(stage.event(number=2))
    assert len(await stage.logged(3, endpoint)) == 3

    stage.pass_time(timedelta(days=2))

    async def gone() -> bool:
        return len(await stage.attempts(endpoint)) == 1

    await stage.eventually(gone)
    stage.pass_time(timedelta(days=9))
    await stage.logged(2, endpoint)
    assert [number_of(request) for request in sink.received][-1] == 0
