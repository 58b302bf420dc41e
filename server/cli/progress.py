"""A conversion job's progress as a live bar on stderr."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

_STAGES = {"PENDING": "waiting", "COMPLETED": "done", "FAILED": "failed", "CANCELLED": "cancelled"}


async def follow(jobs: AsyncIterator[dict[str, Any]], label: str) -> dict[str, Any]:
    """Shows each state of the job until the stream ends; the last one."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TaskProgressColumn(),
        TextColumn("{task.fields[stage]}"),
        TextColumn("[dim]{task.fields[speed]}"),
        console=Console(stderr=True),
    )
    job: dict[str, Any] = {}
    with bar:
        task = bar.add_task(label, total=100, stage="waiting", speed="")
        async for job in jobs:
            bar.update(task, **_shown(job))
    return job


def _shown(job: Mapping[str, Any]) -> dict[str, Any]:
    """What the bar shows of a job; a job between two states keeps the percentage it had."""
    progress = job.get("progress") or {}
    shown: dict[str, Any] = {
        "stage": _STAGES.get(job["status"]) or progress.get("stage", "working"),
        "speed": _pace(progress),
    }
    if job["status"] == "COMPLETED":
        shown["completed"] = 100
    elif "percent" in progress:
        shown["completed"] = progress["percent"]
    return shown


def _pace(progress: Mapping[str, Any]) -> str:
    parts = []
    if progress.get("speed"):
        parts.append(f"{progress['speed']:.1f}× real time")
    if progress.get("etaSec") is not None:
        minutes, seconds = divmod(round(progress["etaSec"]), 60)
        parts.append(f"{minutes}:{seconds:02d} left")
    return ", ".join(parts)
