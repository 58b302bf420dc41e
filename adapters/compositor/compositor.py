"""Composes the pictures of a room's tracks into one frame, drawing again only what differs from the last one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import av

from adapters.compositor import drawing
from adapters.compositor.colours import DARK, LIGHT, SPEAKING, Yuv, yuv
from adapters.compositor.movement import Movement, appearance
from adapters.compositor.overlay import Border, Overlay, Patch, frame_patches, shape_patches
from adapters.compositor.picture import Picture, crop, fill, memory_of, new_frame, paste, planes_of
from adapters.compositor.scaling import Scaler
from server.domain.layout import Rect, StageTrack, Tile, arrange, base_layout, is_light

# With more tiles than this a change of layout is a cut: scaling them all to new sizes for every frame of the
# movement would cost more than a frame's time.
_MAX_MOVING = 25
_RADIUS_PARTS = 72
_BORDER_PARTS = 180
# A thin light line around a tile that lies over another one.
_EDGE = Border(2, (255, 255, 255), 0.28)

_Wanted = tuple[str, tuple[StageTrack, ...], str | None]


@dataclass(slots=True)
class _Actor:
    """A track on the canvas: its tile, how it gets there, and what of it was drawn last."""

    tile: Tile
    track: StageTrack
    movement: Movement
    scaler: Scaler = field(default_factory=Scaler)
    drawn: object = None
    avatar: Picture | None = None
    avatar_key: object = None
    dressed_key: object = None
    overlay: Overlay | None = None
    shape: Overlay | None = None

    def dress(self, key: object, overlay: Overlay, shape: Overlay | None) -> None:
        self.dressed_key, self.overlay, self.shape = key, overlay, shape


class Compositor:
    """One canvas of even `width` × `height`, composed again for every output frame by one thread.

    Every call returns the same frame, whose memory is the canvas: it is valid until the next call. An encoder takes
    its own copy while `encode` runs (libx264 and libvpx do), so encoding a frame before composing the next is safe,
    and only what changed has to be drawn.
    """

    def __init__(self, width: int, height: int, fps: int) -> None:
        self._width = width
        self._height = height
        self._frame_sec = 1 / fps
        self._frame = new_frame(width, height)
        self._canvas = planes_of(self._frame)
        self._memory, self._strides = memory_of(self._frame)
        self._radius = min(width, height) // _RADIUS_PARTS
        self._speaking = Border(max(2, min(width, height) // _BORDER_PARTS // 2 * 2), SPEAKING)
        self._actors: dict[str, _Actor] = {}
        self._wanted: _Wanted | None = None
        self._theme = DARK
        # One picture and nothing else: no stage around it, and plain black or white where it is not.
        self._alone = False
        self._moving = False

    def compose(
        self,
        layout: str,
        tracks: Sequence[StageTrack],
        speaker: str | None,
        pictures: Mapping[str, Picture],
        now: float,
    ) -> tuple[av.VideoFrame, bool]:
        """The frame at `now` seconds, and whether it differs from the last one.

        `tracks` come in the order to show them in (`StageOrder` keeps it stable). `pictures` holds the newest frame by track id; a track without one, or whose source is `avatar`, is shown by
        its initials.
        """
        wanted = (layout, tuple(tracks), speaker)
        renewed = wanted != self._wanted and self._rearrange(wanted, now)
        self._wanted = wanted
        if renewed or self._moving:
            self._moving = any(not actor.movement.is_over(now) for actor in self._actors.values())
            self._clear()
        drawn: list[Rect] = []
        for actor in self._actors.values():
            covered = actor.tile.z > 0 and any(_overlap(rect, actor.tile.rect) for rect in drawn)
            if self._draw(actor, pictures, now, again=covered):
                drawn.append(actor.tile.rect)
        return self._frame, renewed or bool(drawn)

    def card(self, text: str) -> av.VideoFrame:
        """The picture of a pause, in a frame of its own."""
        frame = new_frame(self._width, self._height)
        paste(planes_of(frame), drawing.card(text, self._width, self._height, self._theme))
        return frame

    def _rearrange(self, wanted: _Wanted, now: float) -> bool:
        """Take up what is wanted now; returns whether anything moved, came or went."""
        layout, tracks, speaker = wanted
        tiles = arrange(layout, tracks, speaker, self._width, self._height)
        alone = base_layout(layout) == "single-speaker"
        theme = LIGHT if is_light(layout) else DARK
        renewed = (
            self._wanted is None
            or theme is not self._theme
            or alone != self._alone
            or list(tiles) != [actor.tile for actor in self._actors.values()]
        )
        known = {track.id: track for track in tracks}
        cut = not self._actors or len(tiles) > _MAX_MOVING
        staying = {tile.track_id for tile in tiles}
        leaving = [actor for id_, actor in self._actors.items() if id_ not in staying]
        self._actors = {
            tile.track_id: self._cast(tile, known[tile.track_id], leaving, now, cut=cut) for tile in tiles
        }
        self._theme, self._alone = theme, alone
        return renewed

    def _cast(self, tile: Tile, track: StageTrack, leaving: list[_Actor], now: float, *, cut: bool) -> _Actor:
        """The actor for a tile: the one that played this track, or this person, before, else a new one."""
        actor = self._actors.get(tile.track_id) or _same_seat(leaving, track)
        # The first frame of a movement shows it already.
        began = now - self._frame_sec
        if actor is None:
            still = Movement(tile.rect, tile.rect, float("-inf"))
            return _Actor(tile, track, still if cut else appearance(tile.rect, began))
        if actor.tile.rect != tile.rect:
            actor.movement = Movement(tile.rect if cut else actor.movement.at(now), tile.rect, began)
        actor.tile, actor.track = tile, track
        return actor

    def _clear(self) -> None:
        if self._alone:
            fill(self._canvas, yuv(self._theme.plain))
        elif self._actors:
            fill(self._canvas, yuv(self._theme.background))
        else:
            paste(self._canvas, _empty_stage(self._width, self._height, self._theme))
        for actor in self._actors.values():
            actor.drawn = None

    def _draw(self, actor: _Actor, pictures: Mapping[str, Picture], now: float, *, again: bool) -> bool:
        """Draw a tile if it is to look different; returns whether it was drawn."""
        rect = actor.movement.at(now) if self._moving else actor.tile.rect
        picture = pictures.get(actor.tile.track_id) if actor.track.source != "avatar" else None
        if picture is None or min(picture.width, picture.height) < 2:
            picture = self._avatar(actor)
        cover = actor.tile.cover or picture is actor.avatar
        speaks = actor.track.speaking and actor.track.source != "screen_share" and len(self._actors) > 1
        dress = (rect, actor.tile, actor.track.name, actor.track.muted, speaks, self._theme)
        key = (picture.version, picture is actor.avatar, dress)
        if key == actor.drawn and not again:
            return False
        actor.drawn = key
        if dress != actor.dressed_key:
            self._dress(actor, rect, speaks=speaks, key=dress)
        if actor.shape is not None:
            actor.shape.lift(self._memory)
        actor.scaler.draw(picture, crop(self._canvas, rect), cover=cover, surround=self._surround(actor))
        if actor.overlay is not None:
            actor.overlay.blend(self._memory)
        if actor.shape is not None:
            actor.shape.blend(self._memory)
        return True

    def _surround(self, actor: _Actor) -> Yuv | None:
        if self._alone:
            return yuv(self._theme.plain)
        return None if actor.track.source == "camera" else yuv(self._theme.surface)

    def _avatar(self, actor: _Actor) -> Picture:
        """The picture of a camera that is off, made for the size of the tile, not for the sizes on the way there."""
        rect, track = actor.tile.rect, actor.track
        key = (track.name, track.identity, rect.width, rect.height, self._theme)
        if actor.avatar is None or key != actor.avatar_key:
            version = 0 if actor.avatar is None else actor.avatar.version + 1
            planes = drawing.avatar(track.name, track.identity, rect.width, rect.height, self._theme)
            actor.avatar, actor.avatar_key = Picture(rect.width, rect.height, planes, version), key
        return actor.avatar

    def _dress(self, actor: _Actor, rect: Rect, *, speaks: bool, key: object) -> None:
        """Make the name, border and corners of a tile for where it is now."""
        tile, track, over = actor.tile, actor.track, actor.tile.z > 0
        patches: list[Patch] = []
        shape = None
        if (rect.width, rect.height) != (self._width, self._height):
            border = self._speaking if speaks else _EDGE if over else None
            corner = None if over else self._theme.background
            patches += frame_patches(rect.width, rect.height, self._radius, corner, border)
            if over:
                shape = Overlay(shape_patches(rect.width, rect.height, self._radius), rect, self._strides)
        if tile.label:
            name = _label(track.name or track.identity, track.muted, tile.rect.width, tile.rect.height)
            patches += _anchored(name, tile.rect, rect)
        actor.dress(key, Overlay(patches, rect, self._strides), shape)


def _same_seat(leaving: list[_Actor], track: StageTrack) -> _Actor | None:
    """Take who stood there for the same person until their camera went on or off, which changes the track."""
    sharing = track.source == "screen_share"
    for index, actor in enumerate(leaving):
        if actor.track.identity == track.identity and (actor.track.source == "screen_share") == sharing:
            return leaving.pop(index)
    return None


def _anchored(patch: Patch | None, made_for: Rect, rect: Rect) -> list[Patch]:
    """The name at the lower left of a tile that is on its way and therefore of another size, if it fits there."""
    if patch is None:
        return []
    y = patch.y + rect.height - made_for.height
    return [replace(patch, y=y)] if y >= 0 and patch.x + patch.width <= rect.width else []


def _overlap(one: Rect, other: Rect) -> bool:
    across = one.x < other.x + other.width and other.x < one.x + one.width
    return across and one.y < other.y + other.height and other.y < one.y + one.height


@lru_cache(maxsize=64)
def _label(name: str, muted: bool, width: int, height: int) -> Patch | None:
    return drawing.label(name, muted, width, height)


_empty_stage = lru_cache(maxsize=2)(drawing.empty_stage)


def warm() -> None:
    """Load fonts and libraries and fill caches, so that a recorder's first frame does not wait for them."""
    track = StageTrack("", "", "Ab 1", "camera", muted=True)
    Compositor(320, 180, 30).compose("grid", (track, replace(track, id="2", speaking=True)), None, {}, 0.0)
