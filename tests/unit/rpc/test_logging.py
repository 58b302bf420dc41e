"""No secret reaches the log (encoding-and-safety 2.3)."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from server.observability.logging import configure_logging, scrub
from server.observability.tracing import NoTracer, tracer

SECRETS = {
    "https://user:pa55@host/x": "https://***@host/x",
    "see https://h/x.mp4?X-Amz-Signature=5ecret&b=1 now": "see https://h/x.mp4?*** now",
    "rtmp://live.example.com/app/5tream-key": "rtmp://live.example.com/app/***",
    "rtmps://a.b:443/app/inst/5tream?x=1": "rtmps://a.b:443/app/***",
    "Authorization: Bearer bax_5ecret": "Authorization: Bearer ***",
    "key bax_abcDEF_123 refused": "key bax_*** refused",
    "whsec_5ecret": "whsec_***",
    "plain text, no secret: a?b=c": "plain text, no secret: a?b=c",
}


@pytest.mark.parametrize(("text", "shown"), SECRETS.items())
def test_scrub(text: str, shown: str) -> None:
    assert scrub(text) == shown


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    configure_logging("info", stream=stream)
    yield stream
    root.handlers, root.level = before, level
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_nested_values_and_hidden_keys(written: io.StringIO) -> None:
    structlog.get_logger("t").info(
        "event",
        headers={"Authorization": "Bearer bax_x", "x-api-key": "k", "accept": "*/*"},
        urls=["https://h/a?token=5ecret"],
        secret_key="5ecret",
        number=5,
    )
    (line,) = lines(written)
    assert "5ecret" not in json.dumps(line)
    assert line["headers"] == {"Authorization": "***", "x-api-key": "***", "accept": "*/*"}
    assert line["urls"] == ["https://h/a?***"]
    assert (line["secret_key"], line["number"], line["level"]) == ("***", 5, "info")


def test_tracebacks_are_scrubbed(written: io.StringIO) -> None:
    try:
        raise RuntimeError("could not open https://u:5ecret@h/x?sig=5ecret")
    except RuntimeError as fault:
        structlog.get_logger("t").error("failed", exc_info=fault)
    (line,) = lines(written)
    assert "RuntimeError" in str(line["exception"])
    assert "5ecret" not in json.dumps(line)


def test_libraries_log_the_same_way(written: io.StringIO) -> None:
    logging.getLogger("some.library").warning("GET %s", "https://h/x?sig=5ecret")
    logging.getLogger("some.library").debug("not at this level")
    (line,) = lines(written)
    assert line["event"] == "GET https://h/x?***"
    assert (line["level"], line["logger"]) == ("warning", "some.library")


def test_levels(written: io.StringIO) -> None:
    structlog.get_logger("t").debug("not at this level")
    assert written.getvalue() == ""
    with pytest.raises(KeyError):
        configure_logging("loud", stream=written)


def test_no_tracing_without_the_extra() -> None:
    """OpenTelemetry is optional: without it the hook does nothing."""
    found = tracer()
    assert isinstance(found, NoTracer)
    with found.span("rpc", {"traceparent": "x"}):
        pass
