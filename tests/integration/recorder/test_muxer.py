"""Finishing: whole and torn parts become one file that plays through, in step, with its index in front."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import pytest

from adapters.recorder.muxer import Muxer
from adapters.recorder.program import Program
from server.domain.egress import AudioEncoding, Encoding
from tests.integration.recorder.material import (
    FPS,
    SMALL,
    VIDEO,
    Feeder,
    Look,
    Reports,
    packets,
    picture,
    plan_into,
)

WEBM = Encoding(replace(VIDEO, codec="vp9"), AudioEncoding("opus", 96, 48_000))
OGG = Encoding(None, AudioEncoding("opus", 96, 48_000))
MP3 = Encoding(None, AudioEncoding("mp3", 128, 44_100))
CUTS = 24


def record(folder: Path, part: int, frames: int, container: str = "mp4", encoding: Encoding = SMALL) -> Path:
    program = Program(plan_into(folder, encoding, part=part, container=container), Reports())
    Feeder(program, video=encoding.video is not None, audio=encoding.audio is not None).feed(frames)
    program.finish()
    return folder / f"part-{part:03d}.{container}"


def atoms(path: Path) -> list[str]:
    data, at, found = path.read_bytes(), 0, []
    while at < len(data):
        found.append(data[at + 4 : at + 8].decode())
        at += int.from_bytes(data[at : at + 4], "big")
    return found


def in_step_after(look: Look, join: float) -> bool:
    """Whether the part that begins at `join` beeps for 0.1 s at its start and a second later, and not between."""
    return (
        look.loudness(join + 0.02, join + 0.08) > 0.3
        and look.loudness(join + 0.13, join + 0.98) < 0.1
        and look.loudness(join + 1.0, join + 1.02) > 0.3
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five seconds."""
    return record(tmp_path_factory.mktemp("whole"), 0, 5 * FPS)


@pytest.fixture(scope="module")
def whole_webm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("webm"), 0, 5 * FPS, "webm", WEBM)


async def test_one_part_becomes_a_file_that_starts_at_once(whole: Path, tmp_path: Path) -> None:
    """Design 7: the index stands before the media; every frame is there at its time, with its colours named."""
    target = tmp_path / "deep" / "out.mp4"
    finished = await Muxer().finish([whole], target, "mp4")
    assert finished.duration_ms == 5000
    assert [(join.index, join.at_ms, join.duration_ms) for join in finished.joins] == [(0, 0, 5000)]
    order = atoms(target)
    assert order.index("moov") < order.index("mdat")
    assert "moof" not in order
    look = Look.at(target)
    assert look.numbers == list(range(5 * FPS))
    assert look.times == [pytest.approx(number / FPS, abs=1e-4) for number in range(5 * FPS)]
    assert look.container_sec == pytest.approx(5.0, abs=0.03)
    assert look.audio_sec == pytest.approx(5.0, abs=0.03)
    assert look.video["colour"] == (1, 1, 1, 1)
    assert look.video["rate"] == FPS
    assert [round(flash) for flash in look.flashes] == [0, 1, 2, 3, 4]
    assert all(abs(offset) < 0.02 for offset in look.offsets())
    assert list(target.parent.iterdir()) == [target]


async def test_parts_join_without_a_seam(tmp_path: Path) -> None:
    """Design 7: each part's picture and sound begin together where the last one's ended; the rate never changes."""
    parts = [record(tmp_path, number, frames) for number, frames in enumerate((47, 100, 61))]
    finished = await Muxer().finish(parts, tmp_path / "out.mp4", "mp4")
    assert finished.duration_ms == round(208 * 1000 / FPS)
    assert [(join.index, join.at_ms) for join in finished.joins] == [(0, 0), (1, 1567), (2, 4900)]
    look = Look.at(tmp_path / "out.mp4")
    assert look.numbers == [*range(47), *range(100), *range(61)]
    assert look.steps() == {33, 34} or look.steps() == {33}
    assert len(look.offsets()) == 2 + 4 + 3
    assert all(abs(offset) < 0.02 for offset in look.offsets())
    assert look.audio_sec == pytest.approx(208 / FPS, abs=0.03)
    decoding = [dts for _, dts, _ in packets(tmp_path / "out.mp4", "video")]
    assert {b - a for a, b in itertools.pairwise(decoding)} == {decoding[1] - decoding[0]}
    sounds = [dts for _, dts, _ in packets(tmp_path / "out.mp4", "audio")]
    assert all(b > a for a, b in itertools.pairwise(sounds))


