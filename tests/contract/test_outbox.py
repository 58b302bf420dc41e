"""The outbox on SQLite and PostgreSQL: order, fairness, leases, retries, replay, purge."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from adapters.db.unit_of_work import SqlDatabase
from server.domain.webhook import Delivery, SigningSecret
from server.ids import EventId, ProjectId
from tests.conftest import OpenDatabase
from tests.contract.rows import (
    LEASE,
    NOW,
    OTHER,
    PROJECT,
    SECOND,
    add_endpoints,
    add_projects,
    claim,
    endpoint,
    finish,
    outcome,
    record,
)


@pytest.fixture
async def db(database: SqlDatabase) -> SqlDatabase:
    """Two projects and, in the first, two endpoints."""
    await add_projects(database)
    await add_endpoints(database, endpoint("wh_1"), endpoint("wh_2", secrets=()))
    return database


async def next_due(db: SqlDatabase) -> object:
    async with db.read() as tx:
        return await tx.outbox.next_due()


class TestEndpoints:
    async def test_round_trip_and_isolation(self, db: SqlDatabase) -> None:
        async with db.read() as tx:
            assert await tx.webhooks.get(PROJECT, "wh_1") == endpoint("wh_1")
            assert await tx.webhooks.get(OTHER, "wh_1") is None
            assert [each.id for each in await tx.webhooks.list(PROJECT)] == ["wh_1", "wh_2"]
            assert await tx.webhooks.list(OTHER) == ()

    async def test_save(self, db: SqlDatabase) -> None:
        secrets = (SigningSecret("third"),)
        changed = endpoint("wh_1", url="https://new", enabled=False, secrets=secrets, updated_at=NOW + SECOND)
        async with db.begin() as tx:
            await tx.webhooks.save(replace(changed, project_id=OTHER))
            assert await tx.webhooks.get(PROJECT, "wh_1") == endpoint("wh_1")
            await tx.webhooks.save(changed)
            await tx.commit()
        async with db.read() as tx:
            assert await tx.webhooks.get(PROJECT, "wh_1") == changed

    async def test_delete_stops_its_deliveries_and_keeps_the_log(self, db: SqlDatabase) -> None:
        await record(db, "job", "wh_1")
        (delivery,) = await claim(db, NOW)
        await finish(db, outcome(delivery, NOW, delivered=False, retry=NOW))
        async with db.begin() as tx:
            assert not await tx.webhooks.delete(OTHER, "wh_1")
            assert await tx.webhooks.delete(PROJECT, "wh_1")
            assert not await tx.webhooks.delete(PROJECT, "wh_1")
            await tx.commit()
        assert await claim(db, NOW + SECOND) == ()
        assert await next_due(db) is None
        await finish(db, outcome(delivery, NOW, delivered=True))
        async with db.read() as tx:
            assert (await tx.outbox.attempts(PROJECT, endpoint_id="wh_1", page=1, size=9)).total == 1


class TestOrder:
    async def test_one_in_flight_per_subject_oldest_first(self, db: SqlDatabase) -> None:
        """Design section 13: events of one job in the order they happened."""
        events = [await record(db, "job", "wh_1") for _ in range(3)]
        got: list[EventId] = []
        for _ in events:
            (delivery,) = await claim(db, NOW)
            assert await claim(db, NOW) == ()
            got.append(delivery.event.id)
            await finish(db, outcome(delivery, NOW, delivered=True))
        assert got == events
        assert await claim(db, NOW) == ()

    async def test_what_is_claimed_is_what_was_recorded(self, db: SqlDatabase) -> None:
        event_id = await record(db, "job", "wh_1", "wh_2")
        first, second = sorted(await claim(db, NOW), key=lambda delivery: delivery.endpoint_id)
        assert (first.event, first.attempts, first.created_at) == (second.event, 0, NOW)
        assert first.event.id == event_id
        assert "🎬".encode() in first.event.body
        assert {first.endpoint_id, second.endpoint_id} == {"wh_1", "wh_2"}
        assert first.id != second.id
        assert first.project_id == PROJECT

    async def test_a_failing_one_holds_back_only_its_own_subject_and_endpoint(self, db: SqlDatabase) -> None:
        for subject in ("a", "a", "b"):
            await record(db, subject, "wh_1", "wh_2")
        later = NOW + timedelta(minutes=5)
        claimed = await claim(db, NOW)
        assert Counter(delivery.event.subject for delivery in claimed) == {"a": 2, "b": 2}
        await finish(
            db,
            *(
                outcome(delivery, NOW, delivered=delivery.endpoint_id == "wh_2", retry=later)
                for delivery in claimed
                if delivery.event.subject == "a"
            ),
        )
        (follower,) = await claim(db, NOW + SECOND)
        assert (follower.endpoint_id, follower.event.subject) == ("wh_2", "a")
        await finish(db, outcome(follower, NOW, delivered=True))
        assert (
            await claim(db, later - SECOND, per_endpoint=100) != ()
        )  # subject b of both: their lease ran out
        (retry,) = await claim(db, later)
        assert (retry.endpoint_id, retry.event.subject, retry.attempts) == ("wh_1", "a", 1)

    async def test_followers_come_as_soon_as_the_head_is_dead(self, db: SqlDatabase) -> None:
        first, second = [await record(db, "a", "wh_1") for _ in range(2)]
        (head,) = await claim(db, NOW)
        await finish(db, outcome(head, NOW, delivered=False, retry=NOW + SECOND))
        (head,) = await claim(db, NOW + SECOND)
        assert (head.event.id, head.attempts) == (first, 1)
        await finish(db, outcome(head, NOW + SECOND, delivered=False))
        (follower,) = await claim(db, NOW + SECOND)
        assert follower.event.id == second


class TestFairness:
    async def test_an_endpoint_has_no_more_in_flight_than_it_may(self, db: SqlDatabase) -> None:
        for subject in range(10):
            await record(db, str(subject), "wh_1")
        first = await claim(db, NOW, owner="one")
        assert len(first) == 4
        assert await claim(db, NOW, owner="two") == ()
        await finish(db, outcome(first[0], NOW, delivered=True))
        assert len(await claim(db, NOW, owner="two")) == 1

    async def test_a_long_backlog_leaves_room_for_others(self, db: SqlDatabase) -> None:
        """A slow or dead endpoint delays no other."""
        for subject in range(30):
            await record(db, str(subject), "wh_1")
        await record(db, "late", "wh_2", at=NOW + SECOND)
        claimed = await claim(db, NOW + SECOND, limit=8)
        assert Counter(delivery.endpoint_id for delivery in claimed) == {"wh_1": 4, "wh_2": 1}

    async def test_skipped_endpoints_and_the_limit(self, db: SqlDatabase) -> None:
        for subject in range(5):
            await record(db, str(subject), "wh_1", "wh_2")
        assert {delivery.endpoint_id for delivery in await claim(db, NOW, skip=["wh_1"])} == {"wh_2"}
        assert len(await claim(db, NOW, limit=3, per_endpoint=50)) == 3


class TestLeases:
    async def test_a_dead_relays_deliveries_come_back(self, db: SqlDatabase) -> None:
        await record(db, "job", "wh_1")
        (first,) = await claim(db, NOW, owner="dead")
        assert await next_due(db) == NOW + LEASE
        assert await claim(db, NOW + LEASE - SECOND, owner="alive") == ()
        (again,) = await claim(db, NOW + LEASE, owner="alive")
        assert (again.id, again.attempts) == (first.id, 0)

    async def test_a_late_failure_does_not_undo_the_next_owners_attempt(self, db: SqlDatabase) -> None:
        await record(db, "job", "wh_1")
        (late,) = await claim(db, NOW, owner="slow")
        (taken,) = await claim(db, NOW + LEASE, owner="alive")
        at, retry = NOW + LEASE, NOW + timedelta(minutes=5)
        await finish(db, outcome(taken, at, delivered=False, retry=retry))
        await finish(db, outcome(late, at, delivered=False, retry=at))
        assert await next_due(db) == retry
        await finish(db, outcome(late, at, delivered=True))
        assert await next_due(db) is None

    async def test_many_relays_never_share_a_subject_and_keep_the_order(
        self, db: SqlDatabase, open_again: OpenDatabase
    ) -> None:
        """Several processes' connections at once."""
        recorded: dict[str, list[EventId]] = defaultdict(list)
        for number in range(24):
            subject = str(number % 6)
            recorded[subject].append(await record(db, subject, "wh_1", "wh_2"))
        delivered: dict[tuple[str, str], list[EventId]] = defaultdict(list)
        flying: set[tuple[str, str]] = set()

        async def relay(database: SqlDatabase, owner: str) -> None:
            while sum(map(len, delivered.values())) < 48:
                claimed = await claim(database, NOW, owner=owner, limit=5)
                for delivery in claimed:
                    lane = (delivery.endpoint_id, delivery.event.subject)
                    assert lane not in flying
                    flying.add(lane)
                assert all(n <= 4 for n in Counter(endpoint_id for endpoint_id, _ in flying).values())
                await asyncio.sleep(0)
                for delivery in claimed:
                    lane = (delivery.endpoint_id, delivery.event.subject)
                    flying.remove(lane)
                    delivered[lane].append(delivery.event.id)
                await finish(database, *(outcome(delivery, NOW, delivered=True) for delivery in claimed))

        databases = [db, await open_again(), await open_again()]
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            for number, database in enumerate(databases * 2):
                group.create_task(relay(database, f"relay{number}"))
        assert delivered == {
            (ep, subject): recorded[subject] for ep in ("wh_1", "wh_2") for subject in recorded
        }


