from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.domain.layout import (
    LAYOUTS,
    MAX_GRID_TILES,
    Rect,
    StageOrder,
    StageTrack,
    Tile,
    arrange,
    base_layout,
    is_light,
    resolve,
)

CANVASES = st.tuples(st.integers(160, 3840), st.integers(90, 2160)) | st.sampled_from(
    [(1280, 720), (720, 1280), (640, 360), (641, 361), (1080, 1080), (3840, 2160)]
)


def cameras(count: int, **more: object) -> list[StageTrack]:
    return [
        StageTrack(f"t{index}", f"p{index}", f"Person {index}", "camera", 640, 360, **more)  # type: ignore[arg-type]
        for index in range(count)
    ]


def share(identity: str = "p0", id_: str = "share") -> StageTrack:
    return StageTrack(id_, identity, "Somebody", "screen_share", 1920, 1080)


def avatar(index: int) -> StageTrack:
    return StageTrack(f"a{index}", f"p{index}", f"Person {index}", "avatar")


def area(rect: Rect) -> int:
    return rect.width * rect.height


def overlap(one: Rect, other: Rect) -> bool:
    across = one.x < other.x + other.width and other.x < one.x + one.width
    return across and one.y < other.y + other.height and other.y < one.y + one.height


def shapes(tiles: tuple[Tile, ...]) -> tuple[int, int]:
    """How many columns and rows the tiles stand in, counting the fullest."""
    rows: dict[int, int] = {}
    for tile in tiles:
        rows[tile.rect.y] = rows.get(tile.rect.y, 0) + 1
    return max(rows.values()), len(rows)


@given(st.integers(1, 60), CANVASES, st.sampled_from(LAYOUTS), st.booleans(), st.booleans())
def test_every_layout_is_inside_even_and_free_of_overlap(
    count: int, canvas: tuple[int, int], layout: str, sharing: bool, speaking: bool
) -> None:
    """EG-14, EG-15, EG-16, EG-17: whatever the number, the canvas and the layout."""
    width, height = canvas
    tracks = [*cameras(count), share()] if sharing else cameras(count)
    tiles = arrange(layout, tracks, f"p{count - 1}" if speaking else None, width, height)
    assert len({tile.track_id for tile in tiles}) == len(tiles)
    for tile in tiles:
        rect = tile.rect
        assert all(value % 2 == 0 for value in (rect.x, rect.y, rect.width, rect.height))
        assert rect.width >= 2
        assert rect.height >= 2
        assert 0 <= rect.x <= rect.x + rect.width <= width
        assert 0 <= rect.y <= rect.y + rect.height <= height
    flat = [tile.rect for tile in tiles if tile.z == 0]
    assert not any(overlap(one, other) for index, one in enumerate(flat) for other in flat[index + 1 :])


@given(st.integers(1, 60), CANVASES)
def test_grid_tiles_are_equal_and_shown_in_order(count: int, canvas: tuple[int, int]) -> None:
    """EG-14: equal tiles, left to right and top to bottom, as many as 7 × 7."""
    tiles = arrange("grid", cameras(count), None, *canvas)
    assert [tile.track_id for tile in tiles] == [f"t{index}" for index in range(min(count, MAX_GRID_TILES))]
    assert len({(tile.rect.width, tile.rect.height) for tile in tiles}) == 1
    places = [(tile.rect.y, tile.rect.x) for tile in tiles]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("count", "shape"),
    [(1, (1, 1)), (2, (2, 1)), (3, (2, 2)), (4, (2, 2)), (5, (3, 2)), (7, (3, 3)), (9, (3, 3)),
     (10, (4, 3)), (16, (4, 4)), (17, (5, 4)), (25, (5, 5)), (36, (6, 6)), (49, (7, 7)), (50, (7, 7))],
)  # fmt: skip
def test_grid_grows_with_the_room(count: int, shape: tuple[int, int]) -> None:
    """EG-14: 2x2, 3x3 … by the number of participants; turned on a portrait canvas."""
    assert shapes(arrange("grid", cameras(count), None, 1280, 720)) == shape
    assert shapes(arrange("grid", cameras(count), None, 720, 1280)) == shape[::-1]


def test_a_grid_on_a_portrait_canvas_has_no_more_columns_than_rows() -> None:
    for count in range(1, 50):
        columns, rows = shapes(arrange("grid", cameras(count), None, 720, 1280))
        assert columns <= rows


