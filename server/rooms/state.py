"""What news change in what is remembered of rooms, and what of it is to be announced: each thing once.

The outcome does not depend on the order in which news arrive, nor on how often. Whatever presupposes something not yet
heard of (a participant in an unknown room, somebody leaving who never came) makes up for it first, so every join is
announced before its leave and every end exactly once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from server.domain.room import Participant, Publication, RoomMemory, RoomScope, RoomSession, Track, Visit
from server.domain.room_names import RoomNames
from server.rooms.news import News, NewsKind


@dataclass(frozen=True, slots=True)
class Announcement:
    """Something to tell the project. `noticed`: not when it happened, but when it came to light."""

    kind: NewsKind
    room: RoomSession
    noticed: bool
    visit: Visit | None = None
    publication: Publication | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """`changed` holds only the rows that are new or different."""

    changed: RoomMemory
    announcements: tuple[Announcement, ...]


def take_in(memory: RoomMemory, news: Sequence[News], names: RoomNames) -> Outcome:
    """`memory` must hold what `scope_of(news)` asks for."""
    book = _Book(memory, names)
    for one in news:
        book.take_in(one)
    return book.outcome()


def scope_of(news: Sequence[News]) -> RoomScope:
    """What must be remembered to take in `news`."""
    return RoomScope(
        rooms=frozenset(one.room.sid for one in news),
        visits=frozenset(
            one.participant.sid if one.participant else one.participant_sid
            for one in news
            if one.participant or one.participant_sid
        ),
        publications=frozenset(one.track.sid for one in news if one.track),
        finishing=frozenset(one.room.sid for one in news if one.kind is NewsKind.ROOM_FINISHED),
    )


class _Book:
    def __init__(self, memory: RoomMemory, names: RoomNames) -> None:
        self._before = memory
        self._names = names
        self._rooms = dict(memory.rooms)
        self._visits = dict(memory.visits)
        self._publications = dict(memory.publications)
        self._by_visit: defaultdict[str, list[str]] = defaultdict(list)
        for publication in memory.publications.values():
            self._by_visit[publication.participant_sid].append(publication.sid)
        self._announcements: list[Announcement] = []

    def outcome(self) -> Outcome:
        before = self._before
        changed = RoomMemory(
            {sid: row for sid, row in self._rooms.items() if before.rooms.get(sid) != row},
            {sid: row for sid, row in self._visits.items() if before.visits.get(sid) != row},
            {sid: row for sid, row in self._publications.items() if before.publications.get(sid) != row},
        )
        return Outcome(changed, tuple(self._announcements))

    def take_in(self, news: News) -> None:
        self._open_room(news)
        if news.kind is NewsKind.ROOM_FINISHED:
            self._finish(news)
        elif news.participant is not None:
            self._take_in_visit(news, news.participant)
        elif news.track is not None:
            self._take_in_publication(news, news.track)

    def _open_room(self, news: News) -> None:
        if news.room.sid in self._rooms:
            return
        owner = self._names.owner(news.room.name)
        started_at = news.room.created_at or news.at
        room = RoomSession(news.room.sid, owner.project_id, owner.name, started_at)
        self._rooms[room.sid] = room
        noticed = news.noticed or news.kind is not NewsKind.ROOM_STARTED
        self._announcements.append(Announcement(NewsKind.ROOM_STARTED, room, noticed))

    def _finish(self, news: News) -> None:
        room = self._rooms[news.room.sid]
        if room.finished_at is not None:
            return
        for visit in list(self._visits.values()):
            if visit.room_sid == room.sid and visit.left_at is None:
                self._leave(visit, news.at, noticed=True)
        room = self._rooms[room.sid] = replace(room, finished_at=news.at)
        self._announcements.append(Announcement(NewsKind.ROOM_FINISHED, room, news.noticed))

    def _take_in_visit(self, news: News, participant: Participant) -> None:
        visit = self._visits.get(participant.sid)
        leaves = news.kind is NewsKind.LEFT
        if visit is None:
            visit = self._enter(news, participant)
        if visit.left_at is None and leaves:
            self._leave(visit, news.at, noticed=news.noticed, reason=news.reason)
        elif visit.left_at is None and self._rooms[visit.room_sid].finished_at is not None:
            self._leave(visit, news.at, noticed=True)

    def _enter(self, news: News, participant: Participant) -> Visit:
        visit = Visit(
            sid=participant.sid,
            room_sid=news.room.sid,
            identity=participant.identity,
            name=participant.name,
            person=participant.is_person,
            joined_at=participant.joined_at or news.at,
        )
        self._visits[visit.sid] = visit
        self._tell(visit, NewsKind.JOINED, noticed=news.noticed or news.kind is not NewsKind.JOINED)
        for publication in self._publications_of(visit):
            self._reveal(publication, visit, noticed=news.noticed)
        return visit

    def _leave(self, visit: Visit, at: datetime, *, noticed: bool, reason: str = "") -> None:
        for publication in self._publications_of(visit):
            self._end(publication, visit, at)
        visit = self._visits[visit.sid] = replace(visit, left_at=at)
        self._tell(visit, NewsKind.LEFT, noticed=noticed, reason=reason)

    def _take_in_publication(self, news: News, track: Track) -> None:
        publication = self._publications.get(track.sid)
        visit = self._visits.get(news.participant_sid)
        ends = news.kind is NewsKind.UNPUBLISHED
        if publication is None:
            publication = Publication(
                sid=track.sid,
                room_sid=news.room.sid,
                participant_sid=news.participant_sid,
                type=track.type,
                source=track.source,
                name=track.name,
                unpublished_at=news.at if ends and visit is None else None,
            )
            self._publications[track.sid] = publication
            self._by_visit[publication.participant_sid].append(track.sid)
            if visit is not None:
                publication = self._reveal(publication, visit, noticed=news.noticed or ends)
        if publication.unpublished_at is not None:
            return
        if visit is None:
            if ends:
                self._publications[track.sid] = replace(publication, unpublished_at=news.at)
        elif ends or visit.left_at is not None:
            self._end(publication, visit, news.at, noticed=news.noticed or not ends)

    def _reveal(self, publication: Publication, visit: Visit, *, noticed: bool) -> Publication:
        """Announces one that was waiting for its participant, with its end if that was heard of too."""
        if publication.announced:
            return publication
        publication = self._publications[publication.sid] = replace(publication, announced=True)
        self._tell(visit, NewsKind.PUBLISHED, publication, noticed=noticed)
        if publication.unpublished_at is not None:
            self._tell(visit, NewsKind.UNPUBLISHED, publication, noticed=noticed)
        return publication

    def _end(self, publication: Publication, visit: Visit, at: datetime, *, noticed: bool = True) -> None:
        if publication.unpublished_at is not None:
            return
        publication = self._publications[publication.sid] = replace(publication, unpublished_at=at)
        self._tell(visit, NewsKind.UNPUBLISHED, publication, noticed=noticed)

    def _publications_of(self, visit: Visit) -> list[Publication]:
        return [self._publications[sid] for sid in self._by_visit[visit.sid]]

    def _tell(
        self,
        visit: Visit,
        kind: NewsKind,
        publication: Publication | None = None,
        *,
        noticed: bool,
        reason: str = "",
    ) -> None:
        if visit.person:
            room = self._rooms[visit.room_sid]
            self._announcements.append(Announcement(kind, room, noticed, visit, publication, reason))
