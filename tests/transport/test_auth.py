"""Who may call what, and what a refused caller is told (contract GN-03, GN-04, GN-05, GN-06, GN-07, GN-18, B-81, B-89)."""

from __future__ import annotations

from typing import Any

import pytest

from generated.baxcloud.v1 import project_pb2, video_conversion_pb2
from server.context import CallerKind
from server.domain.project import ApiKey
from server.ids import ProjectId
from tests.transport.samples import valid_request
from tests.transport.surface import (
    ADMIN_TOKEN,
    KEY,
    NOW,
    OTHER_KEY,
    OTHER_PROJECT,
    PLAIN_KEY,
    PROJECT,
    Surface,
    headers_for,
)

BAXSTREAM = [
    "/video/jobs",
    "/video/jobs/cm1",
    "/categorize/jobs",
    "/moderate/jobs/cm1",
    "/video/moderate/jobs",
]
_BAD_CREDENTIALS: list[dict[str, str]] = [
    {},
    {"authorization": "Bearer wrong"},
    {"authorization": "Bearer "},
    {"authorization": f"Basic {KEY}"},
    {"authorization": KEY},
    {"authorization": f"Bearer {KEY}x"},
    {"authorization": f"Bearer {KEY} {KEY}"},
    {"authorization": "Bearer " + "x" * 2000},
    {"x-api-key": KEY},
]


@pytest.mark.parametrize("bad", _BAD_CREDENTIALS, ids=str)
async def test_bad_credentials(surface: Surface, bad: dict[str, str]) -> None:
    """GN-03, GN-14: no header, a wrong key, another scheme → 401 on every transport, whatever else is wrong."""
    headers = {**bad, "x-project-id": PROJECT}
    rest = await surface.rest("GET", "/video/jobs", None, headers)
    assert (rest.status, rest.code) == (401, "UNAUTHENTICATED")
    assert rest.headers["www-authenticate"] == "Bearer"
    method = surface.method("ListConversionJobs")
    request = video_conversion_pb2.ListConversionJobsRequest()
    assert (await surface.grpc(method, request, headers)).code == "unauthenticated"
    assert (await surface.twirp_json(method, {}, headers)).status == 401


async def test_one_good_key_does_not_excuse_a_second_one(surface: Surface) -> None:
    """A repeated header is one joined value, which is no key."""
    pairs = [("Authorization", f"Bearer {KEY}"), ("Authorization", "Bearer other"), ("X-Project-Id", PROJECT)]
    async with surface.session.get(f"{surface.http}/video/jobs", headers=pairs) as answer:
        assert answer.status == 401


@pytest.mark.parametrize("path", BAXSTREAM)
async def test_baxstream_needs_its_project_header(surface: Surface, path: str) -> None:
    """GN-04, B-89: no project 400, unknown or foreign project 403, the key's own 200."""
    missing = await surface.rest("GET", path, None, headers_for(KEY, None))
    assert (missing.status, missing.code) == (400, "INVALID_ARGUMENT")
    assert missing.meta["field"] == "X-Project-Id"
    for project in ("cl_unknown", OTHER_PROJECT, PROJECT + " x", "*", "%"):
        refused = await surface.rest("GET", path, None, headers_for(KEY, project))
        assert (refused.status, refused.code) == (403, "PERMISSION_DENIED")
    assert surface.recorder.calls == []
    assert (await surface.rest("GET", path, None, headers_for())).status == 200


@pytest.mark.parametrize("path", BAXSTREAM)
async def test_baxstream_permission(surface: Surface, path: str) -> None:
    """GN-05, GN-06: a key without the permission is refused there and works elsewhere."""
    refused = await surface.rest("GET", path, None, headers_for(PLAIN_KEY))
    assert (refused.status, refused.code) == (403, "PERMISSION_DENIED")
    assert "BaxStream" in refused.message
    assert (await surface.rest("GET", "/v1/rooms", None, headers_for(PLAIN_KEY, None))).status == 200


async def test_core_calls_need_the_key_alone(surface: Surface) -> None:
    """GN-18: the project comes from the key; a header may repeat it but not change it."""
    for headers in (headers_for(KEY, None), headers_for(KEY, PROJECT)):
        assert (await surface.rest("GET", "/v1/rooms", None, headers)).status == 200
    caller = surface.recorder.calls[-1].ctx.caller
    assert (caller.kind, caller.project_id, caller.key_id) == (CallerKind.API_KEY, PROJECT, "key_0")
    assert (await surface.rest("GET", "/v1/rooms", None, headers_for(KEY, OTHER_PROJECT))).status == 403


