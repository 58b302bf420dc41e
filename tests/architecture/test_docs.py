"""The documents name what exists: settings, links, error codes, events, nouns, routes, commands, targets."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import typer

from server.auth.authenticator import KeyAuthoriser
from server.auth.keys import KeyDirectory
from server.cli.program import app
from server.errors import RENDERINGS, Code, ServiceError
from server.rpc.registry import OWN_FILES, Registry, own_services
from server.transports.rest import rest_table
from server.transports.rest_routes import Match, RouteTable
from server.webhooks.events import SUBSCRIBABLE, TEST_EVENT
from tests.architecture.checkout import ROOT, modules
from tools import configuration_table

PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"))
    if "node_modules" not in path.parts
)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_VARIABLE = re.compile(r"\bBAX_[A-Z0-9_]+\b")
_CURL_ROUTE = re.compile(r"(?:https?://127\.0\.0\.1:8080|\$BAX_URL)(/[^\s\"'\\]*)")
# Served outside the RPC surface.
_PAGE_ROUTES = ("/docs", "/openapi.json", "/healthz", "/metrics", "/player/", "/o/")
# Requests and replies are named after their method; what they are about is a noun elsewhere.
_METHOD_MESSAGE = re.compile(r"(Request|Response)$")
# What a message says of its noun.
_MODIFIERS = {"Config", "Rule", "Options", "Result", "Settings", "Method", "Url"}


def _text(page: str) -> str:
    return (ROOT / page).read_text()


def test_configuration_is_that_of_the_settings() -> None:
    """Section 9: the table is generated; this is what `make verify` runs."""
    assert configuration_table.main(["--check"]) == 0


def test_drift_of_the_configuration_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = tmp_path / "configuration.md"
    changed.write_text(configuration_table.render().replace("`8080`", "`8081`"))
    monkeypatch.setattr("tools.configuration_table.TARGET", changed)

    assert configuration_table.main(["--check"]) == 1
    assert "make generate" in capsys.readouterr().err
    assert configuration_table.main([]) == 0
    assert configuration_table.main(["--check"]) == 0


@pytest.mark.parametrize("page", PAGES)
def test_variables_exist(page: str) -> None:
    known = set(_VARIABLE.findall(configuration_table.render()))
    # `BAX_S3_*` and the like stand for a group.
    unknown = {
        name
        for name in _VARIABLE.findall(_text(page))
        if name not in known and not (name.endswith("_") and any(one.startswith(name) for one in known))
    }

    assert unknown == set()


@pytest.mark.parametrize("page", PAGES)
def test_relative_links_resolve(page: str) -> None:
    targets = [link.partition("#") for link in _LINK.findall(_text(page)) if "://" not in link]
    folder = (ROOT / page).parent

    assert [path for path, _, _ in targets if path and not (folder / path).exists()] == []
    assert [
        (path, anchor)
        for path, _, anchor in targets
        if anchor and anchor not in _anchors((folder / path) if path else ROOT / page)
    ] == []


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_decision_is_in_the_index() -> None:
    files = {path.name for path in (ROOT / "docs/adr").glob("[0-9]*.md")}

    assert set(_LINK.findall(_text("docs/adr/README.md"))) == files
    for name in files:
        text = _text(f"docs/adr/{name}")
        number = name.partition("-")[0]
        assert text.startswith(f"# {number}: ")
        assert re.findall(r"^## (.+)$", text, re.MULTILINE) == [
            "Status",
            "Context",
            "Decision",
            "Consequences",
        ]


@pytest.mark.parametrize("code", list(Code), ids=lambda code: code.name)
def test_every_code_is_documented_as_it_is_rendered(code: Code) -> None:
    rendering = RENDERINGS[code]
    row = next(
        line for line in _text("docs/errors.md").splitlines() if line.startswith(f"| `{code.value}` |")
    )
    _, _, number, twirp, rest, rest_code, _ = (cell.strip() for cell in row.split("|"))

    status = next(one for one in grpc.StatusCode if one.value[0] == rendering.grpc)
    assert number == f"{rendering.grpc} {status.name}"
    assert (twirp, rest) == (str(rendering.twirp_http), str(rendering.rest_http))
    assert rest_code == f"`{rendering.rest_code}`"


def _raised_reasons() -> dict[str, set[tuple[str, int]]]:
    """`reason="…"` of every ServiceError that the sources make, with the codes and REST statuses they come with."""
    found: dict[str, set[tuple[str, int]]] = {}
    for path in modules("server", "adapters"):
        for node in ast.walk(ast.parse((ROOT / path).read_text())):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            for keyword in node.keywords:
                if (
                    keyword.arg == "reason"
                    and isinstance(keyword.value, ast.Constant)
                    and keyword.value.value
                ):
                    name = ast.unparse(node.args[0])
                    code = Code[name.removeprefix("Code.")] if name.startswith("Code.") else None
                    if ast.unparse(node.func) == "failed_precondition":
                        code = Code.FAILED_PRECONDITION
                    if code is not None:
                        reason = str(keyword.value.value)
                        status = ServiceError(code, "", reason=reason).rest_status
                        found.setdefault(reason, set()).add((code.value, status))
    return found


def test_every_reason_is_documented() -> None:
    raised = _raised_reasons()
    section = _text("docs/errors.md").partition("## Reasons")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([A-Z_]+)` \| `(\w+)` \| (\d+) \|", section, re.MULTILINE)

    assert {row[0] for row in rows} == set(raised)
    # METHOD_NOT_ALLOWED is answered with 405 where it is made, whatever its code's status.
    documented = {(reason, code, int(status)) for reason, code, status in rows if status != "405"}
    assert documented == {
        (reason, *one) for reason, found in raised.items() for one in found if reason != "METHOD_NOT_ALLOWED"
    }


def test_every_job_error_code_is_documented() -> None:
    sources = "".join(
        (ROOT / path).read_text()
        for path in modules("server")
        if path.parts[1] in {"conversion", "egress", "jobs", "domain"}
    )
    sources += "".join(
        (ROOT / path).read_text() for path in modules("adapters") if path.parts[1] == "recorder"
    )
    code = r"\"([A-Z_]+_(?:FAILED|TIMEOUT|FORMAT|UNAVAILABLE|REFUSED|ABORTED|REACHED)|INTERNAL)\""
    # LiveKit's statuses are no codes.
    codes = set(re.findall(code, sources)) - {"EGRESS_LIMIT_REACHED"}
    section = _text("docs/errors.md").partition("## Errors of jobs")[2]

    assert "DOWNLOAD_FAILED" in codes
    assert set(re.findall(r"^\| `([A-Z_]+)` \|", section, re.MULTILINE)) == codes


def test_every_event_is_documented() -> None:
    """WB-05, WH-20: each name of the catalogue, in code font."""
    text = _text("docs/webhooks.md")

    assert [name for name in (*SUBSCRIBABLE, TEST_EVENT) if f"`{name}`" not in text] == []


def test_the_glossary_covers_the_nouns_of_the_protos() -> None:
    """One vocabulary: each message's name, or its first or last noun, is in the glossary."""
    glossary = _text("docs/glossary.md")
    messages = {name for file in OWN_FILES for name in file.message_types_by_name}
    missing = []
    for name in sorted(name for name in messages if not _METHOD_MESSAGE.search(name)):
        words = re.findall(r"[A-Z0-9]+(?![a-z])|[A-Z][a-z0-9]+", name)
        nouns = [word for word in words if word not in _MODIFIERS]
        # `LiveKitKey` is written "LiveKit key".
        choices = (" ?".join(words), *nouns[:1], *nouns[-1:])
        if not any(re.search(rf"\b{choice}s?\b", glossary, re.IGNORECASE) for choice in choices):
            missing.append(name)

    assert missing == []


