from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest
from av.video.reformatter import ColorPrimaries, ColorRange, ColorTrc

from adapters.compositor import Compositor, Picture
from adapters.compositor.colours import DARK, LIGHT, SPEAKING, of_person, yuv
from adapters.compositor.movement import DURATION_SEC
from adapters.compositor.picture import Plane, Planes, crop, planes_of
from server.domain.layout import Rect, StageTrack, arrange
from tests.unit.compositor.scenes import camera, people, screen

SETTLED = DURATION_SEC + 1.0


class Stage:
    """A compositor and its clock: 30 frames a second."""

    def __init__(self, width: int = 1280, height: int = 720) -> None:
        self.compositor = Compositor(width, height, 30)
        self.size = (width, height)
        self.frames = 0
        self.places: dict[str, Rect] = {}

    def show(
        self,
        layout: str,
        tracks: tuple[StageTrack, ...],
        pictures: dict[str, Picture],
        speaker: str | None = None,
    ) -> tuple[Planes, bool]:
        frame, changed = self.compositor.compose(layout, tracks, speaker, pictures, self.frames / 30)
        self.frames += 1
        self.places = {tile.track_id: tile.rect for tile in arrange(layout, tracks, speaker, *self.size)}
        y, u, v = planes_of(frame)
        return (y.copy(), u.copy(), v.copy()), changed

    def settle(self) -> None:
        self.frames += round(SETTLED * 30)


def newer(picture: Picture, by: int = 1) -> Picture:
    return replace(picture, version=picture.version + by)


