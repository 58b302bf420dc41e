"""Egresses, recordings and the rules of automatic egress, the same on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from adapters.db.egress_tables import auto_egress, egresses
from adapters.db.rotation import reencrypt
from adapters.db.unit_of_work import SqlDatabase
from server.domain.egress import (
    AudioEncoding,
    Destination,
    Egress,
    EgressPlan,
    EgressSecrets,
    EgressStatus,
    EgressWebhook,
    Encoding,
    Failing,
    FileOutput,
    FileResult,
    ImagesOutput,
    Orders,
    Outputs,
    Results,
    SegmentsOutput,
    StorageChoice,
    StreamResult,
    StreamStatus,
    Surface,
    VideoEncoding,
)
from server.domain.egress_sources import RoomSource, Source, TrackSource
from server.domain.recording import AutoEgress, Recording
from server.domain.room import RoomMemory, RoomSession
from server.errors import Code, ServiceError
from server.ids import new_egress_id, new_job_id, new_recording_id
from tests.contract.rows import NOW, OTHER, PROJECT, SECOND, add_projects

KEY = "live_4711_secretkey"
ORDERS = Orders(3, "grid", "card", "", (Destination("d1", f"rtmp://live.test/app/{KEY}"),))
SECRETS = EgressSecrets(
    (StorageChoice("s3", {"access_key": "AKIASECRET", "secret": "s3cr3t"}),),
    (EgressWebhook("https://hooks.test/x?token=hush", "APIkey", ("egress_*",), ("egress_updated",)),),
)


def egress(source: Source | None = None, **changes: Any) -> Egress:
    made = Egress(
        id=new_egress_id(),
        project_id=PROJECT,
        job_id=new_job_id(),
        room_name="meeting",
        room_id="RM_1",
        surface=Surface.BAXCLOUD,
        type="both",
        layout="speaker",
        quality="720p",
        file_type="MP4",
        plan=EgressPlan(
            livekit_room="p--meeting",
            source=source or RoomSource(layout="speaker"),
            encoding=Encoding(VideoEncoding(key_frame_sec=2.5), AudioEncoding()),
            outputs=Outputs(
                (FileOutput("mp4", "recordings/rec_1.mp4"),),
                (SegmentsOutput("a/b", segment_sec=6),),
                (ImagesOutput("img", 5, 320, 180, "timestamp"),),
                "rtmp",
            ),
        ),
        request={"type": "room_composite", "body": {"room_name": "meeting", "ü": [1, 2.5, None]}},
        created_at=NOW,
        started_at=1_774_794_600_123_456_789,
        updated_at=1_774_794_600_123_456_789,
    )
    return replace(made, **changes)


def recording(of: Egress, **changes: Any) -> Recording:
    made = Recording(
        id=new_recording_id(),
        project_id=of.project_id,
        egress_id=of.id,
        room_name=of.room_name,
        status="STARTED",
        file_type="MP4",
        layout="speaker",
        quality="720p",
        created_at=of.created_at,
        started_at=of.created_at,
    )
    return replace(made, **changes)


async def add(db: SqlDatabase, *made: Egress) -> None:
    async with db.begin() as tx:
        for each in made:
            await tx.egresses.add(each, ORDERS, SECRETS)
        await tx.commit()


@pytest.fixture
async def db(database: SqlDatabase) -> SqlDatabase:
    """Two projects are there."""
    await add_projects(database)
    return database


class TestEgresses:
    @pytest.mark.parametrize("source", [RoomSource("grid", audio_only=True), TrackSource("TR_1")])
    async def test_what_is_added_comes_back_whole(self, db: SqlDatabase, source: Source) -> None:
        made = egress(source)
        await add(db, made)
        async with db.read() as tx:
            assert await tx.egresses.get(PROJECT, made.id) == made
            assert await tx.egresses.orders(made.id) == ORDERS
            assert await tx.egresses.secrets(made.id) == SECRETS

    async def test_an_id_is_taken_once(self, db: SqlDatabase) -> None:
        made = egress()
        await add(db, made)
        with pytest.raises(ServiceError) as refused:
            await add(db, replace(made, room_name="other"))
        assert refused.value.code is Code.ALREADY_EXISTS

    async def test_a_project_sees_its_own_only(self, db: SqlDatabase) -> None:
        """GN-07 for egresses; workers see every project's."""
        made = egress()
        await add(db, made)
        async with db.read() as tx:
            assert await tx.egresses.get(OTHER, made.id) is None
            assert await tx.egresses.get(None, made.id) == made
            assert (await tx.egresses.list(OTHER)).total == 0

    async def test_saving_replaces_the_state_and_leaves_plan_and_orders(self, db: SqlDatabase) -> None:
        made = egress()
        await add(db, made)
        changed = replace(
            made,
            status=EgressStatus.FAILED,
            updated_at=made.updated_at + 1,
            active_at=5,
            ended_at=7,
            details="End reason: StopEgress API",
            failing=Failing("RTMP_CONNECTION_REFUSED", "refused", 0),
            paused="cut",
            results=Results(
                (FileResult("recordings/rec_1.mp4", 1, 2, 3, 2**40, "https://x"),),
                streams=(StreamResult("d1", "rtmp://h/{a}", "rtmp://h/***", StreamStatus.FAILED, retries=4),),
                backup_storage_used=True,
            ),
        )
        async with db.begin() as tx:
            assert await tx.egresses.get(PROJECT, made.id, lock=True) == made
            await tx.egresses.save(replace(changed, plan=replace(made.plan, livekit_room="elsewhere")))
            await tx.commit()
        async with db.read() as tx:
            assert await tx.egresses.get(PROJECT, made.id) == changed
            assert await tx.egresses.orders(made.id) == ORDERS

    async def test_orders_are_given_without_touching_the_state(self, db: SqlDatabase) -> None:
        made = egress()
        await add(db, made)
        wanted = ORDERS.then(layout="grid", destinations=())
        async with db.begin() as tx:
            await tx.egresses.give(made.id, wanted)
            await tx.commit()
        async with db.read() as tx:
            assert await tx.egresses.orders(made.id) == wanted
            assert await tx.egresses.get(PROJECT, made.id) == made

    async def test_who_locks_an_egress_waits_for_whoever_holds_it(self, db: SqlDatabase) -> None:
        """Two changes made of what was read under the lock: neither is lost."""
        made = egress()
        await add(db, made)

        async def count() -> None:
            async with db.begin() as tx:
                found = await tx.egresses.get(PROJECT, made.id, lock=True)
                assert found is not None
                await tx.egresses.save(replace(found, active_at=found.active_at + 1))
                await tx.commit()

        await asyncio.gather(*(count() for _ in range(8)))
        async with db.read() as tx:
            found = await tx.egresses.get(PROJECT, made.id)
        assert found is not None
        assert found.active_at == 8

    async def test_a_deleted_one_is_seen_by_workers_only(self, db: SqlDatabase) -> None:
        """EG-46."""
        made = egress()
        await add(db, made)
        async with db.begin() as tx:
            await tx.egresses.save(replace(made, deleted_at=NOW))
            await tx.commit()
        async with db.read() as tx:
            assert await tx.egresses.get(PROJECT, made.id) is None
            assert await tx.egresses.get(None, made.id) is not None
            assert await tx.egresses.list(PROJECT) == await tx.egresses.list(OTHER)

    async def test_lists_by_room_and_state_newest_first_page_by_page(self, db: SqlDatabase) -> None:
        """EG-37, EG-41."""
        here = [egress(created_at=NOW + i * SECOND) for i in range(5)]
        there = egress(room_name="standup", status=EgressStatus.COMPLETE)
        await add(db, *here, there)
        async with db.read() as tx:
            first = await tx.egresses.list(PROJECT, room_name="meeting", page=1, size=3)
            second = await tx.egresses.list(PROJECT, room_name="meeting", page=2, size=3)
            done = await tx.egresses.list(PROJECT, statuses={EgressStatus.COMPLETE, EgressStatus.FAILED})
            none = await tx.egresses.list(PROJECT, room_name="meeting", statuses=())
        assert [each.id for each in (*first.items, *second.items)] == [each.id for each in reversed(here)]
        assert (first.total, second.total) == (5, 5)
        assert [each.id for each in done.items] == [there.id]
        assert none.total == 0

    async def test_lists_by_what_is_shown(self, db: SqlDatabase) -> None:
        """E.1: one that reached its limit is COMPLETED where there is a file, else FAILED."""
        limited = EgressStatus.LIMIT_REACHED
        with_file = egress(status=limited, results=Results(files=(FileResult("a.mp4"),)))
        without = egress(status=EgressStatus.ACTIVE)
        await add(db, with_file, without)
        async with db.begin() as tx:
            await tx.egresses.save(replace(without, status=limited))
            await tx.commit()
        async with db.read() as tx:
            done = await tx.egresses.list(PROJECT, shown_status="COMPLETED")
            failed = await tx.egresses.list(PROJECT, shown_status="FAILED")
            started = await tx.egresses.list(PROJECT, shown_status="STARTED")
        assert [each.id for each in done.items] == [with_file.id]
        assert [each.id for each in failed.items] == [without.id]
        assert started.total == 0

    async def test_running_are_those_of_all_projects_that_have_not_ended(self, db: SqlDatabase) -> None:
        kept = [
            egress(project_id=project, status=status)
            for project in (PROJECT, OTHER)
            for status in EgressStatus
        ]
        await add(db, *kept)
        async with db.read() as tx:
            running = await tx.egresses.running()
        assert {each.id for each in running} == {each.id for each in kept if not each.status.is_final}

    async def test_destinations_and_credentials_are_sealed(self, db: SqlDatabase) -> None:
        """And sealed again under a new key."""
        made = egress()
        await add(db, made)
        async with db.begin() as tx:
            await tx.auto_egress.save(AutoEgress(PROJECT, urls=(f"rtmp://live.test/app/{KEY}",)))
            await tx.commit()
        async with db.read() as tx:
            rows = await tx.run_sync(
                lambda c: [*c.execute(select(egresses)).all(), *c.execute(select(auto_egress)).all()]
            )
        stored = repr(rows)
        assert all(secret not in stored for secret in (KEY, "AKIASECRET", "s3cr3t", "hush"))
        assert await reencrypt(db) == 0


