"""Where everything stands in a composed picture: pure functions from who can be shown to rectangles on a canvas.

The rules follow LiveKit's default template (livekit-surface section 5.3) and EG-14 … EG-17, which also adds `pip`
and `default`: `grid` shares the canvas evenly; `speaker` gives one tile the stage and the others a row at the
bottom; `single-speaker` shows that one tile alone; `pip` lays one tile over a corner of another; `default` is
`speaker` for a call and `grid` for a conference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, isqrt

LAYOUTS = ("grid", "speaker", "single-speaker", "pip", "default")
MAX_GRID_TILES = 49
# `default` takes as many people as this for a call (B-39).
MAX_CALL_PEOPLE = 4

_LIGHT = "-light"
_DARK = "-dark"
# The gap between tiles, and around them, is this part of the canvas's shorter side: 8 pixels of 720, LiveKit's.
_GAP_PARTS = 90
# Thumbnails are 16:9, and so many fill the row under the stage.
_ROW_LANDSCAPE = 6
_ROW_PORTRAIT = 4
_MAX_THUMBNAIL_PARTS = 4
_OVERLAY_PARTS = 4
_OVERLAY_MARGIN_PARTS = 30

_Seat = tuple[str, bool, int]


@dataclass(frozen=True, slots=True)
class Rect:
    """Pixels on the canvas, from the top left; all four are even, as 4:2:0 pictures need."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class StageTrack:
    """One thing that can be shown. `source`: `camera`, `screen_share`, or `avatar` for a camera that is off.

    `width` and `height` are of its picture, 0 while unknown. `muted` is about the microphone.
    """

    id: str
    identity: str
    name: str
    source: str
    width: int = 0
    height: int = 0
    muted: bool = False
    speaking: bool = False


@dataclass(frozen=True, slots=True)
class Tile:
    """A track's place. `cover` crops the picture to fill the rectangle, else it is fitted inside; higher `z` is on top."""

    track_id: str
    rect: Rect
    cover: bool
    label: bool
    z: int = 0


def is_light(layout: str) -> bool:
    """Whether the layout's theme is light; dark is the default."""
    return layout.endswith(_LIGHT)


def base_layout(layout: str) -> str:
    """The layout without its theme; an unknown or empty one is `grid`, as in LiveKit."""
    name = layout.removesuffix(_LIGHT).removesuffix(_DARK)
    return name if name in LAYOUTS else "grid"


def resolve(layout: str, tracks: Sequence[StageTrack]) -> str:
    """The geometry in use: what `default` stands for now, and `speaker` for a grid with a screen share."""
    name = base_layout(layout)
    if name in ("grid", "default") and any(track.source == "screen_share" for track in tracks):
        return "speaker"
    if name == "default":
        return "speaker" if len({track.identity for track in tracks}) <= MAX_CALL_PEOPLE else "grid"
    return name


def arrange(
    layout: str, tracks: Sequence[StageTrack], speaker: str | None, width: int, height: int
) -> tuple[Tile, ...]:
    """The tiles of a `width` × `height` canvas, in drawing order.

    `tracks` come in the order they are to be shown in, `speaker` is the active speaker's identity. Tracks for which
    there is no room have no tile: screen shares, the speaker and cameras are kept before the others.
    """
    if not tracks:
        return ()
    name = resolve(layout, tracks)
    if name == "grid":
        return _grid(tracks, speaker, width, height)
    if name == "pip":
        return _pip(tracks, speaker, width, height)
    stage = stage_track(tracks, speaker)
    if name == "single-speaker" or len(tracks) == 1:
        return (_tile(stage, _canvas(width, height), label=name != "single-speaker"),)
    return _speaker(stage, tracks, speaker, width, height)


def stage_track(tracks: Sequence[StageTrack], speaker: str | None) -> StageTrack:
    """Who has the stage: the first screen share, else the speaker, else the first camera, else the first of all."""
    return min(tracks, key=lambda track: _rank(track, speaker))


