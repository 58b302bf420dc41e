"""TypeScript and Go stubs for clients in other languages, made with pinned plugins of their own tool chains."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

GO_MODULE = "github.com/baxcloud/baxcloud/generated/go"
PROTOC_GEN_ES = "2.17.0"
PROTOC_GEN_GO = "v1.36.12"
PROTOC_GEN_GO_GRPC = "v1.6.2"


class MissingToolchain(Exception):
    """The language's tool chain is not on this machine; the message says what is missing."""


class Protoc(Protocol):
    def __call__(self, arguments: Sequence[str], *, plugins: Mapping[str, Path] | None = None) -> None: ...


def generate_typescript(protoc: Protoc, sources: Sequence[str], out: Path) -> None:
    raise MissingToolchain("not written yet")


def generate_go(protoc: Protoc, sources: Sequence[str], out: Path) -> None:
    raise MissingToolchain("not written yet")
