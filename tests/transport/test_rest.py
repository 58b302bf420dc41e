"""REST's own rules: routes, JSON, paging, statuses (contract B-31, B-32, B-61, B-83, B-93, GN-19, GN-20, GN-22, GN-23)."""

from __future__ import annotations

import re
from typing import Any

import pytest

from generated.baxcloud.v1 import project_pb2, room_pb2, video_conversion_pb2
from tests.transport.samples import full_reply
from tests.transport.surface import ADMIN_TOKEN, Surface, headers_for

CONVERT = {"inputUrl": "https://example.com/a.mp4"}
_CAMEL = re.compile(r"[a-z][A-Za-z0-9]*")
_MILLIS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_KEYED_BY_DATA = {"scores", "renditionUrls", "metadata", "versions"}


def last_request(surface: Surface) -> Any:
    return surface.recorder.calls[-1].request


@pytest.mark.parametrize(
    ("verb", "path", "method"),
    [
        ("GET", "/v1/egress/auto-egress", "GetAutoEgress"),
        ("PUT", "/v1/egress/auto-egress", "UpdateAutoEgress"),
        ("GET", "/v1/egress/EG_1", "GetEgress"),
        ("DELETE", "/v1/egress/EG_1", "DeleteEgress"),
        ("GET", "/v1/recordings/active", "ListActiveRecordings"),
        ("GET", "/v1/recordings/rec_1", "GetRecording"),
        ("POST", "/v1/recordings/active/stop", "StopRecording"),
        ("POST", "/v1/rooms/a/recording/start", "StartRoomRecording"),
        ("PUT", "/v1/rooms/a/metadata", "UpdateRoomMetadata"),
        ("PATCH", "/v1/rooms/a/metadata", "UpdateRoomMetadata"),
        ("GET", "/video/categorize/jobs/cm1", "GetCategorizationJob"),
        ("GET", "/categorize/jobs", "ListCategorizationJobs"),
    ],
)
async def test_literals_win_over_variables(surface: Surface, verb: str, path: str, method: str) -> None:
    """contract C.2: `auto-egress` and `active` are no ids, wherever they are declared."""
    await surface.rest(verb, path, {} if verb in ("POST", "PUT", "PATCH") else None)
    assert surface.recorder.calls[-1].method == method


@pytest.mark.parametrize(
    ("verb", "path", "allow"),
    [
        ("GET", "/video/convert", "POST"),
        ("POST", "/video/jobs", "GET"),
        ("PUT", "/v1/rooms/a", "DELETE, GET"),
        ("DELETE", "/v1/egress/auto-egress", "GET, PUT"),
        ("OPTIONS", "/v1/rooms", "GET, POST"),
        ("GET", "/video/upload", "POST"),
        ("POST", "/healthz", "GET, HEAD"),
    ],
)
async def test_a_known_path_with_another_verb(surface: Surface, verb: str, path: str, allow: str) -> None:
    """VC-02: `/video/convert` is for POST only; so for every route."""
    outcome = await surface.rest(verb, path)
    assert (outcome.status, outcome.code) == (405, "METHOD_NOT_ALLOWED")
    assert sorted(outcome.headers["allow"].split(", ")) == sorted(allow.split(", "))


@pytest.mark.parametrize(
    "path", ["/", "/nope", "/video", "/video/jobs/", "/v1//rooms", "/video/jobs/a/b", "/V1/rooms"]
)
async def test_unknown_paths_are_json_404(surface: Surface, path: str) -> None:
    outcome = await surface.rest("GET", path)
    assert (outcome.status, outcome.code) == (404, "NOT_FOUND")


@pytest.mark.parametrize(
    ("segment", "name"),
    [("a%20b", "a b"), ("a%2Fb", "a/b"), ("%C3%A9%3F%23", "é?#"), ("..", ".."), ("a+b", "a+b"), ("%25", "%")],
)
async def test_path_variables_are_percent_decoded_once(surface: Surface, segment: str, name: str) -> None:
    assert (await surface.rest("GET", f"/v1/rooms/{segment}")).status == 200
    assert last_request(surface).name == name


async def test_path_wins_over_body(surface: Surface) -> None:
    names: list[Any] = ["other", 5, None, []]
    for name in names:
        await surface.rest("PATCH", "/v1/rooms/real/metadata", {"metadata": "m", "name": name})
        assert last_request(surface) == room_pb2.UpdateRoomMetadataRequest(name="real", metadata="m")