def page(tracks: Sequence[StageTrack], speaker: str | None, size: int) -> tuple[StageTrack, ...]:
    """The first page of `tracks`: at most `size`, the more important ones kept, all in their order."""
    if len(tracks) <= size:
        return tuple(tracks)
    by_rank = sorted(range(len(tracks)), key=lambda index: _rank(tracks[index], speaker))
    return tuple(tracks[index] for index in sorted(by_rank[:size]))


def page_size(layout: str, tracks: Sequence[StageTrack], width: int, height: int) -> int:
    """How many tracks have a tile at once."""
    name = resolve(layout, tracks)
    if name == "grid":
        return MAX_GRID_TILES
    if name == "pip":
        return 2
    return 1 if name == "single-speaker" else 1 + _row_length(width, height)


def _rank(track: StageTrack, speaker: str | None) -> int:
    if track.source == "screen_share":
        return 0
    if speaker is not None and track.identity == speaker:
        return 1
    return 2 if track.source == "camera" else 3


def _tile(track: StageTrack, rect: Rect, *, label: bool = True, z: int = 0) -> Tile:
    """Portrait cameras and screen shares are fitted, so that nothing of them is lost; the others fill their tile."""
    cover = track.source != "screen_share" and track.width >= track.height
    return Tile(track.id, rect, cover, label, z)


def _even(length: float) -> int:
    return int(length) // 2 * 2


def _canvas(width: int, height: int) -> Rect:
    return Rect(0, 0, _even(width), _even(height))


def _gap(width: int, height: int) -> int:
    return _even(min(width, height) / _GAP_PARTS)


def grid_size(count: int, width: int, height: int) -> tuple[int, int]:
    """Columns and rows for `count` tiles: 1 → 1×1, 2 → 2×1, 3–4 → 2×2, 5–6 → 3×2, 7–9 → 3×3 …; turned for portrait."""
    longer = isqrt(count - 1) + 1
    shorter = ceil(count / longer)
    return (longer, shorter) if width >= height else (shorter, longer)


def _grid(tracks: Sequence[StageTrack], speaker: str | None, width: int, height: int) -> tuple[Tile, ...]:
    shown = page(tracks, speaker, MAX_GRID_TILES)
    columns, rows = grid_size(len(shown), width, height)
    gap = _gap(width, height)
    if len(shown) == 1:
        return (_tile(shown[0], _canvas(width, height)),)
    tile_width = max(2, _even((width - (columns + 1) * gap) / columns))
    tile_height = max(2, _even((height - (rows + 1) * gap) / rows))
    top = _even((height - rows * tile_height - (rows - 1) * gap) / 2)
    tiles: list[Tile] = []
    for row in range(rows):
        in_row = shown[row * columns : (row + 1) * columns]
        left = _even((width - len(in_row) * tile_width - (len(in_row) - 1) * gap) / 2)
        y = top + row * (tile_height + gap)
        for column, track in enumerate(in_row):
            rect = Rect(left + column * (tile_width + gap), y, tile_width, tile_height)
            tiles.append(_tile(track, rect))
    return tuple(tiles)


def _row_length(width: int, height: int) -> int:
    return _ROW_LANDSCAPE if width > height else _ROW_PORTRAIT


def _speaker(
    stage: StageTrack, tracks: Sequence[StageTrack], speaker: str | None, width: int, height: int
) -> tuple[Tile, ...]:
    others = [track for track in tracks if track.id != stage.id]
    row = page(others, speaker, _row_length(width, height))
    gap = _gap(width, height)
    length = _row_length(width, height)
    thumb_width = max(2, _even((width - (length + 1) * gap) / length))
    thumb_height = max(2, min(_even(thumb_width * 9 / 16), _even(height / _MAX_THUMBNAIL_PARTS)))
    top = _even(height) - gap - thumb_height
    left = _even((width - len(row) * thumb_width - (len(row) - 1) * gap) / 2)
    main = _tile(
        stage, Rect(gap, gap, _even(width) - 2 * gap, top - 2 * gap), label=stage.source != "screen_share"
    )
    thumbs = (
        _tile(track, Rect(left + index * (thumb_width + gap), top, thumb_width, thumb_height))
        for index, track in enumerate(row)
    )
    return (main, *thumbs)


