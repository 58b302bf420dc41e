"""Our JSON against protobuf's own: what we write it reads, what it writes we read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf import json_format, struct_pb2, timestamp_pb2, wrappers_pb2
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from generated.baxcloud.v1 import egress_pb2, project_pb2, video_conversion_pb2
from server.errors import Code, ServiceError
from server.rpc.json_codec import REST_JSON, TWIRP_JSON, dumps, loads
from server.rpc.json_decoder import DEEPEST

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
# The sign of zero means nothing, and does not travel.
DOUBLE = st.floats(allow_nan=False, allow_infinity=False).map(lambda value: value + 0.0)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | DOUBLE | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=10,
)
INT32, INT64 = st.integers(-(2**31), 2**31 - 1), st.integers(-(2**63), 2**63 - 1)


@st.composite
def jobs(draw: Any) -> video_conversion_pb2.ConversionJob:
    job = video_conversion_pb2.ConversionJob(
        id=draw(TEXT),
        status=draw(st.sampled_from(["PENDING", "FAILED", "STATUS_UNSPECIFIED"])),
        output_formats=draw(st.lists(TEXT, max_size=3)),
        hls_time=draw(DOUBLE),
        categorize=draw(st.booleans()),
        rendition_urls=draw(st.dictionaries(TEXT, TEXT, max_size=3)),
    )
    if draw(st.booleans()):
        job.duration_sec = draw(INT32)
        job.progress.percent = draw(DOUBLE)
        json_format.ParseDict(draw(ANY_JSON), job.metadata)
        job.created_at.FromSeconds(draw(st.integers(-62_135_596_800, 253_402_300_799)))
        job.categorization.scores.update(draw(st.dictionaries(TEXT, DOUBLE, max_size=3)))
    return job


@settings(max_examples=150, deadline=None)
@given(job=jobs())
def test_jobs_round_trip(job: Message) -> None:
    """Both styles, through our decoder and through protobuf's."""
    for codec in (REST_JSON, TWIRP_JSON):
        text = codec.dump(job)
        ours, theirs = type(job)(), type(job)()
        codec.load(ours, text)
        json_format.Parse(text, theirs)
        # Twirp's null stands for an unset message but for a set null value; only `metadata` can tell.
        if codec is TWIRP_JSON and not job.HasField("metadata"):
            ours.ClearField("metadata")
            theirs.ClearField("metadata")
        assert ours == job
        assert theirs == job


@settings(max_examples=100, deadline=None)
@given(job=jobs())
def test_protobufs_own_json_is_read(job: Message) -> None:
    for names in (False, True):
        text = json_format.MessageToJson(job, preserving_proto_field_name=names).encode()
        again = type(job)()
        REST_JSON.load(again, text)
        assert again == job


@settings(max_examples=100, deadline=None)
@given(value=INT64)
def test_64_bit_integers(value: int) -> None:
    """B-80: numbers on REST, strings on Twirp; both are read by both."""
    usage = project_pb2.Usage(conversion_cents=value)
    assert json.loads(REST_JSON.dump(usage))["conversionCents"] == value
    assert json.loads(TWIRP_JSON.dump(usage))["conversion_cents"] == str(value)
    for codec in (REST_JSON, TWIRP_JSON):
        for given_ in (value, str(value)):
            again = project_pb2.Usage()
            codec.decode(again, {"conversionCents": given_})
            assert again.conversion_cents == value


def test_one_message_has_one_text() -> None:
    """Map keys are sorted, so that a repetition of a call has the same bytes."""
    names = [f"k{number}" for number in range(50)]
    texts = set()
    for order in (names, list(reversed(names))):
        job = video_conversion_pb2.ConversionJob()
        for name in order:
            job.rendition_urls[name] = name
            job.metadata.struct_value.fields[name].null_value = struct_pb2.NULL_VALUE
        texts.add(REST_JSON.dump(job))
    assert len(texts) == 1


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2.0, b"2"),
        (2.5, b"2.5"),
        (-0.0, b"0"),
        (1e20, b"100000000000000000000"),
        (1e21, b"1e+21"),
        (5e-324, b"5e-324"),
        (float("inf"), b'"Infinity"'),
        (float("-inf"), b'"-Infinity"'),
        (float("nan"), b'"NaN"'),
    ],
)
def test_doubles(value: float, text: bytes) -> None:
    """GN-23: whole numbers stay whole."""
    assert dumps(REST_JSON.encode(struct_pb2.Value(number_value=value))) == text


@pytest.mark.parametrize(
    ("seconds", "nanos", "text"),
    [
        (0, 0, "1970-01-01T00:00:00.000Z"),
        (1767323045, 678_999_999, "2026-01-02T03:04:05.678Z"),
        (-1, 500_000_000, "1969-12-31T23:59:59.500Z"),
        (253402300799, 0, "9999-12-31T23:59:59.000Z"),
        (-62135596800, 0, "0001-01-01T00:00:00.000Z"),
    ],
)
def test_timestamps_out(seconds: int, nanos: int, text: str) -> None:
    """GN-20."""
    assert REST_JSON.encode(timestamp_pb2.Timestamp(seconds=seconds, nanos=nanos)) == text


