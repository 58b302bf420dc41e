from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st

from adapters.compositor.scaling import fit

SIDES = st.integers(2, 2160)
TILES = st.integers(1, 960).map(lambda half: 2 * half)


@given(SIDES, SIDES, TILES, TILES)
def test_cover_fills_the_tile_from_within_the_picture(
    width: int, height: int, across: int, down: int
) -> None:
    placed = fit(width, height, across, down, cover=True)
    source, target = placed.source, placed.target
    assert (target.x, target.y, target.width, target.height) == (0, 0, across, down)
    assert source.width >= 2
    assert source.height >= 2
    assert 0 <= source.x <= source.x + source.width <= width
    assert 0 <= source.y <= source.y + source.height <= height
    assert all(value % 2 == 0 for value in (source.x, source.y, source.width, source.height))


@given(SIDES, SIDES, TILES, TILES)
def test_contain_shows_the_whole_picture_inside_the_tile(
    width: int, height: int, across: int, down: int
) -> None:
    placed = fit(width, height, across, down, cover=False)
    source, target = placed.source, placed.target
    assert (source.width, source.height) == (width // 2 * 2, height // 2 * 2)
    assert 0 <= target.x <= target.x + target.width <= across
    assert 0 <= target.y <= target.y + target.height <= down
    assert target.width >= across - 1 or target.height >= down - 1
    assert all(value % 2 == 0 for value in (target.x, target.y, target.width, target.height))


@given(st.integers(100, 2160), st.integers(100, 2160), TILES, TILES, st.booleans())
def test_nothing_is_stretched(width: int, height: int, across: int, down: int, cover: bool) -> None:
    assume(min(across, down) >= 64)
    placed = fit(width, height, across, down, cover=cover)
    assume(min(placed.source.width, placed.source.height, placed.target.width, placed.target.height) >= 64)
    horizontal = placed.target.width / placed.source.width
    vertical = placed.target.height / placed.source.height
    assert abs(horizontal / vertical - 1) < 0.05


def test_a_camera_a_little_larger_than_its_tile_is_copied() -> None:
    """A quarter of 1280×720 is a few pixels less than 640×360 because of the gaps."""
    assert fit(640, 360, 628, 348, cover=True).copies
    assert fit(640, 360, 640, 360, cover=True).copies
    assert fit(640, 360, 640, 360, cover=False).copies
    assert not fit(640, 360, 560, 320, cover=True).copies
    assert not fit(640, 360, 648, 364, cover=True).copies
