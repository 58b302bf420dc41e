"""Synthesised media: every kind of source a conversion must take or refuse, made once per session by FFmpeg."""

from __future__ import annotations

import random
import subprocess
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from adapters.ffmpeg.binary import resolve_ffmpeg

FFMPEG_TIMEOUT_SEC = 60
_X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")
_AAC = ("-c:a", "aac", "-b:a", "64k")
_X265 = ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params")

# Extension → codecs that this container usually holds (VC-04).
CONTAINERS: dict[str, tuple[str, ...]] = {
    "mp4": (*_X264, *_AAC),
    "mov": (*_X264, *_AAC),
    "avi": ("-c:v", "mpeg4", "-b:v", "1M", "-c:a", "libmp3lame"),
    "mkv": (*_X264, *_AAC),
    "webm": (
        "-c:v",
        "libvpx-vp9",
        "-deadline",
        "realtime",
        "-cpu-used",
        "8",
        "-b:v",
        "500k",
        "-c:a",
        "libopus",
    ),
    "flv": (*_X264, *_AAC),
    "wmv": ("-c:v", "wmv2", "-b:v", "1M", "-c:a", "wmav2"),
    "m4v": (*_X264, *_AAC),
    "ts": (*_X264, *_AAC),
    "mts": (*_X264, "-c:a", "ac3", "-f", "mpegts", "-mpegts_m2ts_mode", "1"),
    "3gp": ("-c:v", "h263", "-s", "352x288", "-b:v", "500k", *_AAC),
    "ogv": ("-c:v", "libtheora", "-q:v", "5", "-c:a", "libvorbis"),
}


def run_ffmpeg(*arguments: str | Path) -> None:
    """Runs FFmpeg quietly; its log is in the error if it fails."""
    command = [resolve_ffmpeg(), "-nostdin", "-v", "error", "-y", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, timeout=FFMPEG_TIMEOUT_SEC, check=False)
    assert done.returncode == 0, f"{command}\n{done.stderr.decode(errors='replace')}"


@dataclass(frozen=True)
class Clip:
    """A picture with a moving pattern and a sine, both the same in every run.

    `sound` names the source filter of the sound, "" for none. `filters` are applied to the picture before `codecs`.
    """

    extension: str = "mp4"
    size: str = "320x180"
    fps: str = "25"
    seconds: float = 3.0
    picture: str = "testsrc2"
    sound: str = "sine=frequency=440:sample_rate=48000"
    filters: str = ""
    codecs: tuple[str, ...] = (*_X264, *_AAC)
    options: tuple[str, ...] = ()


