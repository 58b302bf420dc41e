"""LiveKit's Start requests, read into what the engine works with (livekit-surface.md 1.5, contract LK-07 to LK-139)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from server.domain.egress import (
    AudioEncoding,
    EgressPlan,
    EgressSecrets,
    EgressWebhook,
    Encoding,
    FileOutput,
    Orders,
)
from server.domain.egress_sources import (
    AudioRoute,
    MediaSource,
    ParticipantSource,
    RoomSource,
    Source,
    TrackCompositeSource,
    TrackSource,
    WebSource,
)
from server.egress import stream_urls
from server.egress.encodings import Wanted, fit, wanted
from server.egress.outputs import Read, UrlCheck, destinations, own_storage, read_lists, read_outputs
from server.egress.validation import check_layout, enum_name, has_field, incompatible, is_http, wrong
from server.errors import failed_precondition

DEFAULT_LAYOUT = "grid"
_MIXING = {"DUAL_CHANNEL_AGENT": "dual_channel_agent", "DUAL_CHANNEL_ALTERNATE": "dual_channel_alternate"}
_CHANNELS = {
    "AUDIO_CHANNEL_BOTH": "both",
    "AUDIO_CHANNEL_LEFT": "left",
    "AUDIO_CHANNEL_RIGHT": "right",
}
_QUALITIES = {480: "480p", 720: "720p", 1080: "1080p", 2160: "4k"}
_MOST_WEBHOOKS = 10


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What this server cannot do: each text says what is missing, "" when nothing is."""

    browser: str = ""


@dataclass(frozen=True, slots=True)
class UrlChecks:
    """The address guard, by what an address is for. Each raises ServiceError for what must not be contacted."""

    stream: UrlCheck
    webhook: UrlCheck
    page: UrlCheck


@dataclass(frozen=True, slots=True)
class Accepted:
    """What `EgressControl.start` wants to know. `room_name` is the project's, empty for pages of the web."""

    room_name: str
    type: str
    layout: str
    quality: str
    file_type: str
    plan: EgressPlan
    orders: Orders
    secrets: EgressSecrets