async def test_undecodable_path(surface: Surface) -> None:
    assert (await surface.rest("GET", "/v1/rooms/%ff")).status == 400


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("page=2&pageSize=5", {"page": 2, "page_size": 5}),
        ("page_size=5", {"page_size": 5}),
        ("limit=5", {"limit": 5}),
        ("status=pending", {"status": 1}),
        ("status=CANCELLED&unknown=1&unknown=2", {"status": 5}),
        ("", {}),
    ],
)
async def test_query_parameters(surface: Surface, query: str, expected: dict[str, Any]) -> None:
    """B-32: both spellings, both families' size names, enums in any case; unknown ones are ignored."""
    assert (await surface.rest("GET", f"/video/jobs?{query}")).status == 200
    assert last_request(surface) == video_conversion_pb2.ListConversionJobsRequest(**expected)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("page=0", "page"),
        ("page=-1", "page"),
        ("page=1.5", "page"),
        ("page=", "page"),
        ("page=abc", "page"),
        ("page=%201", "page"),
        ("page=99999999999999999999", "page"),
        ("page=1&page=2", "page"),
        ("pageSize=0", "pageSize"),
        ("status=BOGUS", "status"),
        ("status=", "status"),
        ("status=STATUS_UNSPECIFIED", "status"),
        ("status=%ff", "status"),
    ],
)
async def test_bad_query_parameters(surface: Surface, query: str, field: str) -> None:
    """B-32, VC-37, VC-38: 400 naming the parameter."""
    outcome = await surface.rest("GET", f"/video/jobs?{query}")
    assert (outcome.status, outcome.code, outcome.meta["field"]) == (400, "INVALID_ARGUMENT", field)


async def test_too_many_query_parameters(surface: Surface) -> None:
    assert (await surface.rest("GET", "/video/jobs?" + "a=1&" * 300)).status == 400


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "inputUrl"),
        ({"inputUrl": ""}, "inputUrl"),
        ({"inputUrl": None}, "inputUrl"),
        ({"inputUrl": 5}, "inputUrl"),
        ({"inputUrl": ["a"]}, "inputUrl"),
        ({**CONVERT, "outputFormats": []}, "outputFormats"),
        ({**CONVERT, "outputFormats": "720p"}, "outputFormats"),
        ({**CONVERT, "outputFormats": ["240p"]}, "outputFormats[0]"),
        ({**CONVERT, "outputFormats": ["360p", 720]}, "outputFormats[1]"),
        ({**CONVERT, "outputFormats": ["360p", "360p"]}, "outputFormats"),
        ({**CONVERT, "ffmpegPreset": "placebo"}, "ffmpegPreset"),
        ({**CONVERT, "hlsTime": 0}, "hlsTime"),
        ({**CONVERT, "hlsTime": 11}, "hlsTime"),
        ({**CONVERT, "hlsTime": "4"}, "hlsTime"),
        ({**CONVERT, "hlsTime": True}, "hlsTime"),
        ({**CONVERT, "hlsTime": 10**400}, "hlsTime"),
        ({**CONVERT, "categorize": "true"}, "categorize"),
        ({**CONVERT, "categorize": 1}, "categorize"),
        ({**CONVERT, "s3Config": "bucket"}, "s3Config"),
        ({**CONVERT, "s3Config": {"bucket": 5}}, "s3Config.bucket"),
        ({**CONVERT, "s3Config": {"secretKey": ["x"]}}, "s3Config.secretKey"),
        ({**CONVERT, "hlsTime": 4, "hls_time": 4}, "hlsTime"),
        ({**CONVERT, "metadata": {"a": [2**53 + 1]}}, "metadata.a[0]"),
        ({**CONVERT, "metadata": {"a": "nul\0"}}, "metadata"),
    ],
)
async def test_wrong_fields_are_named(surface: Surface, body: Any, field: str) -> None:
    """VC-03, VC-06, VC-08, VC-12, B-93: wrong types and values are 400 with the field's REST name."""
    outcome = await surface.rest("POST", "/video/convert", body)
    assert (outcome.status, outcome.code, outcome.meta.get("field")) == (400, "INVALID_ARGUMENT", field)
    assert outcome.message.startswith(f"{field}: ")
    assert surface.recorder.calls == []