class TestLog:
    async def test_each_attempt_is_listed_newest_first(self, db: SqlDatabase) -> None:
        """WB-47."""
        await record(db, "job", "wh_1", "wh_2")
        mine, other = sorted(await claim(db, NOW), key=lambda delivery: delivery.endpoint_id)
        await finish(db, outcome(mine, NOW, delivered=False, retry=NOW), outcome(other, NOW, delivered=True))
        (again,) = await claim(db, NOW)
        last = outcome(again, NOW + SECOND, delivered=True)
        async with db.begin() as tx:
            await tx.outbox.record_attempt(last.attempt, delivered=True, next_attempt_at=None)
            await tx.commit()
        async with db.read() as tx:
            page = await tx.outbox.attempts(PROJECT, endpoint_id="wh_1", page=1, size=1)
            both = await tx.outbox.attempts(PROJECT, endpoint_id=None, page=1, size=9)
            none = await tx.outbox.attempts(OTHER, endpoint_id="wh_1", page=1, size=9)
        assert (page.items, page.total) == ((last.attempt,), 2)
        assert (len(both.items), both.total, none.total) == (3, 3, 0)
        assert [attempt.error for attempt in both.items if not attempt.delivered] == ["connection refused"]
        assert await next_due(db) is None


class TestReplay:
    async def dead(self, db: SqlDatabase, subject: str) -> Delivery:
        await record(db, subject, "wh_1")
        (delivery,) = await claim(db, NOW)
        await finish(db, outcome(delivery, NOW, delivered=False))
        return delivery

    async def replay(
        self,
        db: SqlDatabase,
        project: ProjectId,
        endpoint_id: str,
        *,
        event_id: EventId | None = None,
        since: datetime | None = None,
    ) -> int:
        async with db.begin() as tx:
            count = await tx.outbox.replay(
                project, endpoint_id, event_id=event_id, since=since, now=NOW + SECOND
            )
            await tx.commit()
        return count

    async def test_one_event_has_a_fresh_schedule_and_its_old_id(self, db: SqlDatabase) -> None:
        delivery = await self.dead(db, "a")
        await self.dead(db, "b")
        assert await claim(db, NOW + SECOND) == ()
        assert await self.replay(db, OTHER, "wh_1", event_id=delivery.event.id) == 0
        assert await self.replay(db, PROJECT, "wh_2", event_id=delivery.event.id) == 0
        assert await self.replay(db, PROJECT, "wh_1", event_id=delivery.event.id) == 1
        (again,) = await claim(db, NOW + SECOND)
        assert (again.event, again.attempts) == (delivery.event, 0)

    async def test_all_since_a_moment(self, db: SqlDatabase) -> None:
        for subject in "ab":
            await self.dead(db, subject)
        assert await self.replay(db, PROJECT, "wh_1", since=NOW + SECOND) == 0
        assert await self.replay(db, PROJECT, "wh_1", since=NOW) == 2
        assert len(await claim(db, NOW + SECOND)) == 2

    async def test_a_replayed_one_waits_for_a_newer_one_in_flight(self, db: SqlDatabase) -> None:
        old = await self.dead(db, "a")
        await record(db, "a", "wh_1")
        (newer,) = await claim(db, NOW)
        await self.replay(db, PROJECT, "wh_1", event_id=old.event.id)
        assert await claim(db, NOW + SECOND) == ()
        await finish(db, outcome(newer, NOW + SECOND, delivered=True))
        (again,) = await claim(db, NOW + SECOND)
        assert again.event == old.event

    async def test_what_waited_behind_it_follows_at_once(self, db: SqlDatabase) -> None:
        first, second = [await record(db, "a", "wh_1") for _ in range(2)]
        (head,) = await claim(db, NOW)
        await finish(db, outcome(head, NOW, delivered=False, retry=NOW + timedelta(days=1)))
        await self.replay(db, PROJECT, "wh_1", event_id=first)
        (head,) = await claim(db, NOW + SECOND)
        await finish(db, outcome(head, NOW + SECOND, delivered=True))
        (follower,) = await claim(db, NOW + SECOND)
        assert (head.event.id, follower.event.id) == (first, second)