def _pip(tracks: Sequence[StageTrack], speaker: str | None, width: int, height: int) -> tuple[Tile, ...]:
    """EG-16: a screen share, or whoever is first with a camera, fills the frame; the speaker is in the corner."""
    content = stage_track(tracks, None)
    others = [track for track in tracks if track.id != content.id]
    full = _tile(content, _canvas(width, height), label=content.source != "screen_share")
    if not others:
        return (full,)
    over_width = max(2, _even(max(width / _OVERLAY_PARTS, height / _OVERLAY_PARTS)))
    over_width = min(over_width, _even(width / 2))
    over_height = max(2, _even(min(over_width * 9 / 16, height / 2)))
    margin = _even(min(width, height) / _OVERLAY_MARGIN_PARTS)
    corner = Rect(
        _even(width) - over_width - margin, _even(height) - over_height - margin, over_width, over_height
    )
    overlay = stage_track([t for t in others if t.source != "screen_share"] or others, speaker)
    return (full, _tile(overlay, corner, z=1))


class StageOrder:
    """Keeps the order in which tracks are shown visually stable: when somebody has to be seen, two change places.

    As in LiveKit's template: a new speaker takes the stage and the last one their thumbnail, and whoever is not on
    the first page takes the place of one who is less important, while everybody else stays where they were.
    """

    def __init__(self) -> None:
        self._seats: list[_Seat] = []
        self._name = ""

    def update(
        self, layout: str, tracks: Sequence[StageTrack], speaker: str | None, width: int, height: int
    ) -> tuple[StageTrack, ...]:
        """`tracks` in the order to `arrange` them in; they come in the order of joining."""
        name = resolve(layout, tracks)
        if name != self._name:
            self._name, self._seats = name, []
        at = _seats(tracks)
        staying = [seat for seat in self._seats if seat in at]
        order = staying + [seat for seat in at if seat not in set(staying)]
        if order and name in ("speaker", "single-speaker"):
            stage = stage_track([at[seat] for seat in order], speaker)
            index = next(index for index, seat in enumerate(order) if at[seat] is stage)
            if index < len(staying):
                _swap(order, 0, index)
            else:
                order.insert(0, order.pop(index))
        self._turn_to_first_page(order, at, speaker, page_size(layout, tracks, width, height))
        self._seats = order
        return tuple(at[seat] for seat in order)

    @staticmethod
    def _turn_to_first_page(
        order: list[_Seat], at: Mapping[_Seat, StageTrack], speaker: str | None, size: int
    ) -> None:
        shown = {track.id for track in page([at[seat] for seat in order], speaker, size)}
        leaving = [index for index in range(min(size, len(order))) if at[order[index]].id not in shown]
        coming = [index for index in range(size, len(order)) if at[order[index]].id in shown]
        for out, back in zip(leaving, coming, strict=True):
            _swap(order, out, back)


def _seats(tracks: Sequence[StageTrack]) -> dict[_Seat, StageTrack]:
    """Tracks by what stays the same when a camera goes on or off: the person, and which of their pictures it is."""
    at: dict[_Seat, StageTrack] = {}
    for track in tracks:
        sharing = track.source == "screen_share"
        number = 0
        while (track.identity, sharing, number) in at:
            number += 1
        at[track.identity, sharing, number] = track
    return at


def _swap(order: list[_Seat], one: int, other: int) -> None:
    order[one], order[other] = order[other], order[one]