async def test_all_violations_are_listed(surface: Surface) -> None:
    """The first in field order is the message; `violations` has them all."""
    outcome = await surface.rest("POST", "/video/convert", {"hlsTime": 99, "ffmpegPreset": "x"})
    assert outcome.message == "inputUrl: is required"
    assert [one.split(":")[0] for one in outcome.meta["violations"].split("; ")] == [
        "inputUrl",
        "ffmpegPreset",
        "hlsTime",
    ]


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b"5",
        b"{} x",
        b"\xff",
        b"{'a': 1}",
        b'{"hlsTime": NaN}',
        b'{"a": 1e}',
        b"\x00",
    ],
)
async def test_bad_json(surface: Surface, body: bytes) -> None:
    outcome = await surface.rest("POST", "/video/convert", body)
    assert (outcome.status, outcome.code) == (400, "INVALID_ARGUMENT")


@pytest.mark.parametrize("number", [1, 10, 2.5, 4.0])
async def test_hls_time_whole_and_fractional(surface: Surface, number: float) -> None:
    """B-93, VC-12."""
    assert (await surface.rest("POST", "/video/convert", {**CONVERT, "hlsTime": number})).status == 201
    assert last_request(surface).hls_time == number


async def test_unknown_fields_are_ignored(surface: Surface) -> None:
    outcome = await surface.rest("POST", "/video/convert", {**CONVERT, "later": {"deep": []}, "": 1})
    assert outcome.status == 201


async def test_absent_bodies(surface: Surface) -> None:
    """`POST` with nothing and with `{}` are the same (contract C.3)."""
    for body in (None, b"", b"{}", b"  "):
        assert (await surface.rest("POST", "/v1/egress/EG_1/stop", body)).status == 200


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("application/json; charset=utf-8", 201),
        ("APPLICATION/JSON", 201),
        ("application/vnd.api+json", 201),
        ("", 201),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("multipart/form-data; boundary=x", 415),
    ],
)
async def test_content_types(surface: Surface, kind: str, status: int) -> None:
    """B-31: 415 for a body that is not JSON."""
    body = b'{"inputUrl": "https://example.com/a.mp4"}'
    outcome = await surface.rest("POST", "/video/convert", body, headers_for(**{"content-type": kind}))
    assert outcome.status == status
    if status == 415:
        assert outcome.code == "UNSUPPORTED_MEDIA_TYPE"


async def test_statuses_of_success(surface: Surface) -> None:
    """VC-02, B-61, B-83: 201 for what creates, 200 for the rest, 204 without a body for deletions; AI calls answer 200."""
    assert (await surface.rest("POST", "/v1/rooms", {"name": "a"})).status == 201
    assert (await surface.rest("POST", "/video/convert", CONVERT)).status == 201
    assert (
        await surface.rest("POST", "/v1/tokens", {"roomName": "a", "participantIdentity": "b"})
    ).status == 200
    assert (await surface.rest("POST", "/v1/rooms/a/recording/start", {})).status == 201
    assert (await surface.rest("POST", "/categorize/video", {"inputUrl": "https://e.com/a"})).status == 200
    deleted = await surface.rest("DELETE", "/video/jobs/cm1")
    assert (deleted.status, deleted.raw) == (204, b"")
    assert "content-type" not in deleted.headers


async def test_ai_routes_wrap_their_answers(surface: Surface) -> None:
    """B-31: `{"success": true, "data": …}` on the AI routes, bare replies elsewhere; the type is in the path."""
    wrapped = await surface.rest("POST", "/moderate/image", {"inputUrl": "https://e.com/a"})
    assert wrapped.reply["success"] is True
    assert last_request(surface).input_type == "image"
    assert "items" in (await surface.rest("GET", "/categorize/jobs")).reply["data"]
    assert "success" not in (await surface.rest("GET", "/video/jobs")).reply
    refused = await surface.rest("POST", "/categorize/audio", {"inputUrl": "https://e.com/a"})
    assert (refused.status, refused.meta["field"]) == (400, "inputType")