@pytest.fixture(scope="module")
def routes() -> RouteTable:
    return rest_table(Registry(own_services({}, KeyAuthoriser(_no_keys()))))


def _no_keys() -> KeyDirectory:
    # Never asked: routes are looked up, not called.
    return KeyDirectory.__new__(KeyDirectory)


@pytest.mark.parametrize("page", PAGES)
def test_curl_names_existing_routes(page: str, routes: RouteTable) -> None:
    """Each curl in a fence calls a route that exists, with a verb it has."""
    missing = []
    for language, code in _FENCE.findall(_text(page)):
        for command in _curls(code) if language == "bash" else ():
            target = _CURL_ROUTE.search(command)
            assert target, f"{page}: a curl without the server's address: {command}"
            verb = re.search(r"-X (\w+)", command)
            if not _exists(routes, verb[1] if verb else "GET", target[1].partition("?")[0]):
                missing.append(command)

    assert missing == []


def _curls(code: str) -> Iterator[str]:
    """Commands with their continued lines."""
    for command in re.split(r"(?<!\\)\n(?=[a-z#]|\n|$)", code):
        if command.lstrip().startswith("curl "):
            yield command


def _exists(routes: RouteTable, verb: str, path: str) -> bool:
    if path.startswith("/twirp/"):
        service, _, method = path.removeprefix("/twirp/").partition("/")
        return any(
            found.full_name == service and method in found.methods_by_name
            for file in OWN_FILES
            for found in file.services_by_name.values()
        )
    return path.startswith(_PAGE_ROUTES) or isinstance(routes.find(verb, path.encode()), Match)


def test_curls_are_found_and_wrong_ones_noticed(routes: RouteTable) -> None:
    commands = [command for _, code in _FENCE.findall(_text("README.md")) for command in _curls(code)]

    assert len(commands) >= 5
    assert not _exists(routes, "POST", "/video/jobs/cm1")
    assert not _exists(routes, "GET", "/video/nothing")
    assert not _exists(routes, "POST", "/twirp/baxcloud.v1.VideoConversionService/Nothing")


def test_python_in_fences_parses_and_imports_what_exists() -> None:
    for page in PAGES:
        for language, code in _FENCE.findall(_text(page)):
            if language != "python":
                continue
            imports = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.ImportFrom)]
            for node in imports:
                if node.module and node.module.startswith("generated."):
                    exec(ast.unparse(node), {})


def test_the_table_of_commands_is_that_of_the_program() -> None:
    rows = re.findall(r"^\| `bax (\w+)([^`]*)` \|", _text("README.md"), re.MULTILINE)
    documented = {
        name: set(rest.strip().replace("\\|", "|").split("|"))
        if "|" in rest and "FILE" not in rest
        else set()
        for name, rest in rows
    }
    program = typer.main.get_command(app)
    commands = getattr(program, "commands")  # noqa: B009 - a group; typer does not say so in its types

    assert documented == {name: set(getattr(command, "commands", ())) for name, command in commands.items()}


@pytest.mark.parametrize("page", PAGES)
def test_make_targets_exist(page: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", _text("Makefile"), re.MULTILINE))
    named = set(re.findall(r"(?:^|`|\bDEMO_EXIT=1 )make ([a-z-]+)", _text(page), re.MULTILINE))

    assert named <= targets
