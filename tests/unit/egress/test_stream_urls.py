"""Addresses of streams: accepted forms, their canonical spelling, and two ways of hiding the key (B-84, section 2.3)."""

from __future__ import annotations

import pytest

from server.egress.stream_urls import canonical, family, in_error, redacted, redacted_identifier, shown
from server.errors import Code, ServiceError

KEY = "live_secret_key_42"


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("streamkey", "{str...key}"),
        ("stream", "{st...am}"),
        ("abc", "{a...c}"),
        ("ab", "{...}"),
        ("", "{...}"),
        ("0123456789", "{012...789}"),
    ],
)
def test_identifiers_are_redacted_as_livekit_does(text: str, hidden: str) -> None:
    """LK-83: `RedactIdentifier` of livekit-surface 2.3."""
    assert redacted_identifier(text) == hidden


@pytest.mark.parametrize(
    ("url", "livekit", "seed"),
    [
        ("rtmp://a.rtmp.youtube.com/live2/streamkey", "rtmp://a.rtmp.youtube.com/live2/{str...key}",
         "rtmp://a.rtmp.youtube.com/live2/***"),
        ("rtmps://h:443/app/x/FB-1?s_bl=1&s_ps=2", "rtmps://h:443/app/x/{FB-...s=2}", "rtmps://h:443/app/x/***"),
        ("rtmp://host/app/streamkey live=1", "rtmp://host/app/{str...key} live=1", "rtmp://host/app/***"),
        ("mux://streamkey", "mux://{str...key}", "mux://***"),
        ("twitch://streamkey", "twitch://{str...key}", "twitch://***"),
        ("srt://h:9999?streamid=abc&passphrase=0123456789", "srt://h:9999?streamid={...}&passphrase={...}",
         "srt://h:9999?***"),
        ("srt://h:9999", "srt://h:9999", "srt://h:9999"),
        ("wss://h/in?token=abc", "wss://h/in?token={...}", "wss://h/in?***"),
        ("rtmp://me:pass@host/app/streamkey", "rtmp://{...}@host/app/{str...key}", "rtmp://***@host/app/***"),
    ],
)  # fmt: skip
def test_both_redactions(url: str, livekit: str, seed: str) -> None:
    """WH-36, LK-83, B-84: LiveKit's echo and the seed's `***`."""
    assert redacted(url) == livekit
    assert shown(url) == seed


@pytest.mark.parametrize(
    ("url", "used"),
    [
        ("mux://k-1", "rtmps://global-live.mux.com:443/app/k-1"),
        ("twitch://k-1", "rtmps://ingest.global-contribute.live-video.net:443/app/k-1"),
        ("rtmp://host/app/k-1 live=1", "rtmp://host/app/k-1"),
        ("rtmp://host/app/", "rtmp://host/app/"),
        ("rtmp://host/app/deep/k?a=b", "rtmp://host/app/deep/k?a=b"),
    ],
)
def test_canonical_forms(url: str, used: str) -> None:
    assert canonical(url, "rtmp") == used


@pytest.mark.parametrize(
    ("url", "protocol", "says"),
    [
        (f"http://host/app/{KEY}", "rtmp", "invalid scheme"),
        (f"host/app/{KEY}", "rtmp", "invalid scheme"),
        (f"srt://host:9000?streamid={KEY}", "rtmp", "invalid protocol"),
        (f"rtmp://host/{KEY}", "rtmp", "must be of format"),
        (f"rtmp://host/app/{KEY} x=1", "rtmp", "must be of format"),
        (f"rtmp:///app/{KEY}", "rtmp", "must be of format"),
        ("mux://", "rtmp", "stream_key"),
        (f"srt://?streamid={KEY}", "srt", "invalid url"),
        (f"srt://host?streamid={KEY}", "srt", "must have a port"),
        (f"srt://host:9000?mode=listener&streamid={KEY}", "srt", "mode=caller"),
        (f"rtmp://[::1/app/{KEY}", "rtmp", "invalid url"),
        ("rtmp://host/a/" + "k" * 5000, "rtmp", "longer"),
    ],
)
def test_refusals_never_show_the_key(url: str, protocol: str, says: str) -> None:
    """LiveKit repeats the address as it came; ours is redacted (trap 12)."""
    with pytest.raises(ServiceError) as caught:
        canonical(url, protocol)
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert says in caught.value.message
    assert KEY not in caught.value.message
    assert len(caught.value.message) < 400


def test_addresses_of_any_form_are_hidden_in_errors() -> None:
    assert in_error(KEY) == "{...}"
    assert in_error(f"gopher://host/{KEY}") == "gopher://host{...}"
    assert in_error("srt://host:9000") == "srt://host:9000"


def test_many_slashes_take_no_time() -> None:
    """A hostile address must not keep the server busy."""
    with pytest.raises(ServiceError):
        canonical("rtmp://h/" + "/" * 4000 + " x", "rtmp")


def test_families() -> None:
    assert [family(url) for url in ("RTMPS://h/a/k", "twitch://k", "srt://h", "wss://h", "http://h", "h")] == [
        "rtmp", "rtmp", "srt", "websocket", "", "",
    ]  # fmt: skip