async def test_names_and_times_of_every_reply(surface: Surface) -> None:
    """GN-19, GN-20, GN-22: camelCase keys, ISO times in UTC with milliseconds, lists under `items`."""
    checked = 0
    for method in surface.registry:
        if not any(binding.verb == "GET" for binding in method.bindings) or method.server_streaming:
            continue
        surface.recorder.always(method.name, full_reply(method))
        path = re.sub(r"\{project_id\}", "p", method.bindings[0].template)
        headers = headers_for(ADMIN_TOKEN, None) if "Project" in method.service else headers_for()
        outcome = await surface.rest("GET", re.sub(r"\{\w+\}", "x", path), None, headers)
        tree = outcome.reply["data"] if method.rule.rest_envelope else outcome.reply
        _check_keys(tree)
        if method.name.startswith("List"):
            assert isinstance(tree["items"], list)
            assert isinstance(tree["total"], int)
        checked += 1
    assert checked > 20


def _check_keys(tree: Any) -> None:
    if isinstance(tree, list):
        for item in tree:
            _check_keys(item)
    elif isinstance(tree, dict):
        for key, value in tree.items():
            assert _CAMEL.fullmatch(key), key
            if key.endswith("At"):
                assert _MILLIS.fullmatch(value), (key, value)
            if key not in _KEYED_BY_DATA:
                _check_keys(value)


async def test_numbers_in_replies(surface: Surface) -> None:
    """B-80: 64-bit integers are numbers; whole doubles carry no `.0`; unset optionals are left out, empty maps too."""
    usage = project_pb2.Usage(project_id="p", conversion_seconds=4_000_000_000_123, ai_overage_cents=2.0)
    surface.recorder.answers["GetUsage"] = lambda _r, _c: usage
    outcome = await surface.rest("GET", "/v1/projects/cl_proj_abc123/usage", None, headers_for())
    assert b'"conversionSeconds":4000000000123,' in outcome.raw
    assert b'"aiOverageCents":2}' in outcome.raw
    job = video_conversion_pb2.ConversionJob(id="cm1", status="PENDING", hls_time=2.5)
    surface.recorder.answers["GetConversionJob"] = lambda _r, _c: job
    reply = (await surface.rest("GET", "/video/jobs/cm1")).reply
    assert reply["hlsTime"] == 2.5
    assert reply["outputFormats"] == []
    for absent in ("outputUrl", "renditionUrls", "progress", "startedAt", "metadata", "costCents"):
        assert absent not in reply


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        "text",
        0,
        -1.5,
        True,
        [],
        {},
        {"a": {"b": [1, 2.5, None, "é", False, [], {}]}, "": "", "0": 1e21, "big": 2**53},
        [[[[]]]],
    ],
    ids=str,
)
async def test_metadata_comes_back_as_it_was(surface: Surface, metadata: Any) -> None:
    """GN-23, VC-25: any JSON value, null and whole numbers included."""
    surface.recorder.answers["CreateConversionJob"] = lambda request, _ctx: (
        video_conversion_pb2.ConversionJob(metadata=request.metadata)
    )
    outcome = await surface.rest("POST", "/video/convert", {**CONVERT, "metadata": metadata})
    assert outcome.reply["metadata"] == metadata
    assert type(outcome.reply["metadata"]) is type(metadata)


async def test_body_that_is_one_field(surface: Surface) -> None:
    """`body: "s3_config"`: the JSON is the configuration itself."""
    headers = headers_for(ADMIN_TOKEN, None)
    await surface.rest("PUT", "/v1/projects/p1/s3-config", {"bucket": "b", "cdnUrl": "c"}, headers)
    expected = project_pb2.SetS3ConfigRequest(project_id="p1")
    expected.s3_config.bucket, expected.s3_config.cdn_url = "b", "c"
    assert last_request(surface) == expected
    outcome = await surface.rest("PUT", "/v1/projects/p1/s3-config", {"bucket": 5}, headers)
    assert (outcome.status, outcome.meta["field"]) == (400, "s3Config.bucket")


async def test_head_is_get_without_the_body(surface: Surface) -> None:
    got = await surface.rest("GET", "/v1/rooms")
    head = await surface.rest("HEAD", "/v1/rooms")
    assert (head.status, head.raw) == (200, b"")
    assert head.headers["content-length"] == got.headers["content-length"]


async def test_health(surface: Surface) -> None:
    for path in ("/healthz", "/v1/health"):
        outcome = await surface.rest("GET", path, None, {})
        assert (outcome.status, outcome.reply) == (200, {"status": "ok"})


async def test_no_cross_origin_access(surface: Surface) -> None:
    outcome = await surface.rest("GET", "/v1/rooms", None, headers_for(origin="https://evil.example"))
    assert not [name for name in outcome.headers if name.lower().startswith("access-control")]
