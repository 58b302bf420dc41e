"""The description of the API: valid, complete, true, and readable without anything from elsewhere."""

from __future__ import annotations

import asyncio
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import validate

from server.transports.openapi import descriptions
from tests.transport.samples import full_reply, rest_call, valid_request
from tests.transport.surface import ADMIN_TOKEN, Surface, headers_for


@pytest.fixture
async def document(surface: Surface) -> Any:
    async with surface.session.get(f"{surface.http}/openapi.json") as answer:
        assert answer.status == 200
        return await answer.json()


async def test_it_is_valid(document: Any) -> None:
    assert document["openapi"] == "3.1.0"
    await asyncio.to_thread(validate, document)


async def test_everything_is_described(document: Any) -> None:
    """Each operation, parameter and property carries the proto's comment."""
    for path, verbs in document["paths"].items():
        for verb, operation in verbs.items():
            assert operation["description"], (path, verb)
            assert operation["security"]
            for parameter in operation.get("parameters", []):
                assert parameter["description"], (path, parameter)
    for name, schema in document["components"]["schemas"].items():
        for field, one in schema.get("properties", {}).items():
            assert name in ("Error", "Problem") or one.get("description"), (name, field)


async def test_operation_ids_are_unique(document: Any) -> None:
    ids = [operation["operationId"] for verbs in document["paths"].values() for operation in verbs.values()]
    assert len(ids) == len(set(ids))
    assert len(ids) > 60


async def test_the_upload_is_there(document: Any) -> None:
    content = document["paths"]["/video/upload"]["post"]["requestBody"]["content"]["multipart/form-data"]
    assert content["schema"]["required"] == ["video"]
    assert set(content["schema"]["properties"]) >= {
        "video",
        "outputFormats",
        "hlsTime",
        "s3Config",
        "metadata",
    }
    assert content["encoding"]["s3Config"] == {"contentType": "application/json"}


async def test_limits_come_from_the_rules(document: Any) -> None:
    body = document["paths"]["/video/convert"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["required"] == ["inputUrl"]
    formats = body["properties"]["outputFormats"]
    assert formats["items"]["enum"] == ["360p", "480p", "720p", "1080p"]
    assert (formats["minItems"], formats["uniqueItems"]) == (1, True)
    assert (body["properties"]["hlsTime"]["minimum"], body["properties"]["hlsTime"]["maximum"]) == (1, 10)
    assert "projectId" in document["paths"]["/video/convert"]["post"]["security"][0]


async def test_rtcstacks_routes_tell_their_two_credentials_and_answers(document: Any) -> None:
    """B-66, B-68."""
    start = document["paths"]["/v1/rooms/{roomId}/recording/start"]["post"]
    assert [set(way) for way in start["security"]] == [
        {"apiKey"},
        {"rtcstackKey", "rtcstackTimestamp", "rtcstackSignature"},
    ]
    assert start["responses"]["200"]["content"] == start["responses"]["201"]["content"]


async def test_requests_and_replies_are_as_described(surface: Surface, document: Any) -> None:
    """Every REST answer to a valid call fits its schema, and every valid body fits its own."""
    checked = 0
    for method in surface.registry:
        if method.client_streaming or method.server_streaming:
            continue
        surface.recorder.always(method.name, full_reply(method))
        headers = headers_for(ADMIN_TOKEN, None) if "Project" in method.service else headers_for()
        for binding in method.bindings:
            verb, path, body = rest_call(binding, valid_request(method))
            shown = re.sub(r"\{(\w+)\}", lambda match: "{" + _camel(match[1]) + "}", binding.template)
            operation = document["paths"][shown][verb.lower()]
            if body is not None:
                _check(document, operation["requestBody"]["content"]["application/json"]["schema"], body)
            outcome = await surface.rest(verb, path, body, headers)
            answer = operation["responses"][str(outcome.status)]
            if outcome.reply is not None:
                _check(document, answer["content"]["application/json"]["schema"], outcome.reply)
            checked += 1
        surface.recorder.always(method.name, method.reply_type())
        verb, path, body = rest_call(method.bindings[0], valid_request(method))
        outcome = await surface.rest(verb, path, body, headers)
        if outcome.reply is not None:
            content = operation["responses"][str(outcome.status)]["content"]["application/json"]
            _check(document, content["schema"], outcome.reply)
    assert checked > 60


async def test_errors_are_as_described(surface: Surface, document: Any) -> None:
    for outcome in (await surface.rest("GET", "/video/jobs?page=0"), await surface.rest("GET", "/nope")):
        _check(document, {"$ref": "#/components/schemas/Error"}, outcome.reply)
    problem = await surface.rest("GET", "/v1/rooms/a/recording", None, {})
    _check(document, {"$ref": "#/components/schemas/Problem"}, problem.reply)


def _check(document: Any, schema: Any, value: Any) -> None:
    rooted = {**schema, "components": document["components"]}
    OAS31Validator(rooted).validate(value)


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def test_the_comments_are_generated() -> None:
    table = descriptions()
    assert table["baxcloud.v1.RoomService.GetRoom"] == "Returns one room."
    assert table["baxcloud.v1.ConversionJob.Progress.percent"] == "Share of the whole job, 0 to 100."


async def test_the_page_needs_nothing_from_elsewhere(surface: Surface) -> None:
    for path in ("/docs", "/docs/docs.css", "/docs/docs.js"):
        async with surface.session.get(surface.http + path) as answer:
            text = await answer.text()
            assert answer.status == 200
            assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert not re.search(r"https?://(?!\$)", text), path
        assert "innerHTML" not in text


@pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed")
async def test_the_page_shows_every_method(surface: Surface, document: Any, tmp_path: Path) -> None:
    """A real browser runs the page's script under its own content policy."""
    browser = await asyncio.create_subprocess_exec(
        "chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}",
        "--virtual-time-budget=10000", "--dump-dom", f"{surface.http}/docs",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    shown, _ = await asyncio.wait_for(browser.communicate(), 60)
    page = shown.decode()
    for verbs in document["paths"].values():
        for operation in verbs.values():
            assert f'<article id="{operation["operationId"]}"' in page
    assert "could not be read" not in page
