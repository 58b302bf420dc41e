"""The comments of the protos as a table, which runtime descriptors do not carry: `generated/baxcloud/v1/descriptions.json`.

The server reads it for `/openapi.json` and `/docs`. `tools/generate.py` calls `write_descriptions`.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

NAME = "descriptions.json"
_Protoc = Callable[[Sequence[str]], None]


def write_descriptions(protoc: _Protoc, sources: Sequence[str], out: Path) -> None:
    """Write the table of the protos `sources` below `out`; full name of the element → its comment, on one line."""
    with tempfile.TemporaryDirectory(prefix="bax-docs-") as folder:
        described = Path(folder) / "set.binpb"
        protoc([f"--descriptor_set_out={described}", "--include_source_info", *sources])
        files = FileDescriptorSet.FromString(described.read_bytes()).file
    table = dict(sorted(pair for file in files for pair in comments(file)))
    text = json.dumps(table, ensure_ascii=False, indent=1) + "\n"
    (out / "baxcloud" / "v1" / NAME).write_text(text, encoding="utf-8")


def comments(file: FileDescriptorProto) -> Iterator[tuple[str, str]]:
    """(full name, comment) of each commented message, field, enum, enum value, service and method of a file."""
    for location in file.source_code_info.location:
        text = " ".join(location.leading_comments.split())
        name = _name_at(file, location.path)
        if text and name is not None:
            yield name, text


def _name_at(file: FileDescriptorProto, path: Sequence[int]) -> str | None:
    """The full name of the element at a source path, None for options, types and the like."""
    names = [file.package]
    element: Any = file
    steps = list(path)
    while steps:
        number, *steps = steps
        field = element.DESCRIPTOR.fields_by_number.get(number)
        if field is None or not steps or not field.is_repeated:
            return None
        index, *steps = steps
        element = getattr(element, field.name)[index]
        if not hasattr(element, "name"):
            return None
        names.append(element.name)
    return ".".join(names) if len(names) > 1 else None