class RequestReader:
    """Reads requests; raises ServiceError in LiveKit's words for what it would refuse, and in ours for what we do."""

    def __init__(self, capabilities: Capabilities, checks: UrlChecks) -> None:
        self._capabilities = capabilities
        self._checks = checks

    def read(self, request: Any, livekit_room: str) -> Accepted:
        """`request` is any of LiveKit's Start requests."""
        reader = _READERS[request.DESCRIPTOR.name]
        asked = reader(self, request)
        return self._accepted(request, livekit_room, asked)

    @property
    def check_stream(self) -> UrlCheck:
        return self._checks.stream

    def _room_composite(self, request: Any) -> _Asked:
        source = self._template(request)
        mixing = _MIXING.get(enum_name(request, "audio_mixing"), "default")
        if source.audio_only and not (request.layout or request.custom_base_url):
            source = replace(source, audio_mixing=mixing)
        return self._from_lists(request, source, audio=not source.video_only, video=not source.audio_only)

    def _web(self, request: Any) -> _Asked:
        source = self._page(request)
        return self._from_lists(request, source, audio=not source.video_only, video=not source.audio_only)

    def _participant(self, request: Any) -> _Asked:
        if not request.identity:
            raise wrong("identity")
        return self._from_lists(
            request, ParticipantSource(request.identity, request.screen_share), audio=True, video=True
        )

    def _track_composite(self, request: Any) -> _Asked:
        audio, video = request.audio_track_id, request.video_track_id
        if not audio and not video:
            raise wrong("audio_track_id or video_track_id")
        return self._from_lists(
            request, TrackCompositeSource(audio, video), audio=bool(audio), video=bool(video)
        )

    def _track(self, request: Any) -> _Asked:
        if not request.track_id:
            raise wrong("track_id")
        source, read = TrackSource(request.track_id), Read()
        kind = request.WhichOneof("output")
        if kind == "file":
            read.file_type = ""
            read.files.append(
                FileOutput(
                    container="",
                    path=request.file.filepath,
                    manifest=not request.file.disable_manifest,
                    storage=read.store(own_storage(request.file)),
                )
            )
            return _Asked(source, read, Encoding(None, None))
        if kind != "websocket_url" or not request.websocket_url:
            raise wrong("output")
        read.protocol = stream_urls.WEBSOCKET
        read.destinations = list(
            destinations([("", request.websocket_url)], stream_urls.WEBSOCKET, self._checks.stream)
        )
        return _Asked(source, read, Encoding(None, _RAW))

    def _any(self, request: Any) -> _Asked:
        kind = request.WhichOneof("source")
        source: Source
        if kind == "template":
            source = self._template(request.template)
            audio, video = not source.video_only, not source.audio_only
        elif kind == "web":
            source = self._page(request.web)
            audio, video = not source.video_only, not source.audio_only
        elif kind == "media":
            source = _media(request.media)
            audio, video = _sounds(source), bool(source.video_track_id or source.video_identity)
        else:
            raise wrong("source")
        options = wanted(request, "encoding")
        if options.passthrough:
            return self._passthrough(request, source)
        if not request.outputs:
            raise wrong("output")
        read = read_outputs(request, self._checks.stream)
        if read.protocol == stream_urls.WEBSOCKET:
            video = False
        return _fitted(source, read, options, audio=audio, video=video)

    def _passthrough(self, request: Any, source: Source) -> _Asked:
        """PASSTHROUGH: one track into one file, as it came."""
        if not isinstance(source, MediaSource):
            raise wrong("preset")
        track_id = _passed_track(source)
        if len(request.outputs) != 1:
            raise wrong("passthrough outputs")
        if request.outputs[0].WhichOneof("config") != "file":
            raise wrong("passthrough output")
        if enum_name(request.outputs[0].file, "file_type") != "DEFAULT_FILETYPE":
            raise wrong("passthrough file_type")
        read = read_outputs(request, self._checks.stream)
        return _Asked(TrackSource(track_id), read, Encoding(None, None))

    def _template(self, request: Any) -> RoomSource:
        _check_halves(request)
        base = request.custom_base_url
        check_layout(request.layout)
        if base:
            self._check_page(base, "template base url", "a template page")
        return RoomSource(
            layout=request.layout or DEFAULT_LAYOUT,
            audio_only=request.audio_only,
            video_only=request.video_only,
            base_url=base,
        )

    def _page(self, request: Any) -> WebSource:
        _check_halves(request)
        self._check_page(request.url, "web url", "a web page")
        return WebSource(request.url, request.audio_only, request.video_only, request.await_start_signal)

    def _check_page(self, url: str, field: str, what: str) -> None:
        if len(url) > stream_urls.MAX_URL or not is_http(url):
            raise wrong(field)
        if self._capabilities.browser:
            raise failed_precondition(f"{what} cannot be recorded: {self._capabilities.browser}")
        self._checks.page(url)

    def _from_lists(self, request: Any, source: Source, *, audio: bool, video: bool) -> _Asked:
        options = wanted(request, "options")
        if options.passthrough:
            raise wrong("preset")
        read = read_lists(request, self._checks.stream)
        return _fitted(source, read, options, audio=audio, video=video)

    def _accepted(self, request: Any, livekit_room: str, asked: _Asked) -> Accepted:
        read, picture = asked.read, asked.encoding.video
        layout = asked.source.layout if isinstance(asked.source, RoomSource) else ""
        return Accepted(
            room_name=request.room_name if has_field(request, "room_name") else "",
            type="both" if read.keeps and read.protocol else "record" if read.keeps else "stream",
            layout=layout,
            quality=_QUALITIES.get(min(picture.width, picture.height), "") if picture else "",
            file_type=asked.container.upper(),
            plan=EgressPlan(
                livekit_room=livekit_room,
                source=asked.source,
                encoding=asked.encoding,
                outputs=read.outputs(container=asked.container, segment_sec=asked.segment_sec),
            ),
            orders=Orders(layout=layout, destinations=tuple(read.destinations)),
            secrets=EgressSecrets(
                storages=tuple(read.storages), webhooks=read_webhooks(request, self._checks.webhook)
            ),
        )


@dataclass(frozen=True, slots=True)
class _Asked:
    source: Source
    read: Read
    encoding: Encoding
    container: str = ""
    segment_sec: int = 0


