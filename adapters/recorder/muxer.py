"""Makes one file of a recording's crash-safe parts without encoding anything again."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.recorder.children import child_environment, module_command
from adapters.recorder.outputs.part_file import fps_of_program
from server.domain.json_form import from_json, to_json
from server.ports.recorder import Finished, Join

if TYPE_CHECKING:
    import av

_OPTIONS = {
    "mp4": {"movflags": "faststart"},
    "webm": {"cues_to_front": "1"},
    "ogg": {},
    "mp3": {},
}
# Packets held back until it is known where their part ends: more than reordering or sound can reach.
_HELD_PICTURES = 32
_LEAST_STEP = Fraction(1, 120)
_HELD_SOUNDS = 400
_NO_MEDIA = 200  # above every errno
_NO_MEDIA_MESSAGE = "no part holds any media"
_MP3_KBPS = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0)
_MP3_RATES = (44_100, 48_000, 32_000, 44_100)
_BLOCK = 1 << 16
# As many as the last packet of silence may end with.
_FEW_ZEROS = 64


@dataclass(slots=True)
class _Pictures:
    """The pictures of one part in decoding order; whole up to the last one before which none is missing."""

    fps: int
    first: int | None = None
    delay: int = 0
    count: int = 0
    _early: set[int] = field(default_factory=set)
    _next: int = 0
    _held: deque[tuple[int, av.Packet[Any]]] = field(default_factory=deque)

    def push(self, packet: av.Packet[Any]) -> Iterator[tuple[int, av.Packet[Any]]]:
        """(number to show it at, packet) of what is sure to stay."""
        assert packet.pts is not None
        number = round(packet.pts * packet.time_base * self.fps)
        if self.first is None:
            self.first = number
            if packet.dts is not None:
                self.delay = max(0, number - round(packet.dts * packet.time_base * self.fps))
        self._held.append((number - self.first, packet))
        if len(self._held) > _HELD_PICTURES:
            yield self._take()

    def end(self) -> Iterator[tuple[int, av.Packet[Any]]]:
        """The rest, without what would leave a hole."""
        early, following, whole = set(self._early), self._next, 0
        for index, (number, _) in enumerate(self._held, 1):
            early.add(number)
            while following in early:
                early.remove(following)
                following += 1
            if not early:
                whole = index
        for _ in range(whole):
            yield self._take()

    def _take(self) -> tuple[int, av.Packet[Any]]:
        number, packet = self._held.popleft()
        self._early.add(number)
        while self._next in self._early:
            self._early.remove(self._next)
            self._next += 1
        self.count += 1
        return number, packet


class Muxer:
    """`RecordingMuxer` by PyAV: what is large in a process of its own, for a thread would slow the worker's others."""

    def __init__(self, *, largest_in_thread: int = 64 << 20) -> None:
        self._largest_in_thread = largest_in_thread

    async def finish(self, parts: Sequence[Path], target: Path, container: str) -> Finished:
        size = sum(path.stat().st_size for path in parts if path.exists())
        if size <= self._largest_in_thread:
            return await asyncio.to_thread(finish, parts, target, container)
        return await _finish_in_process(parts, target, container)


