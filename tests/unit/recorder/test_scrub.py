"""What a recorder's log lines lose."""

from __future__ import annotations

import pytest

from adapters.recorder.scrub import scrubbed


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("connected to room r", "connected to room r"),
        ("ws failure: ws://host:7880/rtc?access_token=eyJa.eyJb.c", "ws failure: ws://host:7880/***"),
        ("token eyJhbGciOi.eyJzdWIi.sig-_ was refused", "token *** was refused"),
        ("rtmp://live.example.com/app/stream-key: refused", "rtmp://live.example.com/*** refused"),
        ('"rtmps://user:pass@host:443/app/key"', '"rtmps://host:443/***"'),
        ("srt://host:7001?streamid=secret&passphrase=x", "srt://host:7001"),
    ],
)
def test_lines(line: str, shown: str) -> None:
    assert scrubbed(line) == shown