@given(st.integers(2, 49), CANVASES)
def test_the_last_row_of_a_grid_is_centred(count: int, canvas: tuple[int, int]) -> None:
    tiles = arrange("grid", cameras(count), None, *canvas)
    last = [tile.rect for tile in tiles if tile.rect.y == tiles[-1].rect.y]
    left, right = last[0].x, canvas[0] - last[-1].x - last[-1].width
    assert abs(left - right) <= 3


def test_a_lone_track_fills_the_canvas_in_every_layout() -> None:
    for layout in LAYOUTS:
        (tile,) = arrange(layout, cameras(1), None, 1280, 720)
        assert tile.rect == Rect(0, 0, 1280, 720)


def test_nobody_there_leaves_the_canvas_empty() -> None:
    assert all(arrange(layout, [], None, 1280, 720) == () for layout in LAYOUTS)


@pytest.mark.parametrize("canvas", [(1280, 720), (1920, 1080), (640, 360), (720, 1280)])
def test_speaker_has_one_large_tile_and_a_row_at_the_bottom(canvas: tuple[int, int]) -> None:
    """EG-15: the active speaker gets the main area, the others small thumbnails at the bottom."""
    width, height = canvas
    large, *thumbs = arrange("speaker", cameras(4), "p2", width, height)
    assert large.track_id == "t2"
    assert [tile.track_id for tile in thumbs] == ["t0", "t1", "t3"]
    assert len({tile.rect.y for tile in thumbs}) == 1
    assert all(tile.rect.y >= large.rect.y + large.rect.height for tile in thumbs)
    assert all(area(large.rect) > 8 * area(tile.rect) for tile in thumbs)
    assert area(large.rect) > 0.6 * width * height


def test_speaker_without_a_speaker_shows_the_first_camera() -> None:
    tracks = [avatar(7), *cameras(2)]
    assert arrange("speaker", tracks, None, 1280, 720)[0].track_id == "t0"
    assert arrange("speaker", tracks, "gone", 1280, 720)[0].track_id == "t0"
    assert arrange("speaker", [avatar(7), avatar(8)], None, 1280, 720)[0].track_id == "a7"


def test_a_screen_share_has_the_stage_before_the_speaker() -> None:
    """livekit-surface 5.3: a grid with a screen share renders as speaker."""
    for layout in ("grid", "grid-light", "speaker", "default", ""):
        tiles = arrange(layout, [*cameras(3), share()], "p1", 1280, 720)
        assert tiles[0].track_id == "share"
        assert not tiles[0].cover
        assert not tiles[0].label
        assert len({tile.rect.y for tile in tiles[1:]}) == 1


def test_thumbnails_of_a_full_row_keep_those_who_matter() -> None:
    tiles = arrange("speaker", [share(), *cameras(20)], "p19", 1280, 720)
    assert [tile.track_id for tile in tiles] == ["share", "t0", "t1", "t2", "t3", "t4", "t19"]


def test_single_speaker_shows_that_one_alone_and_without_a_name() -> None:
    (tile,) = arrange("single-speaker", cameras(5), "p3", 1280, 720)
    assert (tile.track_id, tile.rect, tile.label) == ("t3", Rect(0, 0, 1280, 720), False)


def test_pip_lays_the_speaker_over_a_corner_of_the_content() -> None:
    """EG-16: screen share or primary content full frame, the speaker in a small corner overlay."""
    full, small = arrange("pip", [*cameras(3), share()], "p2", 1280, 720)
    assert (full.track_id, full.rect, full.z) == ("share", Rect(0, 0, 1280, 720), 0)
    assert (small.track_id, small.z) == ("t2", 1)
    assert area(small.rect) <= 1280 * 720 / 12
    assert small.rect.x > 640
    assert small.rect.y > 360
    full, small = arrange("pip", cameras(3), "p2", 1280, 720)
    assert (full.track_id, small.track_id) == ("t0", "t2")
    full, small = arrange("pip", cameras(3), "p0", 1280, 720)
    assert (full.track_id, small.track_id) == ("t0", "t1")


def test_default_is_speaker_for_a_call_and_grid_for_a_conference() -> None:
    """EG-17, B-39: up to four people, or a screen share, are a call."""
    assert resolve("default", cameras(4)) == "speaker"
    assert resolve("default", cameras(5)) == "grid"
    assert resolve("default", [*cameras(5), share()]) == "speaker"
    assert arrange("default", cameras(3), "p1", 1280, 720) == arrange("speaker", cameras(3), "p1", 1280, 720)
    assert arrange("default", cameras(6), "p1", 1280, 720) == arrange("grid", cameras(6), "p1", 1280, 720)


