"""When a part began, on disk before its first media: its worker may die before it has heard of it."""

from __future__ import annotations

import json
from pathlib import Path

from server.ports.recorder import RecorderPlan


def note_start(plan: RecorderPlan, started_at: int) -> None:
    """`started_at` in ns since 1970. Where nothing stays on disk, there is nothing to note."""
    if plan.container or plan.segment_sec:
        sidecar = Path(plan.folder) / f"part-{plan.part:03d}.json"
        sidecar.write_text(json.dumps({"startedAt": started_at}))