@pytest.mark.parametrize("seed", range(CUTS))
async def test_a_part_torn_anywhere_is_used_up_to_there(whole: Path, tmp_path: Path, seed: int) -> None:
    """Design 7: at most 2 s before the tear are lost; what is left plays through, and the next part follows in step."""
    data = whole.read_bytes()
    chance = random.Random(seed)
    cut = chance.randrange(len(data))
    torn = tmp_path / "part-000.mp4"
    torn.write_bytes(data[:cut] if seed % 3 else data[:cut] + bytes(4096))
    if seed % 3 == 0 and cut + 4096 > len(data):
        torn.write_bytes(data[:cut])
    following = record(tmp_path, 1, 40)
    finished = await Muxer().finish([torn, following], tmp_path / "out.mp4", "mp4")
    look = Look.at(tmp_path / "out.mp4")
    kept = len(look.numbers) - 40
    assert look.numbers == [*range(kept), *range(40)]
    assert kept >= 5 * FPS * cut / len(data) - 2 * FPS
    assert look.steps() <= {33, 34}
    assert finished.duration_ms == pytest.approx(len(look.numbers) * 1000 / FPS, abs=1)
    assert [join.index for join in finished.joins] == ([0, 1] if kept else [1])
    assert finished.joins[-1].at_ms == round(kept * 1000 / FPS)
    assert in_step_after(look, kept / FPS)


@pytest.mark.parametrize("seed", range(8))
async def test_a_torn_webm_is_used_up_to_there(whole_webm: Path, tmp_path: Path, seed: int) -> None:
    data = whole_webm.read_bytes()
    cut = random.Random(seed).randrange(len(data))
    torn = tmp_path / "part-000.webm"
    torn.write_bytes(data[:cut])
    following = record(tmp_path, 1, 40, "webm", WEBM)
    finished = await Muxer().finish([torn, following], tmp_path / "out.webm", "webm")
    look = Look.at(tmp_path / "out.webm")
    kept = len(look.numbers) - 40
    assert look.numbers == [*range(kept), *range(40)]
    assert kept >= 5 * FPS * cut / len(data) - 2 * FPS
    assert look.steps() <= {33, 34}
    assert finished.duration_ms == pytest.approx(len(look.numbers) * 1000 / FPS, abs=1)
    assert in_step_after(look, kept / FPS)


async def test_webm_is_seekable_at_once(whole_webm: Path, tmp_path: Path) -> None:
    """Design 7: a finished WebM has its duration, and its cues before the first cluster."""
    await Muxer().finish([whole_webm], tmp_path / "out.webm", "webm")
    data = (tmp_path / "out.webm").read_bytes()
    assert 0 < data.index(b"\x1c\x53\xbb\x6b") < data.index(b"\x1f\x43\xb6\x75")
    look = Look.at(tmp_path / "out.webm")
    assert look.numbers == list(range(5 * FPS))
    assert look.container_sec == pytest.approx(5.0, abs=0.03)
    assert (look.video["codec"], look.audio["codec"]) == ("libvpx-vp9", "opus") or look.video[
        "codec"
    ] == "vp9"
    assert look.video["colour"] == (1, 1, 1, 1)