async def test_calls_act_in_the_project_of_the_key(surface: Surface) -> None:
    """GN-07: what a handler is given is the caller's own project."""
    await surface.rest("GET", "/video/jobs", None, headers_for(OTHER_KEY, OTHER_PROJECT))
    assert surface.recorder.calls[-1].ctx.project_id == OTHER_PROJECT


async def test_operator_calls(surface: Surface) -> None:
    """The admin token is a bearer token; an API key cannot do what it does, and it cannot do what a key does."""
    assert (await surface.rest("GET", "/v1/projects", None, headers_for(ADMIN_TOKEN, None))).status == 200
    assert surface.recorder.calls[-1].ctx.caller.kind is CallerKind.ADMIN
    assert (await surface.rest("GET", "/v1/projects", None, headers_for(KEY, None))).status == 403
    assert (await surface.rest("GET", "/v1/projects", None, headers_for("operator", None))).status == 401
    assert (await surface.rest("GET", "/v1/rooms", None, headers_for(ADMIN_TOKEN, None))).status == 403


async def test_a_key_sees_its_own_project_only(surface: Surface) -> None:
    """Foreign id 404, told like one that does not exist (design section 13); the header's project 403."""
    own = f"/v1/projects/{PROJECT}/usage"
    assert (await surface.rest("GET", own, None, headers_for(KEY, None))).status == 200
    assert (await surface.rest("GET", own, None, headers_for(ADMIN_TOKEN, None))).status == 200
    said = []
    for project in (OTHER_PROJECT, "cl_unknown"):
        refused = await surface.rest("GET", f"/v1/projects/{project}/usage", None, headers_for(KEY, None))
        assert refused.status == 404
        said.append(refused.message.replace(project, "…"))
    assert said[0] == said[1]
    assert (await surface.rest("GET", own, None, headers_for(KEY, OTHER_PROJECT))).status == 403


async def test_credentials_are_checked_before_the_body(surface: Surface) -> None:
    """What an unknown caller sends is not decoded."""
    refused = await surface.rest("POST", "/video/convert", b"not json", {"content-type": "application/json"})
    assert refused.status == 401
    method = surface.method("CreateConversionJob")
    assert (await surface.twirp_json(method, b"not json", {})).status == 401
    assert (await surface.grpc(method, b"\xff\xff", {})).code == "unauthenticated"


async def revoke(surface: Surface, key_id: str) -> None:
    async with surface.database.begin() as unit:
        assert await unit.keys.revoke_api_key(ProjectId(PROJECT), key_id, NOW)
        await unit.commit()


async def test_a_revoked_key_stops_at_once_where_it_was_revoked(surface: Surface) -> None:
    """Cached for seconds elsewhere, dropped here (design section 13)."""
    assert (await surface.rest("GET", "/v1/rooms")).status == 200
    await revoke(surface, "key_0")
    assert (await surface.rest("GET", "/v1/rooms")).status == 200, "still cached: nobody told this process"
    surface.keys.forget("key_0")
    assert (await surface.rest("GET", "/v1/rooms")).status == 401


async def test_last_use_is_noted(surface: Surface, eventually: Any) -> None:
    await surface.rest("GET", "/v1/rooms")

    async def noted() -> bool:
        async with surface.database.read() as unit:
            keys: tuple[ApiKey, ...] = await unit.keys.list_api_keys(ProjectId(PROJECT))
        used = {key.id: key.last_used_at for key in keys}
        return used["key_0"] is not None and used["key_1"] is None

    await eventually(noted)


async def test_project_or_admin_on_grpc(surface: Surface) -> None:
    method = surface.method("GetProject")
    foreign = project_pb2.GetProjectRequest(project_id=OTHER_PROJECT)
    assert (await surface.grpc(method, foreign, headers_for(KEY, None))).code == "not_found"
    assert (await surface.grpc(method, foreign, headers_for(ADMIN_TOKEN, None))).code == "ok"


async def test_no_method_is_open(surface: Surface) -> None:
    """Default deny: every route of the description refuses a caller without a key."""
    for method in surface.registry:
        outcome = await surface.grpc(method, valid_request(method), headers_for(None))
        assert outcome.code == "unauthenticated", method.full_name
