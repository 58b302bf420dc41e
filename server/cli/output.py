"""What commands print: JSON or a table on stdout, errors on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


class Failed(Exception):
    """A command cannot do what it was asked to; the message is for the user, the exit status 1."""


def fail(message: str) -> int:
    """Prints an error; gives the exit status."""
    print(f"bax: {message}", file=sys.stderr)
    return 1


def note(message: str) -> None:
    """Something the user should know that is not the command's output."""
    print(message, file=sys.stderr)


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(columns: Mapping[str, str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Left-aligned columns; `columns` maps headings to keys of the rows."""
    cells = [list(columns)] + [[_cell(row.get(key)) for key in columns.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        print(_line(line, widths))


def print_fields(fields: Mapping[str, Any]) -> None:
    """One `name  value` a line, without those that are empty."""
    shown = {name: _cell(value) for name, value in fields.items() if value not in (None, "", [], {})}
    width = max(map(len, shown), default=0)
    for name, value in shown.items():
        print(f"{name.ljust(width)}  {value}")


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ", ".join(value)
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return str(value)