_RAW = AudioEncoding("pcm", 0, 48000)
_READERS: Mapping[str, Callable[[RequestReader, Any], _Asked]] = {
    "RoomCompositeEgressRequest": RequestReader._room_composite,
    "WebEgressRequest": RequestReader._web,
    "ParticipantEgressRequest": RequestReader._participant,
    "TrackCompositeEgressRequest": RequestReader._track_composite,
    "TrackEgressRequest": RequestReader._track,
    "StartEgressRequest": RequestReader._any,
}


def read_webhooks(request: Any, check_url: UrlCheck) -> tuple[EgressWebhook, ...]:
    """A request's own webhooks (LK-138); whose keys they name is for the caller to check (LK-139)."""
    if not has_field(request, "webhooks"):
        return ()
    if len(request.webhooks) > _MOST_WEBHOOKS:
        raise wrong("webhooks")
    found = []
    for webhook in request.webhooks:
        if len(webhook.url) > stream_urls.MAX_URL or not is_http(webhook.url):
            raise wrong("webhook url")
        check_url(webhook.url)
        found.append(
            EgressWebhook(
                url=webhook.url,
                signing_key=webhook.signing_key,
                include=tuple(webhook.filter_params.include_events),
                exclude=tuple(webhook.filter_params.exclude_events),
            )
        )
    return tuple(found)


def _fitted(source: Source, read: Read, options: Wanted, *, audio: bool, video: bool) -> _Asked:
    if read.images and not video:
        raise wrong("audio_only images")
    if read.images and not read.files and not read.segments and not read.protocol:
        audio = False
    if not audio and not video:
        raise incompatible("no supported codec is compatible with all outputs")
    length = read.segments[0].segment_sec if read.segments else 0
    if len(read.segments) > 1 and any(one.segment_sec != length for one in read.segments):
        raise wrong("segment_duration")
    found = fit(options, read.kinds, file_type=read.file_type, segment_sec=length, audio=audio, video=video)
    return _Asked(source, read, found.encoding, found.container, found.segment_sec)


def _check_halves(request: Any) -> None:
    if request.audio_only and request.video_only:
        raise wrong("audio_only and video_only")


def _media(request: Any) -> MediaSource:
    participant = request.participant_video if request.HasField("participant_video") else None
    if participant is not None and not participant.identity:
        raise wrong("identity")
    # With all of it captured LiveKit looks at no routes.
    routes = () if request.audio.capture_all else tuple(map(_route, request.audio.routes))
    source = MediaSource(
        video_track_id=request.video_track_id,
        video_identity=participant.identity if participant is not None else "",
        screen_share=participant is not None and participant.prefer_screen_share,
        capture_all_audio=request.audio.capture_all,
        routes=routes,
    )
    if not _sounds(source) and not source.video_track_id and not source.video_identity:
        raise wrong("audio or video")
    return source


def _route(request: Any) -> AudioRoute:
    match = request.WhichOneof("match")
    channel = _CHANNELS.get(enum_name(request, "channel"))
    if match is None or channel is None:
        raise wrong("audio route match" if match is None else "audio route channel")
    if match == "participant_kind":
        return AudioRoute(participant_kind=enum_name(request, match).lower(), channel=channel)
    value = getattr(request, match)
    if not value:
        raise wrong(f"audio route {match}")
    if match == "track_id":
        return AudioRoute(track_id=value, channel=channel)
    return AudioRoute(participant_identity=value, channel=channel)


def _sounds(source: MediaSource) -> bool:
    return source.capture_all_audio or bool(source.routes)


def _passed_track(source: MediaSource) -> str:
    """The one track of a PASSTHROUGH request."""
    if source.video_identity:
        raise wrong("passthrough participant_video")
    if source.capture_all_audio:
        raise wrong("passthrough capture_all")
    routes: Sequence[AudioRoute] = source.routes
    if len(routes) > 1:
        raise wrong("passthrough audio routes")
    if routes and not routes[0].track_id:
        raise wrong("passthrough audio route match")
    if bool(routes) == bool(source.video_track_id):
        raise wrong("passthrough source" if routes else "passthrough track_id")
    return source.video_track_id or routes[0].track_id