def middle(rect: Rect) -> Rect:
    """The part of a tile that has neither corners nor a name."""
    return Rect(rect.x + 20, rect.y + 20, rect.width - 40, (rect.height - 100) // 2 * 2)


def same(one: Planes, other: Planes) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def near(planes: Planes, x: int, y: int, colour: tuple[int, int, int], by: int = 2) -> bool:
    pixel = (planes[0][y, x], planes[1][y // 2, x // 2], planes[2][y // 2, x // 2])
    return all(abs(int(value) - wanted) <= by for value, wanted in zip(pixel, colour, strict=True))


def test_a_picture_of_its_tiles_size_is_copied_bit_by_bit() -> None:
    """Issue section 6: 4 × 640×360 into 1280×720 must be copies, although gaps make the tiles a little smaller."""
    tracks, pictures = people(4)
    planes, _ = Stage().show("grid", tracks, pictures)
    for tile in arrange("grid", tracks, None, 1280, 720):
        inner = middle(tile.rect)
        left, top = (640 - tile.rect.width) // 4 * 2, (360 - tile.rect.height) // 4 * 2
        of = Rect(inner.x - tile.rect.x + left, inner.y - tile.rect.y + top, inner.width, inner.height)
        assert same(crop(planes, inner), crop(pictures[tile.track_id].planes, of))


def test_nothing_new_draws_nothing() -> None:
    tracks, pictures = people(5, speaking=1, off=(3,))
    stage = Stage()
    first, changed = stage.show("grid", tracks, pictures)
    assert changed
    stage.settle()
    second, changed = stage.show("grid", tracks, dict(pictures))
    assert not changed
    assert same(first, second)


def test_a_new_picture_draws_its_tile_and_no_other() -> None:
    tracks, pictures = people(4)
    stage = Stage()
    before, _ = stage.show("grid", tracks, pictures)
    other = camera(640, 360, 5)
    after, changed = stage.show("grid", tracks, {**pictures, "t2": newer(other)})
    assert changed
    rect = stage.places["t2"]
    differs = np.argwhere(before[0] != after[0])
    assert differs.size
    (top, left), (bottom, right) = differs.min(axis=0), differs.max(axis=0)
    assert rect.y <= top <= bottom < rect.y + rect.height
    assert rect.x <= left <= right < rect.x + rect.width


def test_drawing_again_over_the_old_leaves_no_traces() -> None:
    """Names, borders and corners are blended into the canvas: a hundred new frames look like the first one."""
    for layout in ("grid", "pip", "speaker"):
        tracks, pictures = people(4, speaking=1, muted=(2,))
        stage = Stage()
        first, _ = stage.show(layout, tracks, pictures, "p1")
        for version in range(100):
            last, changed = stage.show(
                layout, tracks, {k: newer(p, version + 1) for k, p in pictures.items()}, "p1"
            )
            assert changed
        assert same(first, last)


def test_frames_are_tagged_and_limited() -> None:
    """Design section 7: bt709, limited range."""
    frame, _ = Compositor(1280, 720, 30).compose("grid", *people_for_tags(), 0.0)
    assert (frame.format.name, frame.width, frame.height) == ("yuv420p", 1280, 720)
    assert frame.colorspace == 1  # AVCOL_SPC_BT709
    assert frame.color_range == ColorRange.MPEG
    assert frame.color_primaries == ColorPrimaries.BT709
    assert frame.color_trc == ColorTrc.BT709
    card = Compositor(640, 360, 30).card("Paused")
    assert (card.colorspace, card.color_range, card.width) == (1, ColorRange.MPEG, 640)


def people_for_tags() -> tuple[tuple[StageTrack, ...], None, dict[str, Picture]]:
    tracks, pictures = people(3, off=(0, 1, 2))
    return tracks, None, pictures


def test_the_canvas_can_be_used_again_once_encoded() -> None:
    """x264 copies a frame while it takes it: what is drawn afterwards is not in it."""
    stage = Stage(640, 360)
    tracks, _ = people(1)
    encoder = av.CodecContext.create("libx264", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = 640, 360, "yuv420p"
    encoder.time_base = Fraction(1, 30)
    encoder.options = {"preset": "ultrafast", "qp": "10", "rc-lookahead": "20", "bf": "2"}
    packets = []
    lumas = []
    for index in range(8):
        value = 30 + 25 * index
        flat = Picture.of_i420(
            bytearray([value]) * (640 * 360) + bytearray([128]) * (640 * 180), 640, 360, index
        )
        frame, _ = stage.compositor.compose("single-speaker", tracks, None, {"t0": flat}, index / 30)
        frame.pts = index
        packets += encoder.encode(frame)
        lumas.append(value)
    packets += encoder.encode(None)
    decoder = av.CodecContext.create("h264", "r")
    assert isinstance(decoder, av.VideoCodecContext)
    shown = [frame for packet in packets for frame in decoder.decode(packet)]
    shown += decoder.decode(None)
    assert [round(float(planes_of(frame)[0].mean())) for frame in shown] == pytest.approx(lumas, abs=2)


# --- cameras that are off, and pictures as they come


def test_a_camera_without_a_picture_is_shown_by_its_initials() -> None:
    tracks, pictures = people(2, off=(1,))
    stage = Stage()
    stage.show("grid", tracks, pictures)
    rect = stage.places["t1"]
    off, _ = stage.show("grid", tracks, pictures)
    waiting, changed = stage.show("grid", (tracks[0], replace(tracks[1], source="camera")), pictures)
    disc = yuv(of_person("p1"))
    assert near(off, rect.x + rect.width // 2, rect.y + rect.height // 2 + 90, disc, 16)
    assert not changed
    assert same(off, waiting)


def test_a_camera_that_goes_off_and_on_keeps_its_place_at_once() -> None:
    """Another track id for the same person is no reason to move."""
    tracks, pictures = people(3)
    stage = Stage()
    on, _ = stage.show("grid", tracks, pictures)
    stage.settle()
    place = stage.places["t1"]
    turned_off = (tracks[0], StageTrack("x", "p1", tracks[1].name, "avatar"), tracks[2])
    stage.show("grid", turned_off, pictures)
    assert stage.places["x"] == place
    again, _ = stage.show("grid", tracks, pictures)
    assert same(on, again)


def test_rotation_is_applied() -> None:
    data = bytearray(range(24)) + bytearray(range(100, 112))
    for degrees, shape, corner in ((0, (4, 6), 0), (90, (6, 4), 18), (180, (4, 6), 23), (270, (6, 4), 5)):
        picture = Picture.of_i420(data, 6, 4, 1, degrees)
        assert (picture.height, picture.width) == shape
        assert picture.planes[0].shape == shape
        assert picture.planes[0][0, 0] == corner


@pytest.mark.parametrize("size", [(2, 2), (641, 361), (320, 240), (1920, 1080), (1, 1), (1280, 16)])
def test_any_size_is_composed_and_may_change_in_mid_stream(size: tuple[int, int]) -> None:
    width, height = size
    tracks, pictures = people(2)
    odd = bytearray([90]) * (width * height + 2 * ((width + 1) // 2) * ((height + 1) // 2))
    stage = Stage()
    stage.show("grid", tracks, pictures)
    for cover in ("camera", "screen_share"):
        shown = (tracks[0], replace(tracks[1], source=cover))
        _, changed = stage.show("grid", shown, {**pictures, "t1": Picture.of_i420(odd, width, height, 9)})
        assert changed


def test_read_only_memory_is_fine() -> None:
    tracks, pictures = people(1)
    source = camera(320, 180, 1)
    data = b"".join(plane.tobytes() for plane in source.planes)
    one, _ = Stage().show("grid", tracks, {**pictures, "t0": Picture.of_i420(data, 320, 180, 1)})
    other, _ = Stage().show("grid", tracks, {**pictures, "t0": source})
    assert same(one, other)


def test_nothing_is_distorted() -> None:
    """A circle stays one whether its picture is cropped, fitted, enlarged or reduced."""
    for size, source in (
        ((1280, 720), "camera"),
        ((320, 180), "camera"),
        ((800, 600), "screen_share"),
        ((360, 640), "camera"),
    ):
        width, height = size
        y, x = np.mgrid[0:height, 0:width]
        luma = np.where(np.hypot(x - width / 2, y - height / 2) < min(size) * 0.2, 235, 16).astype(np.uint8)
        grey = np.full(height * width // 2, 128, np.uint8)
        picture = Picture.of_i420(bytearray(luma.tobytes() + grey.tobytes()), width, height, 1)
        track = StageTrack("t", "p", "", source, width, height)
        stage = Stage()
        tracks, pictures = people(3)
        planes, _ = stage.show(
            "grid" if source == "camera" else "speaker", (track, *tracks), {**pictures, "t": picture}
        )
        inside = crop(planes, middle(stage.places["t"]))[0] > 180
        across, down = inside.any(axis=0).sum(), inside.any(axis=1).sum()
        assert across == pytest.approx(down, rel=0.03)


def test_behind_an_upright_camera_is_a_dark_blur_of_it_that_follows() -> None:
    tracks, pictures = people(3)
    upright = StageTrack("t", "p", "Anna", "camera", 360, 640)
    stage = Stage()
    first, _ = stage.show("grid", (*tracks, upright), {**pictures, "t": camera(360, 640, 0)})
    rect = stage.places["t"]
    side = Rect(rect.x + 20, rect.y + 20, 120, rect.height - 120)
    before = crop(first, side)[0].astype(int)
    assert before.max() < 130
    assert before.std() > 1
    assert np.abs(np.diff(before, axis=1)).max() < 12
    distances = []
    for version in range(60):
        later, _ = stage.show(
            "grid", (*tracks, upright), {**pictures, "t": newer(camera(360, 640, 2), version)}
        )
        distances.append(int(np.abs(crop(later, side)[2].astype(int) - crop(first, side)[2]).max()))
    assert distances[0] == 0
    assert sorted(distances) == distances
    assert len(set(distances)) > 3


# --- what lies over the tiles


def test_the_speakers_tile_has_a_border_and_the_others_none() -> None:
    tracks, pictures = people(4, speaking=1)
    stage = Stage()
    planes, _ = stage.show("grid", tracks, pictures)
    blue = yuv(SPEAKING)
    for id_, rect in stage.places.items():
        assert near(planes, rect.x + rect.width // 2, rect.y + 1, blue) == (id_ == "t1")
        assert near(planes, rect.x + 1, rect.y + rect.height // 2, blue) == (id_ == "t1")
    lone, _ = Stage().show("grid", (replace(tracks[1]),), pictures)
    assert not near(lone, 640, 1, blue)


def test_a_name_and_a_muted_sign_stand_at_the_lower_left() -> None:
    tracks, pictures = people(4)
    stage = Stage()
    named, _ = stage.show("grid", tracks, pictures)
    for change in ({"name": "Somebody Else"}, {"muted": True}):
        other, changed = stage.show("grid", (replace(tracks[0], **change), *tracks[1:]), pictures)
        rect = stage.places["t0"]
        differs = np.argwhere(named[0] != other[0])
        assert changed
        assert differs[:, 0].min() > rect.y + rect.height * 0.8
        assert differs[:, 1].max() < rect.x + rect.width * 0.5
        again, _ = stage.show("grid", tracks, pictures)
        assert same(named, again)


def test_corners_are_round_and_show_what_is_behind() -> None:
    tracks, pictures = people(4)
    for layout, theme in (("grid", DARK), ("grid-light", LIGHT)):
        stage = Stage()
        planes, _ = stage.show(layout, tracks, pictures)
        for rect in stage.places.values():
            assert near(planes, rect.x, rect.y, yuv(theme.background))
            assert near(planes, rect.x + rect.width - 1, rect.y + rect.height - 1, yuv(theme.background))
    plain, _ = Stage().show("pip", tracks[:1], pictures)
    stage = Stage()
    stage.show("pip", tracks[:2], pictures)
    over, _ = stage.show("pip", tracks[:2], {k: newer(p) for k, p in pictures.items()})
    rect = stage.places["t1"]
    assert int(over[0][rect.y, rect.x]) == pytest.approx(int(plain[0][rect.y, rect.x]), abs=3)


def test_an_overlay_stays_on_top_of_what_moves_below() -> None:
    tracks, pictures = people(2)
    stage = Stage()
    first, _ = stage.show("pip", tracks, pictures)
    moving, _ = stage.show("pip", tracks, {**pictures, "t0": newer(camera(640, 360, 4))})
    rect = middle(stage.places["t1"])
    assert same(crop(first, rect), crop(moving, rect))


def test_an_empty_stage_is_quiet() -> None:
    stage = Stage()
    (luma, _, _), changed = stage.show("grid", (), {})
    assert changed
    assert luma.mean() < 45
    assert not stage.show("grid", (), {})[1]
    tracks, pictures = people(1)
    assert stage.show("grid", tracks, pictures)[1]
    again, changed = stage.show("grid", (), {})
    assert changed
    assert np.array_equal(again[0], luma)


@pytest.mark.parametrize(("layout", "value"), [("single-speaker", 16), ("single-speaker-light", 235)])
def test_a_picture_with_the_frame_for_itself_has_nothing_around_it(layout: str, value: int) -> None:
    """livekit-surface 5.3 and 5.4: black, or white in a light layout, beside it and while it is not there."""
    stage = Stage()
    (luma, u, v), _ = stage.show(layout, (), {})
    assert (luma.min(), luma.max()) == (value, value)
    assert {*u.flat, *v.flat} == {128}
    upright = StageTrack("t", "p", "Anna", "camera", 360, 640)
    (luma, _, _), changed = stage.show(layout, (upright,), {"t": camera(360, 640, 1)})
    assert changed
    assert set(luma[:, :400].flat) == {value}
    assert luma[:, 640].std() > 5
    assert stage.show("grid", (), {})[1]


def test_cards_say_what_they_are_told() -> None:
    compositor = Compositor(1280, 720, 30)
    one, other = compositor.card("Paused"), compositor.card("Back in a minute")
    assert not np.array_equal(planes_of(one)[0], planes_of(other)[0])
    compositor.compose("grid-light", (), None, {}, 0.0)
    assert planes_of(compositor.card("Paused"))[0].mean() > 180


# --- changes of layout


def test_a_new_layout_shows_in_the_next_frame_and_is_there_soon() -> None:
    """Issue section 6: UpdateLayout visible ≤ 150 ms; here the first frame moves and the last is in place."""
    tracks, pictures = people(4)
    stage = Stage()
    grid, _ = stage.show("grid", tracks, pictures)
    stage.settle()
    target = Stage().show("speaker", tracks, pictures, "p1")[0]
    seen = [stage.show("speaker", tracks, pictures, "p1") for _ in range(round(DURATION_SEC * 30) + 2)]
    distances = [float(np.abs(planes[0].astype(int) - target[0]).mean()) for planes, _ in seen]
    assert not np.array_equal(seen[0][0][0], grid[0])
    assert distances[0] > distances[3] > 0
    assert same(seen[-1][0], target)
    assert seen[0][1]
    assert not seen[-1][1]


def test_a_layout_that_changes_in_mid_movement_goes_on_from_there() -> None:
    tracks, pictures = people(3)
    stage = Stage()
    stage.show("grid", tracks, pictures)
    stage.settle()
    stage.show("speaker", tracks, pictures)
    before, _ = stage.show("speaker", tracks, pictures)
    after, _ = stage.show("grid", tracks, pictures)
    jump = np.abs(before[0].astype(int) - after[0]).mean()
    cut = np.abs(before[0].astype(int) - Stage().show("grid", tracks, pictures)[0][0]).mean()
    assert jump < cut
    stage.settle()
    assert same(stage.show("grid", tracks, pictures)[0], Stage().show("grid", tracks, pictures)[0])


def test_people_who_leave_are_gone_in_the_next_frame() -> None:
    tracks, pictures = people(4)
    stage = Stage()
    stage.show("grid", tracks, pictures)
    stage.settle()
    stage.show("grid", tracks[:1], pictures)
    assert set(stage.places) == {"t0"}
    stage.settle()
    left, _ = stage.show("grid", tracks[:1], pictures)
    assert same(left, Stage().show("grid", tracks[:1], pictures)[0])


def test_the_tiles_in_sight_are_told_with_their_size() -> None:
    """Only visible tiles are subscribed, at the simulcast layer that fits."""
    tracks, pictures = people(60)
    stage = Stage()
    stage.show("grid", tracks, {id_: pictures[id_] for id_ in ("t0", "t1")})
    seen = stage.places
    assert len(seen) == 49
    assert len({(rect.width, rect.height) for rect in seen.values()}) == 1
    stage.show("grid", tracks, {}, "p58")
    assert "t58" in stage.places


def test_a_share_next_to_its_owners_camera_has_a_tile_of_its_own() -> None:
    tracks, pictures = people(2)
    share = StageTrack("s", "p0", tracks[0].name, "screen_share", 1280, 720)
    stage = Stage()
    stage.show("speaker", tracks, pictures)
    stage.settle()
    stage.show("speaker", (*tracks, share), {**pictures, "s": screen(1280, 720)})
    assert set(stage.places) == {"t0", "t1", "s"}
    rects = list(stage.places.values())
    assert rects[0].width > 4 * rects[1].width


def test_planes_of_a_frame_are_its_memory() -> None:
    frame = av.VideoFrame(64, 36, "yuv420p")
    planes: tuple[Plane, ...] = planes_of(frame)
    planes[0].fill(77)
    assert bytes(frame.planes[0])[0] == 77
