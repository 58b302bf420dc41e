"""Who is shown and heard, by source."""

from __future__ import annotations

from dataclasses import replace

import pytest

from adapters.recorder.members import Member, Publication, in_order
from adapters.recorder.stage import Show, stage_of
from server.domain.egress_sources import (
    AudioRoute,
    MediaSource,
    ParticipantSource,
    RoomSource,
    Source,
    TrackCompositeSource,
    WebSource,
)


def member(who: str, *publications: Publication, kind: str = "standard", joined: int = 0) -> Member:
    return Member(who, who.title(), kind, joined, publications=publications)


def camera(who: str, *, muted: bool = False) -> Publication:
    return Publication(f"TR_{who}_cam", "video", "camera", "vp8", 640, 360, muted)


def microphone(who: str, *, muted: bool = False) -> Publication:
    return Publication(f"TR_{who}_mic", "audio", "microphone", "opus", muted=muted)


def screen(who: str) -> Publication:
    return Publication(f"TR_{who}_screen", "video", "screen_share", "vp8", 1920, 1080)


def full(who: str, kind: str = "standard", joined: int = 0) -> Member:
    return member(who, camera(who), microphone(who), kind=kind, joined=joined)


def shown(source: Source, *members: Member) -> Show:
    return stage_of(source).show(members, (), {})


def ids(show: Show) -> list[tuple[str, str]]:
    return [(one.id, one.source) for one in show.tracks]


def test_recorders_and_the_hidden_are_nobody_and_the_first_come_first() -> None:
    """LK trap 20."""
    people = [
        full("late", joined=3),
        full("early", joined=1),
        replace(full("rec", joined=0), kind="egress"),
        replace(full("ghost", joined=2), hidden=True),
    ]
    assert [one.identity for one in in_order(people)] == ["early", "late"]


def test_a_room_shows_cameras_and_screens_and_hears_all() -> None:
    show = shown(RoomSource(), full("ann"), member("bob", camera("bob"), screen("bob")))
    assert ids(show) == [
        ("TR_ann_cam", "camera"),
        ("TR_bob_cam", "camera"),
        ("TR_bob_screen", "screen_share"),
    ]
    assert show.audio == {"TR_ann_mic": "both"}


def test_a_camera_that_is_off_keeps_its_tile() -> None:
    """Livekit-surface 5.3."""
    show = shown(RoomSource(), member("ann", camera("ann", muted=True), microphone("ann", muted=True)))
    assert ids(show) == [("TR_ann_cam", "avatar")]
    assert show.tracks[0].muted


def test_who_has_only_a_microphone_has_initials_but_agents_and_listeners_have_no_tile() -> None:
    show = shown(
        RoomSource(),
        member("ann", microphone("ann")),
        member("bot", microphone("bot"), kind="agent"),
        member("listener"),
    )
    assert ids(show) == [("avatar:ann", "avatar")]
    assert set(show.audio) == {"TR_ann_mic", "TR_bot_mic"}


def test_an_agent_with_a_picture_is_shown() -> None:
    assert ids(shown(RoomSource(), member("bot", camera("bot"), kind="agent"))) == [("TR_bot_cam", "camera")]


def test_the_size_of_the_newest_picture_wins() -> None:
    show = stage_of(RoomSource()).show([full("ann")], {"ann"}, {"TR_ann_cam": (360, 640)})
    assert (show.tracks[0].width, show.tracks[0].height) == (360, 640)
    assert show.tracks[0].speaking


def test_one_medium_only() -> None:
    assert shown(RoomSource(audio_only=True), full("ann")).tracks == ()
    assert shown(RoomSource(video_only=True), full("ann")).audio == {}


def test_sides_of_agents_and_in_turn() -> None:
    """LK-33: only of compositions of sound; turns begin on the left and stay."""
    people = [full("ann"), full("bot", kind="agent"), full("eve")]
    by_kind = RoomSource(audio_only=True, audio_mixing="dual_channel_agent")
    assert shown(by_kind, *people).audio == {
        "TR_ann_mic": "right",
        "TR_bot_mic": "left",
        "TR_eve_mic": "right",
    }
    stage = stage_of(RoomSource(audio_only=True, audio_mixing="dual_channel_alternate"))
    assert list(stage.show(people, (), {}).audio.values()) == ["left", "right", "left"]
    assert stage.show(people[1:], (), {}).audio == {"TR_bot_mic": "right", "TR_eve_mic": "left"}
    with_picture = RoomSource(audio_mixing="dual_channel_agent")
    assert set(shown(with_picture, *people).audio.values()) == {"both"}


def test_a_participant_alone() -> None:
    """LK-30."""
    show = shown(
        ParticipantSource("ann"), full("bob"), member("ann", camera("ann"), microphone("ann"), screen("ann"))
    )
    assert ids(show) == [("TR_ann_cam", "screen_share")]
    assert set(show.audio) == {"TR_ann_mic"}
    assert not show.idle


def test_a_participants_screen_is_all_but_camera_and_microphone() -> None:
    """LK trap 16."""
    other = Publication("TR_x", "audio", "unknown")
    show = shown(
        ParticipantSource("ann", screen_share=True),
        member("ann", camera("ann"), microphone("ann"), screen("ann"), other),
    )
    assert ids(show) == [("TR_ann_screen", "screen_share")]
    assert set(show.audio) == {"TR_x"}


def test_a_participant_is_waited_for_met_and_over() -> None:
    stage = stage_of(ParticipantSource("ann"))
    assert stage.show([], (), {}).missing == "participant ann not found"
    assert stage.show([member("ann")], (), {}).idle
    assert ids(stage.show([member("ann", camera("ann", muted=True))], (), {})) == []
    gone = stage.show([], (), {})
    assert gone.over
    assert gone.missing


def test_two_tracks() -> None:
    """LK-31: over when both were there and neither is."""
    stage = stage_of(TrackCompositeSource("TR_bob_mic", "TR_ann_cam"))
    assert stage.show([full("ann")], (), {}).missing == "track TR_bob_mic not found"
    both = stage.show([full("ann"), full("bob")], (), {})
    assert ids(both) == [("TR_ann_cam", "screen_share")]
    assert both.audio == {"TR_bob_mic": "both"}
    assert not stage.show([full("bob")], (), {}).over
    assert stage.show([], (), {}).over


def test_a_track_of_the_other_kind() -> None:
    show = shown(TrackCompositeSource(video_track_id="TR_ann_mic"), full("ann"))
    assert show.wrong == "track TR_ann_mic is not a video track"


def test_routes() -> None:
    """LK-34: the first route that fits decides; what none fits is not heard."""
    source = MediaSource(
        video_identity="ann",
        routes=(
            AudioRoute(track_id="TR_bob_mic", channel="left"),
            AudioRoute(participant_kind="agent", channel="right"),
        ),
    )
    show = shown(source, full("ann"), full("bob"), replace(full("bot"), kind="agent"))
    assert ids(show) == [("TR_ann_cam", "screen_share")]
    assert show.audio == {"TR_bob_mic": "left", "TR_bot_mic": "right"}
    assert shown(source, full("ann")).missing == "track TR_bob_mic not found"


def test_all_audio_ignores_routes() -> None:
    """LK trap 15."""
    source = MediaSource(capture_all_audio=True, routes=(AudioRoute(participant_kind="sip", channel="left"),))
    assert shown(source, full("ann"), full("bob")).audio == {"TR_ann_mic": "both", "TR_bob_mic": "both"}


def test_pages_are_not_composed_here() -> None:
    with pytest.raises(TypeError):
        stage_of(WebSource("https://example.com"))