class TestPurge:
    async def test_old_and_finished_goes_pending_stays(self, db: SqlDatabase) -> None:
        async def purge(days: int) -> int:
            async with db.begin() as tx:
                count = await tx.outbox.purge(before=NOW + timedelta(days=days))
                await tx.commit()
            return count

        await record(db, "done", "wh_1")
        (done,) = await claim(db, NOW)
        await finish(db, outcome(done, NOW, delivered=True))
        await record(db, "nobody asked")
        waiting = await record(db, "waiting", "wh_1")
        await record(db, "endpoint gone", "wh_gone")
        assert await purge(0) == 0
        assert await purge(1) == 3
        (left,) = await claim(db, NOW)
        assert left.event.id == waiting
        async with db.read() as tx:
            assert (await tx.outbox.attempts(PROJECT, endpoint_id=None, page=1, size=9)).total == 0


class TestNextDue:
    async def test_only_what_can_go_counts(self, db: SqlDatabase) -> None:
        assert await next_due(db) is None
        await record(db, "a", "wh_1")
        await record(db, "a", "wh_1", at=NOW - SECOND)  # behind the first, whatever its clock said
        assert await next_due(db) == NOW
        (head,) = await claim(db, NOW)
        later = NOW + timedelta(hours=2)
        await finish(db, outcome(head, NOW, delivered=False, retry=later))
        assert await next_due(db) == later
