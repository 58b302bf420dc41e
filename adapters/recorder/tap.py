"""Media of subscribed tracks, taken from the LiveKit SDK where it enters Python.

The SDK's own `VideoStream` and `AudioStream` copy each picture, wake the event loop for it once per stream that is open,
and pass it through two queues; with a dozen tracks that costs more than composing them. Here sinks are called in the
SDK's thread, and a picture stays in the SDK's memory until the last one who looks at it lets go.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from livekit.rtc import Track
from livekit.rtc._ffi_client import FfiClient, FfiHandle
from livekit.rtc._proto.audio_frame_pb2 import AudioStreamType
from livekit.rtc._proto.ffi_pb2 import FfiEvent, FfiRequest
from livekit.rtc._proto.video_frame_pb2 import VideoBufferType, VideoStreamType

if TYPE_CHECKING:
    import asyncio

    from numpy.typing import NDArray

    Plane = NDArray[np.uint8]

HZ = 48_000
_AUDIO_FRAME_MS = 20
# One second, in the SDK's 10 ms: what piles up behind a busy interpreter is sound that would be missing later.
_AUDIO_QUEUE_FRAMES = 100
_VIDEO_QUEUE_FRAMES = 4


class RawPicture:
    """One I420 picture in the SDK's memory, which is given back with the last reference. `rotation` in quarter turns."""

    __slots__ = ("_buffer", "height", "rotation", "taken_us", "u", "v", "width", "y")

    def __init__(self, buffer: Any, rotation: int, taken_us: int) -> None:
        self._buffer = _Buffer(buffer.handle.id)
        info = buffer.info
        self.width: int = info.width
        self.height: int = info.height
        self.rotation = rotation
        self.taken_us = taken_us
        half = ((info.width + 1) // 2, (info.height + 1) // 2)
        self.y = self._plane(info.components[0], info.width, info.height)
        self.u = self._plane(info.components[1], *half)
        self.v = self._plane(info.components[2], *half)

    def _plane(self, component: Any, width: int, height: int) -> Plane:
        memory = (ctypes.c_uint8 * (component.stride * height)).from_address(component.data_ptr)
        # The array keeps `memory` alive, and that the SDK's buffer.
        memory.owner = self._buffer
        return np.frombuffer(memory, np.uint8).reshape(height, component.stride)[:, :width]


class _Buffer:
    """Drops the SDK's handle once nobody holds it; `FfiHandle` would also enter each picture in a global set."""

    __slots__ = ("_handle",)

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def __del__(self) -> None:
        client = FfiClient._instance
        if client is not None and not FfiClient._ffi_disposed:
            client._ffi_lib.livekit_ffi_drop_handle(ctypes.c_uint64(self._handle))


VideoSink = Callable[[RawPicture], None]
AudioSink = Callable[["NDArray[np.int16]"], None]


class Tap:
    """Opens streams of tracks. Sinks run in a thread of the SDK and must be quick."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._video: dict[int, VideoSink] = {}
        self._audio: dict[int, AudioSink] = {}
        self._queue = FfiClient.instance.queue.subscribe(loop, filter_fn=self._take)

    def close(self) -> None:
        FfiClient.instance.queue.unsubscribe(self._queue)
        self._video.clear()
        self._audio.clear()

    def video(self, track: Track, sink: VideoSink) -> Stream:
        request = FfiRequest()
        wanted = request.new_video_stream
        wanted.track_handle = track._ffi_handle.handle
        wanted.type = VideoStreamType.VIDEO_STREAM_NATIVE
        wanted.format = VideoBufferType.I420
        wanted.normalize_stride = False
        wanted.queue_size_frames = _VIDEO_QUEUE_FRAMES
        handle = FfiClient.instance.request(request).new_video_stream.stream.handle.id
        self._video[handle] = sink
        return Stream(handle, self._video)

    def audio(self, track: Track, sink: AudioSink) -> Stream:
        """The sink gets 20 ms of 48 kHz stereo at a time, shape (960, 2), its own to keep."""
        request = FfiRequest()
        wanted = request.new_audio_stream
        wanted.track_handle = track._ffi_handle.handle
        wanted.type = AudioStreamType.AUDIO_STREAM_NATIVE
        wanted.sample_rate = HZ
        wanted.num_channels = 2
        wanted.frame_size_ms = _AUDIO_FRAME_MS
        wanted.queue_size_frames = _AUDIO_QUEUE_FRAMES
        handle = FfiClient.instance.request(request).new_audio_stream.stream.handle.id
        self._audio[handle] = sink
        return Stream(handle, self._audio)

    def _take(self, event: FfiEvent) -> bool:
        """Called by the SDK's queue as the filter of a subscriber, for each event, in the SDK's thread."""
        which = event.WhichOneof("message")
        if which == "video_stream_event":
            video = event.video_stream_event
            if video.HasField("frame_received"):
                frame = video.frame_received
                picture = RawPicture(frame.buffer, frame.rotation, frame.timestamp_us)
                if sink := self._video.get(video.stream_handle):
                    sink(picture)
        elif which == "audio_stream_event":
            audio = event.audio_stream_event
            if audio.HasField("frame_received"):
                samples = _samples(audio.frame_received.frame)
                if sink_of_sound := self._audio.get(audio.stream_handle):
                    sink_of_sound(samples)
        return False


class Stream:
    """An open stream of one track."""

    def __init__(self, handle: int, sinks: dict[int, Any]) -> None:
        self._handle = FfiHandle(handle)
        self._sinks = sinks

    def close(self) -> None:
        self._sinks.pop(self._handle.handle, None)
        self._handle.dispose()


def _samples(buffer: Any) -> NDArray[np.int16]:
    info = buffer.info
    count = info.num_channels * info.samples_per_channel
    memory = ctypes.string_at(info.data_ptr, count * 2)
    FfiClient.instance._ffi_lib.livekit_ffi_drop_handle(ctypes.c_uint64(buffer.handle.id))
    return np.frombuffer(memory, np.int16).reshape(-1, info.num_channels)