def test_names_have_themes_and_unknown_ones_are_grid() -> None:
    """EG-18, livekit-surface 5.3."""
    assert [base_layout(name) for name in ("", "mosaic", "speaker-light", "single-speaker-dark", "pip")] == [
        "grid",
        "grid",
        "speaker",
        "single-speaker",
        "pip",
    ]
    assert [is_light(name) for name in ("grid", "grid-dark", "grid-light")] == [False, False, True]


def test_only_landscape_cameras_are_cropped() -> None:
    """livekit-surface 5.3: portrait cameras and screen shares are fitted."""
    upright = StageTrack("up", "p8", "", "camera", 360, 640)
    unknown = StageTrack("new", "p9", "", "camera")
    tiles = {
        tile.track_id: tile for tile in arrange("grid", [*cameras(1), upright, unknown], None, 1280, 720)
    }
    assert [tiles[id_].cover for id_ in ("t0", "up", "new")] == [True, False, True]


def test_a_full_grid_shows_the_speaker_and_cameras_before_the_others() -> None:
    tracks = [*(avatar(index) for index in range(100, 140)), *cameras(30)]
    shown = [tile.track_id for tile in arrange("grid", tracks, "p139", 1280, 720)]
    assert len(shown) == MAX_GRID_TILES
    assert {f"t{index}" for index in range(30)} <= set(shown)
    assert "a139" in shown


# --- the order over time


def order(stage: StageOrder, layout: str, tracks: list[StageTrack], speaker: str | None) -> list[str]:
    return [track.id for track in stage.update(layout, tracks, speaker, 1280, 720)]


def test_a_new_speaker_changes_places_with_the_last_one() -> None:
    stage = StageOrder()
    assert order(stage, "speaker", cameras(4), None) == ["t0", "t1", "t2", "t3"]
    assert order(stage, "speaker", cameras(4), "p2") == ["t2", "t1", "t0", "t3"]
    assert order(stage, "speaker", cameras(4), "p3") == ["t3", "t1", "t0", "t2"]
    assert order(stage, "speaker", cameras(4), "p3") == ["t3", "t1", "t0", "t2"]


def test_a_screen_share_takes_the_stage_and_pushes_nobody_to_the_end() -> None:
    stage = StageOrder()
    order(stage, "speaker", cameras(3), "p0")
    assert order(stage, "speaker", [*cameras(3), share()], "p0") == ["share", "t0", "t1", "t2"]
    assert order(stage, "speaker", cameras(3), "p0") == ["t0", "t1", "t2"]


def test_a_speaker_from_the_second_page_takes_one_place_and_keeps_it() -> None:
    stage = StageOrder()
    first = order(stage, "grid", cameras(60), None)
    second = order(stage, "grid", cameras(60), "p55")
    assert [index for index in range(60) if first[index] != second[index]] == [48, 55]
    assert order(stage, "grid", cameras(60), "p3") == second


def test_turning_a_camera_off_leaves_the_place() -> None:
    stage = StageOrder()
    order(stage, "grid", cameras(3), None)
    off = [cameras(3)[0], cameras(3)[2], StageTrack("off-1", "p1", "Person 1", "avatar")]
    assert order(stage, "grid", off, None) == ["t0", "off-1", "t2"]


@given(
    st.lists(st.tuples(st.sets(st.integers(0, 60), min_size=1), st.integers(0, 60)), min_size=2, max_size=6)
)
def test_people_come_and_go_and_nobody_is_lost_or_doubled(steps: list[tuple[set[int], int]]) -> None:
    stage = StageOrder()
    everybody = cameras(61)
    for there, speaker in steps:
        tracks = [everybody[index] for index in sorted(there)]
        ordered = stage.update("grid", tracks, f"p{speaker}", 1280, 720)
        assert sorted(track.id for track in ordered) == sorted(track.id for track in tracks)
        if speaker in there:
            assert f"t{speaker}" in {
                tile.track_id for tile in arrange("grid", ordered, f"p{speaker}", 1280, 720)
            }


def test_the_same_room_never_moves() -> None:
    stage = StageOrder()
    seen = [order(stage, "grid", cameras(55), "p54") for _ in range(3)]
    assert all(one == other for one, other in pairwise(seen))
