"""When a room has had enough people for long enough, and which rooms a pattern means."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from server.domain.room import Visit
from server.egress.auto import enough_since, matches

BASE = datetime(2026, 4, 17, 10, 0, 0, tzinfo=UTC)


def at(second: float) -> datetime:
    return BASE + timedelta(seconds=second)


def visit(identity: str, joined: float, left: float | None = None, *, person: bool = True) -> Visit:
    return Visit(
        sid=f"PA_{identity}{joined}",
        room_sid="RM_1",
        identity=identity,
        name=identity,
        person=person,
        joined_at=at(joined),
        left_at=None if left is None else at(left),
    )


@pytest.mark.parametrize(
    ("visits", "minimum", "since"),
    [
        ([], 1, None),
        ([visit("a", 3)], 1, 3),
        ([visit("a", 3)], 2, None),
        ([visit("a", 3), visit("b", 7)], 2, 7),
        ([visit("a", 3), visit("b", 7, 9)], 2, None),
        # Fewer for a while: the time begins anew.
        ([visit("a", 3), visit("b", 7, 9), visit("c", 12)], 2, 12),
        # Others keep the room full when the first leaves.
        ([visit("a", 0, 6), visit("b", 0), visit("c", 5)], 2, 0),
        # Recorders, streams and agents are no people.
        ([visit("a", 3), visit("egress", 4, person=False)], 2, None),
        # A change of connection is no second person, and no gap.
        ([visit("a", 3), visit("a", 5)], 2, None),
        ([visit("a", 3), visit("b", 4, 6), visit("b", 6)], 2, 4),
        ([visit("a", 3), visit("b", 4, 6), visit("b", 5)], 2, 4),
    ],
)
def test_enough_people(visits: list[Visit], minimum: int, since: float | None) -> None:
    """AE-06, AE-07."""
    assert enough_since(visits, minimum) == (None if since is None else at(since))


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("*", "", True),
        ("*", "any/room\n", True),
        ("meeting-*", "meeting-42", True),
        ("meeting-*", "meeting-", True),
        ("meeting-*", "standup", False),
        ("meeting-*", "my-meeting-1", False),
        ("meeting-*", "Meeting-1", False),
        ("*-eu", "call-eu", True),
        ("*-eu", "call-eu-2", False),
        ("a*b*c", "a--b--c", True),
        ("a*b*c", "a--c--b", False),
        ("call.1+(x)", "call.1+(x)", True),
        ("call.1", "callx1", False),
        ("[ab]?", "a1", False),
        ("room", "room", True),
        ("room", "room2", False),
    ],
)
def test_patterns(pattern: str, name: str, expected: bool) -> None:
    """AE-08, B-79."""
    assert matches(pattern, name) is expected
