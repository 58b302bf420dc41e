"""What rooms ask to have recorded of themselves is kept sealed, as long as the room is open, on both databases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from adapters.db.egress_tables import room_egress
from adapters.db.rotation import reencrypt
from adapters.db.unit_of_work import SqlDatabase
from server.domain.egress import RoomEgress
from server.domain.room import RoomMemory, RoomSession
from server.ids import ProjectId

NOW = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
PROJECT = ProjectId("cl_first")


def kept(sid: str, body: bytes = b"with storage-secret", created_at: datetime = NOW) -> RoomEgress:
    return RoomEgress(sid, PROJECT, "hall", body, created_at)


async def add(database: SqlDatabase, *all_kept: RoomEgress) -> None:
    async with database.begin() as tx:
        for one in all_kept:
            await tx.room_egress.add(one)
        await tx.commit()


async def remember(database: SqlDatabase, sid: str, finished_at: datetime | None) -> None:
    async with database.begin() as tx:
        session = RoomSession(sid, PROJECT, "hall", NOW, finished_at)
        await tx.rooms.remember(RoomMemory({sid: session}))
        await tx.commit()


async def open_rooms(database: SqlDatabase) -> dict[str, bytes]:
    async with database.read() as tx:
        return {one.room_sid: one.body for one in await tx.room_egress.open()}


async def test_the_first_of_a_session_counts(database: SqlDatabase) -> None:
    await add(database, kept("RM_1"), kept("RM_1", b"another"), kept("RM_2", b"second"))
    assert await open_rooms(database) == {"RM_1": b"with storage-secret", "RM_2": b"second"}
    async with database.begin() as tx:
        await tx.room_egress.remove("RM_1")
        await tx.commit()
    assert await open_rooms(database) == {"RM_2": b"second"}


async def test_it_is_forgotten_with_the_session(database: SqlDatabase) -> None:
    """At once when the room ends; the row goes with the session, or after a day if nothing was heard of the room."""
    later = NOW + timedelta(days=1)
    await add(
        database, kept("RM_over"), kept("RM_open"), kept("RM_unknown"), kept("RM_new", created_at=later)
    )
    await remember(database, "RM_over", NOW)
    await remember(database, "RM_open", None)
    assert set(await open_rooms(database)) == {"RM_open", "RM_unknown", "RM_new"}
    async with database.begin() as tx:
        await tx.rooms.purge(before=later)
        await tx.commit()
    async with database.read() as tx:
        left = await tx.run_sync(lambda c: {row.room_sid for row in c.execute(room_egress.select())})
    assert left == {"RM_open", "RM_new"}


async def test_credentials_are_sealed_and_rotated(database: SqlDatabase) -> None:
    await add(database, kept("RM_1"))
    async with database.read() as tx:
        sealed = await tx.run_sync(lambda c: c.execute(room_egress.select()).one().body)
    assert b"storage-secret" not in bytes(sealed)
    assert "storage-secret" not in repr(kept("RM_1"))
    await reencrypt(database)
    assert await open_rooms(database) == {"RM_1": b"with storage-secret"}
