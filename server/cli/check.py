"""One finding of `bax doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. `needed`: the server does not run without it. `remedy` is a command or a sentence."""

    name: str
    ok: bool
    detail: str
    needed: bool = False
    remedy: str = ""

    def as_json(self) -> dict[str, Any]:
        found = {"name": self.name, "ok": self.ok, "needed": self.needed, "detail": self.detail}
        return found if self.ok or not self.remedy else {**found, "remedy": self.remedy}
