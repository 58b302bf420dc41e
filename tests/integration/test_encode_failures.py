"""Sources that are broken or hostile, and encoders that misbehave: one clear error, nothing left running."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from adapters.ffmpeg.encoder import FfmpegEncoder
from adapters.ffmpeg.subtitles import MAX_STREAMS, extract_subtitles
from server.domain.ladder import ConversionSettings, EncodePlan, plan_encode
from server.domain.media import (
    TRANSCODE_FAILED,
    UNSUPPORTED_FORMAT,
    MediaError,
    MediaInfo,
    MediaLimits,
    SubtitleStream,
)
from server.ports.encoder import EncodedSegment, EncodeReport
from tests.integration.encode_stage import make_ladder
from tests.integration.fake_ffmpeg import fake_ffmpeg
from tests.media import ClipFactory

_NOT_MEDIA = (
    "dash",
    "empty",
    "ffconcat",
    "hls",
    "hls_relative",
    "html",
    "png",
    "random",
    "sdp",
    "srt",
    "svg",
)


async def encode(encoder: FfmpegEncoder, plan: EncodePlan, source: Path, folder: Path) -> EncodeReport:
    async def take(_segment: EncodedSegment) -> None:
        return

    return await encoder.encode(plan, source, folder, on_progress=lambda _: None, on_segment=take)


async def plan_of(source: Path) -> EncodePlan:
    return plan_encode(await FfmpegEncoder().probe(source), ConversionSettings(("360p",), "ultrafast"))


@pytest.mark.parametrize("kind", _NOT_MEDIA)
async def test_what_is_no_media(kind: str, clips: ClipFactory) -> None:
    """2.8 cases 1, 13, 14: refused before FFmpeg sees it, so nothing that a playlist names is ever opened."""
    with pytest.raises(MediaError) as caught:
        await FfmpegEncoder().probe(clips.not_media()[kind])
    assert caught.value.code == UNSUPPORTED_FORMAT
    assert not caught.value.retryable


async def test_every_kind_of_not_media_is_tried(clips: ClipFactory) -> None:
    assert sorted(clips.not_media()) == list(_NOT_MEDIA)


async def test_without_index(clips: ClipFactory) -> None:
    """2.8 case 2, design 13: a cut MP4 is TRANSCODE_FAILED and says what is missing."""
    with pytest.raises(MediaError) as caught:
        await FfmpegEncoder().probe(clips.without_index())
    assert caught.value.code == TRANSCODE_FAILED
    assert "moov atom not found" in caught.value.message


async def test_truncated(clips: ClipFactory, tmp_path: Path) -> None:
    """2.8 case 3: FFmpeg ends with status 0; the error says how far the source went."""
    with pytest.raises(MediaError) as caught:
        await make_ladder(clips.truncated(), tmp_path)
    assert caught.value.code == TRANSCODE_FAILED
    assert caught.value.message == "the source ends early: 4.0 s of 8.0 s could be decoded"


async def test_garbage_behind_a_good_header(clips: ClipFactory, tmp_path: Path) -> None:
    """A container that opens but holds noise instead of pictures and sound."""
    whole = clips.container("mkv").read_bytes()
    broken = tmp_path / "input"
    broken.write_bytes(whole[:1500] + bytes(len(whole)))
    with pytest.raises(MediaError) as caught:
        await make_ladder(broken, tmp_path)
    assert caught.value.code == TRANSCODE_FAILED


async def test_limits(clips: ClipFactory) -> None:
    """2.2: size, length and number of streams are refused before anything is encoded."""
    info = await FfmpegEncoder().probe(clips.clip())
    for limits in (
        MediaLimits(max_pixels=1000),
        MediaLimits(max_width=100),
        MediaLimits(max_duration_sec=1),
        MediaLimits(max_streams=1),
    ):
        with pytest.raises(MediaError) as caught:
            plan_encode(info, ConversionSettings(), limits)
        assert caught.value.code == UNSUPPORTED_FORMAT


async def test_huge_picture(clips: ClipFactory) -> None:
    """2.8 case 14: half a megabyte that would decode to 432 MB."""
    with pytest.raises(MediaError, match="12000x12000 pixels") as caught:
        await plan_of(clips.huge_picture())
    assert caught.value.code == UNSUPPORTED_FORMAT


async def test_unknown_codec(clips: ClipFactory) -> None:
    """A film is not silently reduced to its sound."""
    with pytest.raises(MediaError, match="video codec is not supported") as caught:
        await plan_of(clips.unknown_codec())
    assert caught.value.code == UNSUPPORTED_FORMAT


_WRITES_CUES = r"""
for target; do :; done
printf 'WEBVTT\n\n00:00.000 --> 00:01.000\nHello\n' > "${target#file:}"
"""


async def subtitled_with(count: int, source: Path) -> tuple[EncodePlan, MediaInfo]:
    """As if the source had that many text streams."""
    info = await FfmpegEncoder().probe(source)
    streams = tuple(SubtitleStream(10 + number, "subrip") for number in range(count))
    indexes = tuple(stream.index for stream in streams)
    plan = plan_encode(info, ConversionSettings(("360p",), "ultrafast"))
    return replace(plan, subtitle_indexes=indexes), replace(info, subtitles=streams)


async def test_one_time_limit_for_all_subtitles(clips: ClipFactory, tmp_path: Path) -> None:
    """Section 2.2: the second text stream never ends; it and the third, for which no time is left, are left out."""
    plan, info = await subtitled_with(3, clips.clip())
    script = f'{_WRITES_CUES}\ncase "$target" in */11.vtt) exec sleep 100;; esac'
    binary = fake_ffmpeg(tmp_path, script)
    tracks = await extract_subtitles(binary, plan, info, clips.clip(), timeout_sec=4)
    assert [track.variant.name for track in tracks] == ["10"]


async def test_a_source_of_countless_subtitles(clips: ClipFactory, tmp_path: Path) -> None:
    """Section 2.2: a subtitle stream costs next to nothing to make, and a read of the whole source to convert."""
    plan, info = await subtitled_with(MAX_STREAMS + 2, clips.clip())
    tracks = await extract_subtitles(fake_ffmpeg(tmp_path, _WRITES_CUES), plan, info, clips.clip())
    assert [track.variant.name for track in tracks] == [str(10 + number) for number in range(16)]


async def test_source_of_subtitles_only(clips: ClipFactory) -> None:
    """A container without picture or sound is refused."""
    only = clips.derived("onlysubs", "mkv", "-i", clips.subtitled(), "-map", "0:s:0", "-c", "copy")
    with pytest.raises(MediaError) as caught:
        await plan_of(only)
    assert caught.value.code == UNSUPPORTED_FORMAT


@pytest.mark.parametrize(
    ("script", "told", "retryable"),
    [
        ("kill -SEGV $$", "ended by SIGSEGV", True),
        ("kill -KILL $$", "ended by SIGKILL", True),
        ("kill -XCPU $$", "more resources than its length allows", False),
        ("echo '[tee @ 0x55] [error] av_interleaved_write_frame(): No space left on device' >&2; exit 1", "disk is full", True),
        ("echo '[h264 @ 0x55f9] [error] no frame!' >&2; exit 69", "cannot be converted: no frame!", False),
        ("exit 3", "FFmpeg ended with status 3", False),
    ],
)  # fmt: skip
async def test_misbehaving_encoder(
    script: str, told: str, retryable: bool, clips: ClipFactory, tmp_path: Path
) -> None:
    """2.8 cases 16 and 33: crashes and full disks may be tried again, bad sources may not."""
    plan = await plan_of(clips.clip())
    encoder = FfmpegEncoder(fake_ffmpeg(tmp_path, script))
    with pytest.raises(MediaError, match=told) as caught:
        await encode(encoder, plan, clips.clip(), tmp_path)
    assert caught.value.code == TRANSCODE_FAILED
    assert caught.value.retryable is retryable
    assert str(tmp_path) not in caught.value.message


async def test_stalled_encoder(clips: ClipFactory, tmp_path: Path) -> None:
    """2.8 case 15: an encoder that reports the same time again and again is killed, and the job may be retried."""
    script = "while true; do echo out_time_us=40000; echo progress=continue; sleep 0.05; done"
    encoder = FfmpegEncoder(fake_ffmpeg(tmp_path, script), stall_timeout_sec=0.4)
    with pytest.raises(MediaError, match="stopped making progress") as caught:
        await encode(encoder, await plan_of(clips.clip()), clips.clip(), tmp_path)
    assert caught.value.retryable


async def test_refused_segment_ends_the_encode(clips: ClipFactory, tmp_path: Path) -> None:
    """An upload that fails for good stops the work at once, with its own error."""

    async def refuse(_segment: EncodedSegment) -> None:
        raise ConnectionError("storage is gone")

    with pytest.raises(ConnectionError, match="storage is gone"):
        await FfmpegEncoder().encode(
            await plan_of(clips.clip()), clips.clip(), tmp_path, on_progress=lambda _: None, on_segment=refuse
        )


async def test_cancelled_encode(clips: ClipFactory, tmp_path: Path) -> None:
    """Cancelling while segments come leaves no process that could still write."""
    first = asyncio.Event()

    async def take(_segment: EncodedSegment) -> None:
        first.set()
        await asyncio.Event().wait()

    plan = await plan_of(clips.clip())
    running = asyncio.create_task(
        FfmpegEncoder().encode(plan, clips.clip(), tmp_path, on_progress=lambda _: None, on_segment=take)
    )
    await asyncio.wait_for(first.wait(), 30)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    for environment in Path("/proc").glob("[0-9]*/cwd"):
        try:
            assert environment.readlink() != tmp_path
        except OSError:
            continue


async def test_leftovers_of_an_earlier_attempt(clips: ClipFactory, tmp_path: Path) -> None:
    """Files that a killed attempt left in the folder are not taken for finished segments."""
    (tmp_path / "360p").mkdir()
    for index in range(5):
        (tmp_path / "360p" / f"segment_{index:03d}.ts").write_bytes(b"half a segment")
    ladder = await make_ladder(clips.clip(), tmp_path)
    assert ladder.audit() == []
    assert len(list((tmp_path / "360p").glob("segment_*.ts"))) == 2
