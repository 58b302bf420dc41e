"""Generated code is in step with the protos and complete."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import google.api
import pytest
from google.protobuf.descriptor import ServiceDescriptor

from tests.architecture.checkout import ROOT
from tools import generate
from tools.protoc_plugin import docstring, snake_case

SERVICE_FILES = ("egress", "ingress", "project", "room", "video_conversion", "webhook")


def _service(name: str) -> ServiceDescriptor:
    module = importlib.import_module(f"generated.baxcloud.v1.{name}_pb2")
    service: ServiceDescriptor
    (service,) = module.DESCRIPTOR.services_by_name.values()
    return service


def test_python_code_is_what_the_protos_give(tmp_path: Path) -> None:
    """GN: `make verify` fails on drift; this is its Python part."""
    generate.generate("python", tmp_path)

    assert list(generate.differences("python", tmp_path)) == []


def test_drift_is_reported_per_file(tmp_path: Path) -> None:
    generate.generate("python", tmp_path)
    (tmp_path / "baxcloud/v1/common_pb2.py").write_text("changed")
    (tmp_path / "baxcloud/v1/room_pb2.py").unlink()
    (tmp_path / "baxcloud/v1/extra_pb2.py").write_text("new")

    assert list(generate.differences("python", tmp_path)) == [
        "differs generated/baxcloud/v1/common_pb2.py",
        "missing generated/baxcloud/v1/extra_pb2.py",
        "left over generated/baxcloud/v1/room_pb2.py",
    ]


@pytest.mark.parametrize("name", ["annotations", "http", "field_behavior"])
def test_vendored_google_protos_are_those_of_the_installed_package(name: str) -> None:
    """Their Python modules come from the package, so the files that protoc and buf read must agree with it."""
    (package,) = google.api.__path__
    installed = Path(package) / f"{name}.proto"

    assert (ROOT / f"third_party/google/api/{name}.proto").read_text() == installed.read_text()


@pytest.mark.parametrize("name", SERVICE_FILES)
def test_service_protocol_has_every_method(name: str) -> None:
    service = _service(name)
    protocol = getattr(importlib.import_module(f"generated.baxcloud.v1.{name}_service"), service.name)

    methods = {key for key, value in vars(protocol).items() if inspect.isfunction(value) and key[0] != "_"}
    assert methods == {snake_case(method.name) for method in service.methods}
    for method in service.methods:
        function = getattr(protocol, snake_case(method.name))
        assert inspect.iscoroutinefunction(function) is not method.server_streaming
        assert ("requests" in inspect.signature(function).parameters) is method.client_streaming


@pytest.mark.parametrize("name", SERVICE_FILES)
def test_twirp_code_has_every_unary_method(name: str) -> None:
    service = _service(name)
    twirp = importlib.import_module(f"generated.baxcloud.v1.{name}_twirp")
    unary = {m.name for m in service.methods if not (m.client_streaming or m.server_streaming)}

    for client in (f"{service.name}Client", f"Async{service.name}Client"):
        public = {key for key in vars(getattr(twirp, client)) if key[0] != "_"}
        assert public == unary


@pytest.mark.parametrize(
    ("camel", "snake"),
    [
        ("StartEgress", "start_egress"),
        ("CreateLiveKitKey", "create_live_kit_key"),
        ("ListHLSJobs", "list_hls_jobs"),
        ("Import", "import_"),
    ],
)
def test_method_names(camel: str, snake: str) -> None:
    assert snake_case(camel) == snake


def test_comments_cannot_end_a_docstring() -> None:
    source = "\n".join(["def f():", *docstring('ends """ here\nand \\n there', "    ")])
    scope: dict[str, object] = {}
    exec(source, scope)

    assert inspect.getdoc(scope["f"]) == "ends ''' here\nand \\n there"
