"""What `bax record` decides by itself: the type of its file, and when to ask again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer

from server.cli.api import Refused
from server.cli.output import Failed
from server.cli.record import answered, file_type_of

_AWAY = Failed("no answer from http://127.0.0.1:1: it did not answer in time")


class _Server:
    """Raises these, one a call; then it answers."""

    def __init__(self, *failures: Failed) -> None:
        self.asked = 0
        self._failures = failures

    async def __call__(self) -> dict[str, Any]:
        self.asked += 1
        if self.asked <= len(self._failures):
            raise self._failures[self.asked - 1]
        return {"status": "STARTED"}


@pytest.mark.parametrize(
    ("name", "wanted", "expected"),
    [
        ("out.mp4", None, "MP4"),
        ("out.webm", None, "WEBM"),
        ("a.b.OGG", None, "OGG"),
        ("out.webm", "WebM", "WEBM"),
    ],
)
def test_the_suffix_is_the_file_type(name: str, wanted: str | None, expected: str) -> None:
    assert file_type_of(Path(name), wanted) == expected


@pytest.mark.parametrize("name", ["out.mkv", "out.mp3", "out", ".mp4"])
def test_another_suffix_is_refused(name: str) -> None:
    """MP3 is a type of LiveKit's API only."""
    with pytest.raises(typer.BadParameter, match=r"must end in one of \.mp4, \.ogg, \.webm") as refused:
        file_type_of(Path(name), "MP4")
    assert refused.value.param_hint == "-o"


def test_another_type_than_the_suffix_is_refused() -> None:
    with pytest.raises(typer.BadParameter, match=r"mp4 is not what -o ends in \(\.webm\)"):
        file_type_of(Path("out.webm"), "mp4")


async def test_who_does_not_answer_is_asked_again() -> None:
    server = _Server(_AWAY, Refused("UNAVAILABLE", "the server answered 502"), _AWAY)
    assert await answered(server, pause_sec=0) == {"status": "STARTED"}
    assert server.asked == 4


async def test_patience_ends() -> None:
    server = _Server(_AWAY, _AWAY)
    with pytest.raises(Failed, match="did not answer in time"):
        await answered(server, patience_sec=0, pause_sec=0)
    assert server.asked == 1


async def test_a_refusal_is_an_answer() -> None:
    server = _Server(Refused("NOT_FOUND", "egress EG_a does not exist"))
    with pytest.raises(Refused, match="does not exist"):
        await answered(server, pause_sec=0)
    assert server.asked == 1