@pytest.mark.parametrize(
    ("text", "seconds", "nanos"),
    [
        ("2026-01-02T03:04:05Z", 1767323045, 0),
        ("2026-01-02T03:04:05.5z", 1767323045, 500_000_000),
        ("2026-01-02t04:04:05.000000001+01:00", 1767323045, 1),
        ("2026-01-01T21:34:05-05:30", 1767323045, 0),
    ],
)
def test_timestamps_in(text: str, seconds: int, nanos: int) -> None:
    egress = egress_pb2.Egress()
    REST_JSON.decode(egress, {"createdAt": text})
    assert (egress.created_at.seconds, egress.created_at.nanos) == (seconds, nanos)


@pytest.mark.parametrize(
    "wrong",
    [
        "2026-01-02",
        "2026-13-02T03:04:05Z",
        "2026-01-02T03:04:05",
        "2026-01-02 03:04:05Z",
        "2026-01-02T25:04:05Z",
        "2026-01-02T03:04:05.1234567890Z",
        "0001-01-01T00:00:00+23:59",
        "٢026-01-02T03:04:05Z",
        5,
        {},
    ],
)
def test_wrong_timestamps(wrong: object) -> None:
    with pytest.raises(ServiceError, match="createdAt: must be a date-time") as refused:
        REST_JSON.decode(egress_pb2.Egress(), {"createdAt": wrong})
    assert refused.value.field == "createdAt"


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"status": "nope"}, "status: must be one of STARTED, COMPLETED, FAILED"),
        ({"status": True}, "status: must be one of STARTED, COMPLETED, FAILED"),
        ({"status": 2**40}, "status: must be one of STARTED, COMPLETED, FAILED"),
        ({"fileSize": 2**63}, f"fileSize: must be between {-(2**63)} and {2**63 - 1}"),
        ({"fileSize": "1.5"}, "fileSize: must be an integer"),
        ({"durationSec": "5"}, "durationSec: must be an integer"),
        ({"durationSec": 1.5}, "durationSec: must be an integer"),
        ({"durationSec": 2**31}, f"durationSec: must be between {-(2**31)} and {2**31 - 1}"),
        ({"destinations": {}}, "destinations: must be a list"),
        ({"destinations": ["a", None]}, "destinations[1]: must be a string"),
        ({"file": []}, "file: must be an object"),
        ({"file": {"fileType": 1}}, "file.fileType: must be a string"),
        ({"paused": "true"}, "paused: must be true or false"),
    ],
)
def test_wrong_values_name_their_field(tree: Any, message: str) -> None:
    with pytest.raises(ServiceError) as refused:
        REST_JSON.decode(egress_pb2.Egress(), tree)
    assert (refused.value.code, refused.value.message) == (Code.INVALID_ARGUMENT, message)


def test_enums_in_any_case() -> None:
    egress = egress_pb2.Egress()
    REST_JSON.decode(egress, {"status": "cOmPleted"})
    assert egress.status == egress_pb2.Egress.COMPLETED
    REST_JSON.decode(egress, {"status": 99})
    assert REST_JSON.encode(egress)["status"] == 99, "an unknown number is kept, its rule refuses it"


def test_one_of_several() -> None:
    """Two members of a oneof at once are refused."""
    request = video_conversion_pb2.UploadVideoRequest()
    with pytest.raises(ServiceError, match="chunk: cannot be given together with options"):
        REST_JSON.decode(request, {"options": {}, "chunk": "AA=="})


@pytest.mark.parametrize("text", ["AP8=", "AP8", "AP-_", ""])
def test_bytes(text: str) -> None:
    request = video_conversion_pb2.UploadVideoRequest()
    REST_JSON.decode(request, {"chunk": text})
    assert request.WhichOneof("part") == "chunk"
    with pytest.raises(ServiceError, match="chunk: must be base64 text"):
        REST_JSON.decode(request, {"chunk": "é!"})


def test_other_well_known_types() -> None:
    """LiveKit's messages use some; they take protobuf's own forms."""
    assert REST_JSON.encode(wrappers_pb2.Int64Value(value=5)) == "5"
    struct = struct_pb2.Struct()
    struct.update({"b": 1, "a": [True]})
    assert REST_JSON.encode(struct) == {"a": [True], "b": 1}


@pytest.mark.parametrize("depth", [DEEPEST - 1, DEEPEST])
def test_depth(depth: int) -> None:
    tree: object = 1
    for _ in range(depth):
        tree = [tree]
    message = video_conversion_pb2.CreateConversionJobRequest()
    if depth < DEEPEST:
        REST_JSON.decode(message, {"metadata": tree})
        assert REST_JSON.encode(message)["metadata"] == tree
    else:
        with pytest.raises(ServiceError, match="nested deeper"):
            REST_JSON.decode(message, {"metadata": tree})


@pytest.mark.parametrize(
    ("number", "kept"),
    [(2**53, True), (2**53 + 1, False), (2**60, True), (10**30, False), (-(2**53) - 1, False)],
)
def test_integers_are_kept_exactly_or_refused(number: int, kept: bool) -> None:
    """GN-23: a number that would come back as another one is told, not changed."""
    message = video_conversion_pb2.CreateConversionJobRequest()
    if kept:
        REST_JSON.decode(message, {"metadata": number})
        assert json.loads(REST_JSON.dump(message))["metadata"] == number
    else:
        with pytest.raises(ServiceError, match="send it as a string"):
            REST_JSON.decode(message, {"metadata": number})


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"NaN", b"Infinity", b"\xff", b"\xef\xbb\xbf{}", b"{} {}", b"1" * 5000, b"[" * 200_000],
)
def test_what_is_not_json(text: bytes) -> None:
    with pytest.raises(ServiceError) as refused:
        loads(text)
    assert refused.value.code is Code.MALFORMED
