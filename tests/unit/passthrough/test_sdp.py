"""Offers of LiveKit's subscriber connection and what is answered."""

from __future__ import annotations

import pytest

from adapters.passthrough.sdp import LocalSide, answer, parse_offer

OFFER = """v=0
o=- 8494459538107632525 1795283434 IN IP4 0.0.0.0
s=-
t=0 0
a=fingerprint:sha-256 82:A8:E5
a=group:BUNDLE 0 1 2 3
m=application 9 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 0.0.0.0
a=setup:actpass
a=mid:0
a=sctp-port:5000
a=ice-ufrag:ufrag
a=ice-pwd:password
m=video 9 UDP/TLS/RTP/SAVPF 96 97 35
c=IN IP4 0.0.0.0
a=mid:1
a=rtpmap:96 VP9/90000
a=fmtp:96 profile-id=0
a=rtcp-fb:96 nack
a=rtcp-fb:96 nack pli
a=rtcp-fb:96 transport-cc
a=rtpmap:97 rtx/90000
a=fmtp:97 apt=96
a=rtpmap:35 AV1/90000
a=ssrc-group:FID 1111 2222
a=ssrc:1111 cname:x
a=ssrc:2222 cname:x
a=msid:PA_one TR_video
a=sendonly
m=audio 9 UDP/TLS/RTP/SAVPF 111 63
a=mid:2
a=rtpmap:111 opus/48000/2
a=rtcp-fb:111 nack
a=rtpmap:63 red/48000/2
a=ssrc:3333 cname:x
a=msid:PA_one TR_audio
a=sendonly
m=video 9 UDP/TLS/RTP/SAVPF 96
a=mid:3
a=rtpmap:96 H264/90000
a=inactive
"""
LOCAL = LocalSide("me", "secret", (("sha-256", "AB:CD"),), ("1 1 udp 2130706431 127.0.0.1 5000 typ host",))


def test_an_offer_tells_whose_packets_are_whose() -> None:
    offer = parse_offer(OFFER.replace("\n", "\r\n"))
    assert (offer.username, offer.password, offer.ice_lite) == ("ufrag", "password", False)
    assert offer.fingerprints == (("sha-256", "82:A8:E5"),)
    application, video, audio, gone = offer.media
    assert application.kind == "application"
    assert (video.track_id, video.ssrcs, dict(video.repairs)) == ("TR_video", (1111,), {2222: 1111})
    assert {codec.name: codec.nack for codec in video.codecs.values()} == {"vp9": True, "av1": False}
    assert dict(video.rtx_types) == {97: 96}
    assert [codec.name for codec in audio.codecs.values()] == ["opus"]
    assert not gone.active


def test_the_answer_takes_every_section_and_sends_nothing() -> None:
    lines = answer(parse_offer(OFFER), LOCAL).split("\r\n")
    assert "a=group:BUNDLE 0 1 2 3" in lines
    assert lines.count("a=recvonly") == 2
    assert lines.count("a=inactive") == 1
    assert "m=video 9 UDP/TLS/RTP/SAVPF 96 35 97" in lines
    assert "m=audio 9 UDP/TLS/RTP/SAVPF 111" in lines
    assert "a=rtcp-fb:96 nack pli" in lines
    assert not [
        line for line in lines if "transport-cc" in line or "red/" in line or line.startswith("a=ssrc")
    ]
    assert lines.count("a=setup:active") == 4


def test_what_is_no_offer_is_refused() -> None:
    with pytest.raises(ValueError, match="lacks"):
        parse_offer("v=0\r\n")
