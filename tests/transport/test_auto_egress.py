"""The rules of automatic egress through BaxCloud's calls."""

from __future__ import annotations

from typing import Any

import pytest

from tests.transport.egress_stage import EgressStage
from tests.transport.surface import OTHER_KEY, OTHER_PROJECT, PROJECT, Outcome, headers_for

PATH = "/v1/egress/auto-egress"
OTHERS = headers_for(OTHER_KEY, OTHER_PROJECT)
DEFAULTS = {
    "enabled": False,
    "mode": "record",
    "layout": "default",
    "quality": "720p",
    "file": {"fileType": "MP4"},
    "minParticipants": 1,
    "delaySeconds": 0,
    "roomNamePattern": "*",
}


async def put(stage: EgressStage, body: Any, headers: Any = None) -> Outcome:
    return await stage.rest("PUT", PATH, body, headers)


async def stored_urls(stage: EgressStage) -> tuple[str, ...]:
    async with stage.database.read() as tx:
        rules = await tx.auto_egress.get(PROJECT)  # type: ignore[arg-type]
    assert rules is not None
    return rules.urls


async def test_before_any_rules(egress: EgressStage) -> None:
    """AE-10, AE-11, B-77, EG-47."""
    answer = await egress.rest("GET", PATH)
    assert (answer.status, answer.reply) == (200, DEFAULTS)


async def test_the_seeds_two_samples(egress: EgressStage) -> None:
    """AE-01, AE-09, AE-12: what is left out stays."""
    full = {
        "enabled": True,
        "mode": "record",
        "layout": "speaker",
        "quality": "720p",
        "minParticipants": 2,
        "delaySeconds": 10,
        "roomNamePattern": "meeting-*",
    }
    answer = await put(egress, full)
    assert answer.status == 200
    assert answer.reply.items() >= full.items()
    assert "updatedAt" in answer.reply
    four = {"enabled": True, "mode": "record", "quality": "1080p", "minParticipants": 3}
    merged = (await put(egress, four)).reply
    assert {key: merged[key] for key in full} == full | four
    assert (await egress.rest("GET", PATH)).reply == merged
    assert (await egress.rest("POST", PATH, full)).status in (404, 405)


async def test_rules_are_per_project(egress: EgressStage) -> None:
    """AE-14."""
    await put(egress, {"enabled": True})
    assert (await egress.rest("GET", PATH, None, OTHERS)).reply == DEFAULTS


async def test_every_change_is_told(egress: EgressStage) -> None:
    """So that rooms which are open already are looked at."""
    await put(egress, {"enabled": False})
    assert egress.watch.stirred


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"enabled": "yes"}, "enabled"),
        ({"mode": "broadcast"}, "mode"),
        ({"layout": "mosaic"}, "layout"),
        ({"quality": "2k"}, "quality"),
        ({"file": {"fileType": "AVI"}}, "file.fileType"),
        ({"minParticipants": -1}, "minParticipants"),
        ({"minParticipants": 1.5}, "minParticipants"),
        ({"delaySeconds": -1}, "delaySeconds"),
        ({"roomNamePattern": ""}, "roomNamePattern"),
        ({"mode": "stream"}, "stream.urls"),
        ({"mode": "both", "stream": {"urls": []}}, "stream.urls"),
        ({"mode": "stream", "stream": {"urls": ["srt://live.test:1"]}}, "stream.urls[0]"),
        ({"mode": "stream", "stream": {"urls": ["rtmp://127.0.0.1/app/key"]}}, "stream.urls[0]"),
        (
            {"mode": "both", "stream": {"urls": ["rtmp://live.test/app/key"]}, "file": {"fileType": "WEBM"}},
            "file.fileType",
        ),
    ],
)
async def test_what_is_wrong_is_named(egress: EgressStage, body: Any, field: str) -> None:
    """AE-02, AE-03, AE-04, AE-05, AE-06, AE-07, AE-08, B-77."""
    answer = await put(egress, body)
    assert answer.status == 400, answer
    assert answer.meta["field"] == field
    assert (await egress.rest("GET", PATH)).reply == DEFAULTS


async def test_destinations_are_kept_and_not_shown(egress: EgressStage) -> None:
    """C.1: redacted on read; rules that were read may be sent back as they are."""
    urls = ["rtmp://live.test/app/first", "rtmp://live.test/app/second", "rtmps://other.test/app/third"]
    reply = (await put(egress, {"mode": "stream", "stream": {"urls": urls}})).reply
    shown = ["rtmp://live.test/app/***", "rtmp://live.test/app/***", "rtmps://other.test/app/***"]
    assert reply["stream"]["urls"] == shown
    assert "file" not in reply
    read = (await egress.rest("GET", PATH)).reply
    del read["updatedAt"]
    assert (await put(egress, read)).status == 200
    assert await stored_urls(egress) == tuple(urls)
    assert (await put(egress, {"stream": {"urls": [shown[2], "rtmp://live.test/app/fourth"]}})).status == 200
    assert await stored_urls(egress) == (urls[2], "rtmp://live.test/app/fourth")
    unknown = await put(egress, {"stream": {"urls": ["rtmp://elsewhere.test/app/***"]}})
    assert (unknown.status, unknown.meta["field"]) == (400, "stream.urls[0]")