async def _finish_in_process(parts: Sequence[Path], target: Path, container: str) -> Finished:
    process = await asyncio.create_subprocess_exec(
        *module_command(__name__, container, str(target), *map(str, parts)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        env=child_environment(),
    )
    try:
        said, _ = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    if process.returncode == _NO_MEDIA:
        raise ValueError(_NO_MEDIA_MESSAGE)
    if process.returncode:
        raise OSError(process.returncode, "the parts could not be joined")
    return from_json(Finished, json.loads(said))


def _main(container: str, target: str, *parts: str) -> int:
    try:
        finished = finish([Path(part) for part in parts], Path(target), container)
    except ValueError:
        return _NO_MEDIA
    except OSError as error:
        return error.errno or 1
    sys.stdout.write(json.dumps(to_json(finished)))
    return 0


def finish(parts: Sequence[Path], target: Path, container: str) -> Finished:
    """See `RecordingMuxer.finish`."""
    import av

    target.parent.mkdir(parents=True, exist_ok=True)
    written = target.with_name(f".{target.name}.part")
    output = _Output(written, container)
    try:
        for index, path in enumerate(parts):
            try:
                source = av.open(str(path))
            except (av.error.FFmpegError, OSError):
                continue
            with source:
                output.append(index, source, end=_written_end(path), last=index == len(parts) - 1)
        finished = output.close()
        written.replace(target)
    except BaseException:
        written.unlink(missing_ok=True)
        raise
    _sync(target.parent)
    return finished


class _Output:
    def __init__(self, path: Path, container: str) -> None:
        self._path = path
        self._format = container
        self._container: Any = None
        self._video: Any = None
        self._audio: Any = None
        self._fps = 0
        self._frames = 0  # pictures written
        self._delay = 0
        self._offset = Fraction(0)  # where the next part begins
        self._audio_end = Fraction(0)
        self._joins: list[Join] = []

    def append(self, index: int, source: Any, *, end: int, last: bool) -> None:
        """`end` is the size in bytes up to which the part was really written."""
        begin = self._offset
        packets = _whole_packets(source, end)
        first = next(packets, None)
        if first is None:
            return
        self._open(source)
        if self._video is not None and not self._fps:
            self._offset = self._append_as_it_came(first, packets)
        elif self._video is not None:
            self._offset = self._append_with_pictures(first, packets, last=last)
        else:
            self._offset = self._append_sound(first, packets)
        if self._offset > begin:
            self._joins.append(Join(index, round(begin * 1000), round((self._offset - begin) * 1000)))

    def _open(self, source: Any) -> None:
        import av

        if self._container is not None:
            return
        self._container = av.open(
            str(self._path), "w", format=self._format, options=_OPTIONS.get(self._format, {})
        )
        if source.streams.video:
            stream = source.streams.video[0]
            self._fps = fps_of_program(source.metadata)
            self._video = self._container.add_stream_from_template(stream, opaque=True)
            self._video.time_base = Fraction(1, self._fps) if self._fps else stream.time_base
        if source.streams.audio:
            stream = source.streams.audio[0]
            self._audio = self._container.add_stream_from_template(stream, opaque=True)
            self._audio.time_base = Fraction(1, stream.codec_context.sample_rate)

    def _append_with_pictures(self, first: Any, packets: Iterator[Any], *, last: bool) -> Fraction:
        pictures = _Pictures(self._fps)
        sounds: deque[Any] = deque()
        prime = Fraction(0)
        for packet in _chain(first, packets):
            if packet.stream.type == "video":
                for number, picture in pictures.push(packet):
                    self._write_picture(number, picture, pictures)
            else:
                if packet.pts < 0 and not sounds:
                    prime = max(prime, -packet.pts * packet.time_base)
                sounds.append(packet)
                if len(sounds) > _HELD_SOUNDS:
                    self._write_sound(sounds.popleft())
        for number, picture in pictures.end():
            self._write_picture(number, picture, pictures)
        length = Fraction(pictures.count, self._fps)
        # The next part's first packet, which only warms the decoder up, takes the place of this one's last.
        limit = length if last else length - prime
        for packet in sounds:
            start = packet.pts * packet.time_base
            if (start if last else start + packet.duration * packet.time_base) <= limit:
                self._write_sound(packet)
        return self._offset + length

    def _append_as_it_came(self, first: Any, packets: Iterator[Any]) -> Fraction:
        """A track's pictures at their own times. The last is shown for as long as the one before."""
        at, step = self._offset, Fraction(0)
        for packet in _chain(first, packets):
            if packet.stream.type != "video":
                continue
            before, at = at, self._offset + packet.pts * packet.time_base
            step = at - before
            self._write(self._video, packet, at, at)
        return at + max(step, _LEAST_STEP)

    def _append_sound(self, first: Any, packets: Iterator[Any]) -> Fraction:
        """Continuous, since there is no picture to keep up with."""
        start = self._offset - first.pts * first.time_base if self._joins else Fraction(0)
        end = self._offset
        for packet in _chain(first, packets):
            at = packet.pts * packet.time_base + start
            end = at + (packet.duration or 0) * packet.time_base
            self._write(self._audio, packet, at, at)
        return end

    def _write_picture(self, number: int, packet: Any, pictures: _Pictures) -> None:
        if not self._frames:
            self._delay = pictures.delay
        shown = self._offset + Fraction(number, self._fps)
        # Counted anew: every picture has its place, whatever the parts' own clocks did.
        decoded = Fraction(self._frames - self._delay, self._fps)
        self._frames += 1
        self._write(self._video, packet, shown, min(shown, decoded))

    def _write_sound(self, packet: Any) -> None:
        at = self._offset + packet.pts * packet.time_base
        self._audio_end = at + (packet.duration or 0) * packet.time_base
        self._write(self._audio, packet, at, at)

    def _write(self, stream: Any, packet: Any, shown: Fraction, decoded: Fraction) -> None:
        duration = (packet.duration or 0) * packet.time_base
        packet.stream = stream
        base = stream.time_base
        packet.time_base = base
        packet.pts = round(shown / base)
        packet.dts = round(decoded / base)
        packet.duration = round(duration / base)
        self._container.mux_one(packet)

    def close(self) -> Finished:
        if self._container is None or not self._joins:
            raise ValueError(_NO_MEDIA_MESSAGE)
        self._container.close()
        with self._path.open("rb") as file:
            os.fsync(file.fileno())
        return Finished(round(max(self._offset, self._audio_end) * 1000), tuple(self._joins))


def _whole_packets(source: Any, end: int) -> Iterator[Any]:
    import av

    chosen = [*source.streams.video[:1], *source.streams.audio[:1]]
    try:
        for packet in source.demux(chosen):
            written = packet.pos is None or packet.pos + packet.size <= end
            if packet.size and packet.pts is not None and written and not packet.is_corrupt:
                if source.format.name == "mp3" and packet.size < _mp3_frame_size(bytes(packet)[:4]):
                    return
                yield packet
    except av.error.FFmpegError:
        return


def _mp3_frame_size(header: bytes) -> int:
    """ISO/IEC 11172-3, layer III: MP3 has nothing else that tells a frame cut short."""
    rate = _MP3_RATES[header[2] >> 2 & 3]
    return 144_000 * _MP3_KBPS[header[2] >> 4] // rate + (header[2] >> 1 & 1)


def _written_end(path: Path) -> int:
    """Where a file's trailing zeros begin: after a power cut, space that was given to it but never written."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = size
        while start:
            end, start = start, max(0, start - _BLOCK)
            file.seek(start)
            kept = len(file.read(end - start).rstrip(b"\0"))
            if kept:
                return size if size - start - kept < _FEW_ZEROS else start + kept
    return 0


def _chain(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