@pytest.mark.parametrize(
    ("container", "encoding"), [("ogg", OGG), ("mp3", MP3), ("mp4", replace(SMALL, video=None))]
)
async def test_sound_alone_is_joined_torn_or_not(tmp_path: Path, container: str, encoding: Encoding) -> None:
    """EG-07: OGG, MP3 and MP4 of sound only."""
    first, second = (record(tmp_path, part, 90, container, encoding) for part in range(2))
    await Muxer().finish([first, second], tmp_path / f"whole.{container}", container)
    look = Look.at(tmp_path / f"whole.{container}")
    assert look.audio_sec == pytest.approx(6.0, abs=0.1)
    assert len(look.beeps) == 6
    data = first.read_bytes()
    first.write_bytes(data[: len(data) * 2 // 3 + 11])
    finished = await Muxer().finish([first, second], tmp_path / f"torn.{container}", container)
    look = Look.at(tmp_path / f"torn.{container}")
    assert 3.0 + 3.0 * 2 / 3 - 1.2 < look.audio_sec < 5.3
    assert finished.duration_ms == pytest.approx(look.audio_sec * 1000, abs=60)
    at = finished.joins[1].at_ms / 1000
    assert [beep for beep in look.beeps if at - 0.01 <= beep < at + 2.5] == [
        pytest.approx(at + second, abs=0.06) for second in range(3)
    ]


async def test_a_track_keeps_its_uneven_times(tmp_path: Path) -> None:
    """Tracks as they came have gaps and jitter: nothing is put on a grid, nothing is lost."""
    times = [0, 2900, 6100, 9000, 45_000, 48_030, 90_000]
    parts = []
    for number in range(2):
        parts.append(tmp_path / f"part-{number:03d}.webm")
        with av.open(str(parts[-1]), "w") as file:
            stream = file.add_stream("libvpx", rate=30, options={"deadline": "realtime", "cpu-used": "8"})
            stream.width, stream.height = 320, 180
            stream.codec_context.time_base = Fraction(1, 90_000)
            for index, at in enumerate(times):
                frame = picture(index)
                frame.pts, frame.time_base = at, Fraction(1, 90_000)
                file.mux(stream.encode(frame))
            file.mux(stream.encode(None))
    finished = await Muxer().finish(parts, tmp_path / "out.webm", "webm")
    look = Look.at(tmp_path / "out.webm")
    own = [at / 90_000 for at in times]
    second = finished.joins[1].at_ms / 1000
    assert second == pytest.approx(1 + (90_000 - 48_030) / 90_000, abs=0.003)
    assert look.times == [pytest.approx(at, abs=0.003) for at in [*own, *(second + at for at in own)]]
    assert look.numbers == [*range(7), *range(7)]


async def test_what_is_large_is_joined_by_another_process(whole: Path, tmp_path: Path) -> None:
    """The worker's other work goes on meanwhile; the result and the refusal are the same."""
    muxer = Muxer(largest_in_thread=0)
    finished = await muxer.finish([whole, whole], tmp_path / "out.mp4", "mp4")
    assert finished == await Muxer().finish([whole, whole], tmp_path / "other.mp4", "mp4")
    assert (tmp_path / "out.mp4").read_bytes() == (tmp_path / "other.mp4").read_bytes()
    junk = tmp_path / "part-000.mp4"
    junk.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="no part holds any media"):
        await muxer.finish([junk], tmp_path / "none.mp4", "mp4")
    with pytest.raises(OSError, match="could not be joined"):
        await muxer.finish([whole], tmp_path / "out.mp4" / "below-a-file.mp4", "mp4")


async def test_picture_alone(tmp_path: Path) -> None:
    silent = replace(SMALL, audio=None)
    parts = [record(tmp_path, part, 50, "mp4", silent) for part in range(2)]
    finished = await Muxer().finish(parts, tmp_path / "out.mp4", "mp4")
    assert finished.duration_ms == round(100_000 / FPS)
    assert Look.at(tmp_path / "out.mp4").numbers == [*range(50), *range(50)]


async def test_parts_without_media_are_passed_over(tmp_path: Path) -> None:
    """Design 7: empty, missing and foreign files; with nothing else there is no file, and no rest of one."""
    empty, junk = tmp_path / "part-000.mp4", tmp_path / "part-001.mp4"
    empty.write_bytes(b"")
    junk.write_bytes(random.Random(1).randbytes(50_000))
    target = tmp_path / "out.mp4"
    with pytest.raises(ValueError, match="no part holds any media"):
        await Muxer().finish([empty, junk, tmp_path / "missing.mp4"], target, "mp4")
    assert not target.exists()
    good = record(tmp_path, 3, 30)
    finished = await Muxer().finish([empty, junk, tmp_path / "missing.mp4", good], target, "mp4")
    assert [(join.index, join.at_ms) for join in finished.joins] == [(3, 0)]
    assert Look.at(target).numbers == list(range(30))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "out.mp4",
        "part-000.mp4",
        "part-001.mp4",
        "part-003.mp4",
    ]
