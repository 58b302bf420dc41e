"""Every method of every service answers the same on gRPC, Twirp JSON, Twirp protobuf and REST."""

from __future__ import annotations

from google.protobuf.message import Message

from adapters.db.unit_of_work import SqlDatabase
from server.errors import RENDERINGS, Code
from server.rpc.registry import OWN_FILES, Method
from server.rpc.validation import validate
from tests.transport.samples import empty_reply, full_reply, parsed, rest_call, valid_request, wrong_requests
from tests.transport.surface import (
    ADMIN_TOKEN,
    KEY,
    PROJECT,
    Outcome,
    Surface,
    as_tree,
    headers_for,
    running_surface,
    same_code,
)

_REST_CODES = {RENDERINGS[code].rest_code: code.value for code in reversed(Code)}


def credentials(method: Method) -> dict[str, str]:
    admin = method.service.endswith("ProjectService")
    return headers_for(ADMIN_TOKEN, None) if admin else headers_for(KEY, PROJECT)


async def everywhere(
    surface: Surface, method: Method, request: Message, headers: dict[str, str]
) -> list[Outcome]:
    """The outcome on each transport that has the method."""
    outcomes = [await surface.grpc(method, request, headers)]
    if not method.server_streaming:
        outcomes.append(await surface.twirp_json(method, request, headers))
        outcomes.append(await surface.twirp_protobuf(method, request, headers))
    for binding in method.bindings:
        verb, path, body = rest_call(binding, request)
        outcomes.append(await surface.rest(verb, path, body, headers))
    return outcomes


def unary(surface: Surface) -> list[Method]:
    return [method for method in surface.registry if not method.client_streaming]


def shared(outcome: Outcome) -> tuple[str, str]:
    code = _REST_CODES.get(outcome.code, outcome.code)
    if outcome.code.isdigit():  # a problem document has a status and no code
        code = next(one.value for one, shown in RENDERINGS.items() if shown.rest_http == int(outcome.code))
    return same_code(code), outcome.message


async def test_every_method_without_credentials(surface: Surface) -> None:
    """B-81, B-89: the same refusal everywhere, before anything of the request is looked at."""
    for method in unary(surface):
        for outcome in await everywhere(surface, method, valid_request(method), {}):
            assert shared(outcome) == ("unauthenticated", "invalid or missing credentials"), method.full_name
    assert surface.recorder.calls == []


async def test_every_rule_is_told_alike(surface: Surface) -> None:
    """One message per error on all transports, naming the field as REST spells it (design section 13)."""
    tried = 0
    for method in unary(surface):
        for field, request in wrong_requests(method):
            outcomes = await everywhere(surface, method, request, credentials(method))
            said = {shared(outcome) for outcome in outcomes}
            assert len(said) == 1, (method.full_name, field, said)
            code, message = said.pop()
            assert code == "invalid_argument"
            assert message.startswith((f"{field}: ", f"{field}[")), (method.full_name, field, message)
            for outcome in outcomes:
                assert outcome.code.isdigit() or outcome.meta["field"].startswith(field)
            tried += 1
    assert tried > 150
    assert surface.recorder.calls == []


async def test_every_method_with_good_input(surface: Surface) -> None:
    """The handler sees the same request and the caller gets the same reply, whatever the transport."""
    for method in unary(surface):
        request, reply = valid_request(method), full_reply(method)
        validate(request)
        if method.server_streaming:

            async def stream(_request: Message, _ctx: object, reply: Message = reply) -> object:
                yield reply
                yield reply

            surface.recorder.answers[method.name] = stream
        else:
            surface.recorder.always(method.name, reply)
        outcomes = await everywhere(surface, method, request, credentials(method))
        for outcome in outcomes:
            assert outcome.code == "ok", (method.full_name, outcome)
        seen = surface.recorder.calls[-len(outcomes) :]
        for call in seen:
            assert call.request == request, (method.full_name, call.ctx.transport)
        transports = ["grpc"] + ([] if method.server_streaming else ["twirp", "twirp"])
        assert [call.ctx.transport for call in seen] == transports + ["rest"] * len(method.bindings)
        if not method.server_streaming:
            _same_replies(method, outcomes, as_tree(reply))


def _same_replies(method: Method, outcomes: list[Outcome], expected: object) -> None:
    grpc, twirp_json, twirp_protobuf, *rest = outcomes
    assert grpc.reply == twirp_json.reply == twirp_protobuf.reply == expected, method.full_name
    assert grpc.raw == twirp_protobuf.raw
    for outcome in rest:
        if empty_reply(method):
            assert (outcome.status, outcome.raw) == (204, b"")
            continue
        assert parsed(method, outcome.reply) == expected, method.full_name
        assert outcome.status == (method.rule.rest_status or (201 if method.rule.creates else 200))


async def test_every_method_is_bound(surface: Surface) -> None:
    """Each RPC of the protos is on gRPC and Twirp, and on REST exactly if it is annotated."""
    described = {
        f"{service.full_name}/{method.name}": method
        for file in OWN_FILES
        for service in file.services_by_name.values()
        for method in service.methods
    }
    assert {method.full_name for method in surface.registry} == set(described)
    assert len(described) > 60
    async with surface.session.get(f"{surface.http}/openapi.json") as answer:
        document = await answer.json()
    on_rest = {one["x-rpc"] for verbs in document["paths"].values() for one in verbs.values()}
    annotated = {method.full_name for method in surface.registry if method.bindings}
    assert on_rest == annotated | {"baxcloud.v1.VideoConversionService/UploadVideo"}


async def test_streams_are_not_on_twirp(surface: Surface) -> None:
    for method in surface.registry:
        if method.client_streaming or method.server_streaming:
            outcome = await surface.twirp_json(method, {}, headers_for())
            assert (outcome.code, outcome.status) == ("unimplemented", 501)
            assert "gRPC or REST" in outcome.message


async def test_what_is_not_there_yet_says_so(sqlite_database: SqlDatabase) -> None:
    """RPCs whose engine comes later answer `unimplemented`, once the caller is known, on every transport."""
    async with running_surface(sqlite_database, services={}) as surface:
        for method in unary(surface):
            outcomes = await everywhere(surface, method, valid_request(method), credentials(method))
            said = {shared(outcome) for outcome in outcomes}
            assert said == {("unimplemented", f"{method.full_name} is not implemented yet")}
            for outcome in await everywhere(surface, method, valid_request(method), {}):
                assert shared(outcome)[0] == "unauthenticated"