class TestRecordings:
    async def test_a_recording_comes_back_and_changes(self, db: SqlDatabase) -> None:
        of = egress()
        made = recording(of)
        await add(db, of)
        done = replace(
            made,
            status="COMPLETED",
            ended_at=NOW + timedelta(seconds=61),
            key="recordings/rec_1.mp4",
            file_url="https://x/recordings/rec_1.mp4",
            file_size=2**33,
            duration_sec=61,
            manifest={"gaps": [], "tracks": [{"sid": "TR_1"}]},
        )
        async with db.begin() as tx:
            await tx.recordings.add(made)
            assert await tx.recordings.get(PROJECT, made.id) == made
            await tx.recordings.save(done)
            await tx.commit()
        async with db.read() as tx:
            assert await tx.recordings.get(PROJECT, made.id) == done
            assert await tx.recordings.get(None, made.id) == done
            assert await tx.recordings.of_egress(PROJECT, of.id) == done
            assert await tx.recordings.get(OTHER, made.id) is None
            assert await tx.recordings.of_egress(OTHER, of.id) is None

    async def test_recordings_outlive_the_record_of_their_egress(self, db: SqlDatabase) -> None:
        of = egress()
        await add(db, of)
        async with db.begin() as tx:
            await tx.recordings.add(recording(of))
            await tx.egresses.save(replace(of, deleted_at=NOW))
            await tx.commit()
        async with db.read() as tx:
            assert await tx.recordings.of_egress(PROJECT, of.id) is not None

    async def test_lists_by_room_and_state_newest_first(self, db: SqlDatabase) -> None:
        """RC-08, RC-09."""
        made = [recording(egress(created_at=NOW + i * SECOND)) for i in range(3)]
        made.append(recording(egress(room_name="standup"), status="COMPLETED"))
        async with db.begin() as tx:
            for each in made:
                await tx.recordings.add(each)
            await tx.commit()
        async with db.read() as tx:
            here = await tx.recordings.list(PROJECT, room_name="meeting", page=1, size=2)
            rest = await tx.recordings.list(PROJECT, room_name="meeting", page=2, size=2)
            done = await tx.recordings.list(PROJECT, status="COMPLETED")
            both = await tx.recordings.list(PROJECT, room_name="standup", status="STARTED")
            other = await tx.recordings.list(OTHER)
        assert [each.id for each in (*here.items, *rest.items)] == [made[i].id for i in (2, 1, 0)]
        assert (here.total, done.total, both.total, other.total) == (3, 1, 0, 0)
        assert done.items == (made[3],)