class ClipFactory:
    """Makes files below one folder; equal requests give the same file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def clip(self, clip: Clip | None = None) -> Path:
        clip = clip or Clip()
        path = self._path(repr(clip), clip.extension)
        if not path.exists():
            source = f"{clip.picture}=size={clip.size}:rate={clip.fps}:duration={clip.seconds}"
            sound = ("-f", "lavfi", "-i", f"{clip.sound}:duration={clip.seconds}") if clip.sound else ()
            filters = ("-vf", clip.filters) if clip.filters else ()
            run_ffmpeg("-f", "lavfi", "-i", source, *sound, *filters, *clip.codecs, *clip.options, path)
        return path

    def container(self, extension: str, *, seconds: float = 3.0) -> Path:
        return self.clip(Clip(extension=extension, seconds=seconds, codecs=CONTAINERS[extension]))

    def derived(self, name: str, extension: str, *arguments: str | Path) -> Path:
        """What FFmpeg makes of `arguments` (inputs and options, without the output)."""
        path = self._path(f"{name}{arguments}", extension)
        if not path.exists():
            run_ffmpeg(*arguments, path)
        return path

    def rotated(self, degrees: int) -> Path:
        """A display matrix that asks players to turn the picture by `degrees` counter-clockwise."""
        return self.derived(
            f"rotated{degrees}", "mp4", "-display_rotation", str(degrees), "-i", self.clip(), "-c", "copy"
        )

    def variable_rate(self) -> Path:
        """30 frames a second in the first half, 6 in the second, as a screen capture does."""
        return self.clip(
            Clip(
                fps="30",
                seconds=4,
                filters="select='lt(t,2)+not(mod(n,5))'",
                options=("-fps_mode", "vfr"),
            )
        )

    def browser_recording(self) -> Path:
        """WebM as MediaRecorder makes it: no length, no frame rate, time stamps that jitter around 24 a second."""
        codecs = ("-c:v", "libvpx", "-deadline", "realtime", "-b:v", "500k", "-c:a", "libopus", "-live", "1")
        jitter = "settb=1/1000,setpts='N*1000/24+random(3)*30'"
        timing = ("-fps_mode", "passthrough", "-enc_time_base", "1/1000")
        recorded = self.clip(
            Clip(extension="webm", filters=jitter, codecs=codecs, options=timing)
        ).read_bytes()
        # The muxer always writes a default duration of frames; an element of the same size that says nothing, instead.
        at = recorded.index(b"\x23\xe3\x83\x84")
        return self._bytes("browser", "webm", recorded[:at] + b"\xec\x86" + bytes(6) + recorded[at + 8 :])

    def interlaced(self) -> Path:
        """25 frames of two fields each, top first, in fast motion."""
        motion = "scroll=horizontal=0.013,tinterlace=mode=interleave_top,fieldorder=tff"
        return self.clip(
            Clip(
                extension="ts",
                size="720x576",
                fps="50",
                filters=f"{motion},setsar=64/45,format=yuv420p",
                codecs=("-c:v", "mpeg2video", "-b:v", "4M", "-flags", "+ildct+ilme", "-c:a", "mp2"),
            )
        )

    def hdr(self, transfer: str) -> Path:
        """10-bit HEVC in BT.2020 with `transfer` `smpte2084` (HDR10) or `arib-std-b67` (HLG)."""
        colour = f"colorprim=bt2020:transfer={transfer}:colormatrix=bt2020nc:range=limited:log-level=none"
        # The pattern's BT.709 is carried over into the HDR signal, so that tone mapping can bring it back.
        convert = (
            "format=yuv420p,setparams=color_primaries=bt709:color_trc=bt709:colorspace=bt709:range=tv,"
            f"zscale=p=bt2020:t={transfer}:m=bt2020nc:r=limited:npl=203,format=yuv420p10le"
        )
        return self.clip(Clip(seconds=2, filters=convert, codecs=(*_X265, colour, "-tag:v", "hvc1", *_AAC)))

    def ten_bit(self) -> Path:
        codecs = (*_X265, "log-level=none", "-pix_fmt", "yuv420p10le", *_AAC)
        return self.clip(Clip(seconds=2, codecs=codecs))

    def chroma_422(self) -> Path:
        codecs = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv422p10le", *_AAC)
        return self.clip(Clip(seconds=2, codecs=codecs))

    def sound_only(self, extension: str = "m4a", *, seconds: float = 5.0) -> Path:
        codecs = {"mp3": ("-c:a", "libmp3lame"), "flac": ("-c:a", "flac"), "wav": (), "m4a": _AAC}[extension]
        return self.derived(
            "sound", extension, "-f", "lavfi", "-i", f"sine=frequency=440:duration={seconds}", *codecs
        )

    def with_cover(self) -> Path:
        """An MP3 with a picture; no stream of it is video."""
        cover = self.derived("cover", "png", "-f", "lavfi", "-i", "testsrc2=size=300x300", "-frames:v", "1")
        options = ("-map", "0", "-map", "1", "-c", "copy", "-disposition:v", "attached_pic")
        return self.derived("withcover", "mp3", "-i", self.sound_only("mp3"), "-i", cover, *options)

    def surround(self) -> Path:
        return self.clip(Clip(sound="aevalsrc='sin(440*2*PI*t)|sin(550*2*PI*t)|0|0|0|0':c=5.1:s=48000"))

    def late_sound(self, offset_sec: float) -> Path:
        """Sound that starts `offset_sec` after (or, negative, before) the picture."""
        base = self.clip()
        inputs = ("-i", base, "-itsoffset", str(offset_sec), "-i", base)
        return self.derived(f"late{offset_sec}", "mkv", *inputs, "-map", "0:v", "-map", "1:a", "-c", "copy")

    def negative_start(self) -> Path:
        """A transport stream whose first time stamps lie 0.5 s before the wrap of its clock."""
        shifted = ("-itsoffset", "-0.5", "-i", self.clip(), "-c", "copy", "-copyts")
        return self.derived("negative", "ts", *shifted, "-muxdelay", "0", "-avoid_negative_ts", "disabled")

    def late_start(self) -> Path:
        """A transport stream whose clock starts far from 0."""
        return self.clip(Clip(extension="ts", options=("-output_ts_offset", "5000")))

    def subtitled(self) -> Path:
        """Two text tracks, German and English."""
        text = self._folder / "cues.srt"
        text.write_text(
            "1\n00:00:00,500 --> 00:00:01,500\nGuten Tag\n\n2\n00:00:02,000 --> 00:00:02,800\nEnde\n"
        )
        tags = (
            "-metadata:s:s:0",
            "language=ger",
            "-metadata:s:s:1",
            "language=eng",
            "-c",
            "copy",
            "-c:s",
            "srt",
        )
        maps = ("-map", "0", "-map", "1", "-map", "1")
        return self.derived("subtitled", "mkv", "-i", self.clip(), "-i", text, *maps, *tags)

    def many_streams(self) -> Path:
        """A small and a large picture (the small one is the default), and two languages."""
        small, large = self.clip(), self.clip(Clip(size="640x360"))
        maps = ("-map", "1:v", "-map", "0:v", "-map", "0:a", "-map", "1:a", "-c", "copy")
        flags = ("-disposition:v:0", "0", "-disposition:v:1", "default", "-metadata:s:a:0", "language=fre")
        return self.derived("many", "mkv", "-i", small, "-i", large, *maps, *flags)

    def truncated(self, share: float = 0.5) -> Path:
        """An MP4 with its index in front and its end missing: FFmpeg reads it with status 0."""
        whole = self.clip(Clip(seconds=8, options=("-movflags", "+faststart")))
        return self._bytes(
            f"truncated{share}", "mp4", whole.read_bytes()[: int(whole.stat().st_size * share)]
        )

    def without_index(self) -> Path:
        """An MP4 cut before its moov atom."""
        whole = self.clip()
        return self._bytes("noindex", "mp4", whole.read_bytes()[: whole.stat().st_size // 2])

    def silent_track(self) -> Path:
        """A sound track without a single packet."""
        inputs = ("-i", self.clip(), "-itsoffset", "100", "-i", self.clip())
        return self.derived("silent", "mkv", *inputs, "-map", "0:v", "-map", "1:a", "-c", "copy", "-t", "3")

    def unknown_codec(self) -> Path:
        """Video that no decoder claims, beside sound that is fine."""
        known = self.container("mkv").read_bytes()
        return self._bytes("unknown", "mkv", known.replace(b"V_MPEG4/ISO/AVC", b"V_MPEG9/ISO/XYZ"))

    def huge_picture(self) -> Path:
        """A film of one PNG of 144 megapixels in half a megabyte."""
        picture = ("-f", "lavfi", "-i", "color=black:s=12000x12000:r=1:d=1", "-c:v", "png", "-frames:v", "1")
        return self.derived("huge", "mov", *picture)

    def not_media(self) -> dict[str, Path]:
        """Everything that pretends to be a video; those that name other files name a real clip."""
        other = self.clip(Clip(extension="ts"))
        generator = random.Random(7)
        texts = {
            "html": "<!doctype html><html><body>404 Not Found</body></html>",
            "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n{other}\n#EXT-X-ENDLIST\n",
            "hls_relative": f"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n../{other.parent.name}/{other.name}\n",
            "ffconcat": f"ffconcat version 1.0\nfile '{other}'\n",
            "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period>'
            f"<BaseURL>file://{other}</BaseURL></Period></MPD>",
            "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
            "svg": '<svg xmlns="http://www.w3.org/2000/svg" width="99999" height="99999"/>',
            "srt": "1\n00:00:00,500 --> 00:00:01,500\nText\n",
        }
        files = {name: self._bytes(name, "mp4", text.encode()) for name, text in texts.items()}
        files["empty"] = self._bytes("empty", "mp4", b"")
        files["random"] = self._bytes("random", "mp4", generator.randbytes(20_000))
        files["png"] = self._bytes("png", "mp4", huge_png(12_000))
        return files

    def _bytes(self, name: str, extension: str, data: bytes) -> Path:
        path = self._path(name, extension)
        path.write_bytes(data)
        return path

    def _path(self, name: str, extension: str) -> Path:
        return self._folder / f"{zlib.crc32(name.encode()):08x}.{extension}"


def huge_png(side: int) -> bytes:
    """A PNG of `side` × `side` black pixels in few bytes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")

    header = side.to_bytes(4, "big") * 2 + bytes([1, 0, 0, 0, 0])
    rows = zlib.compress(bytes(side * (side // 8 + 1)), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def frame_png(source: Path, target: Path, *, at_sec: float = 1.0, filters: Sequence[str] = ()) -> Path:
    """One frame of a file as PNG, for eyes and for pixel checks."""
    chain = ("-vf", ",".join(filters)) if filters else ()
    run_ffmpeg("-ss", str(at_sec), "-i", source, *chain, "-frames:v", "1", target)
    return target