class TestAutoEgress:
    async def test_rules_are_kept_per_project(self, db: SqlDatabase) -> None:
        """AE-14."""
        rules = AutoEgress(
            PROJECT, True, "both", "grid", "1080p", "WEBM", ("rtmp://h/a/k",), 2, 10, "meeting-*", NOW
        )
        async with db.begin() as tx:
            await tx.auto_egress.save(replace(rules, enabled=False, urls=()))
            await tx.auto_egress.save(rules)
            await tx.auto_egress.save(AutoEgress(OTHER))
            await tx.commit()
        async with db.read() as tx:
            assert await tx.auto_egress.get(PROJECT) == rules
            assert await tx.auto_egress.get(OTHER) == AutoEgress(OTHER)
            assert await tx.auto_egress.enabled() == (rules,)

    async def test_a_session_of_a_room_begins_once(self, db: SqlDatabase) -> None:
        """AE-13; two hosts that see the same room at once included."""

        async def begin(room_sid: str) -> bool:
            async with db.begin() as tx:
                begun = await tx.auto_egress.begin(room_sid, PROJECT, NOW)
                await tx.commit()
            return begun

        assert sorted(await asyncio.gather(*(begin("RM_1") for _ in range(4)))) == [False, False, False, True]
        assert await begin("RM_2")

    async def test_it_is_forgotten_with_the_session(self, db: SqlDatabase) -> None:
        async with db.begin() as tx:
            for sid, finished in (("RM_1", NOW), ("RM_2", None)):
                await tx.rooms.remember(
                    RoomMemory({sid: RoomSession(sid, PROJECT, "meeting", NOW, finished)})
                )
                await tx.auto_egress.begin(sid, PROJECT, NOW)
            await tx.rooms.purge(before=NOW + SECOND)
            assert await tx.auto_egress.begin("RM_1", PROJECT, NOW)
            assert not await tx.auto_egress.begin("RM_2", PROJECT, NOW)
