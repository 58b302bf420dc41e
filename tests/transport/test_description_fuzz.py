"""schemathesis against the running server: what the description promises, for input that it makes up."""

from __future__ import annotations

import asyncio
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import positive_data_acceptance

from tests.transport.surface import ADMIN_TOKEN, Surface, headers_for

EXAMPLES = settings(
    max_examples=4,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)

# Where more is asked of a value than its schema says. In a form a list of one must be JSON text (contract B-94), and
# schemathesis sends the bare item; a webhook's address must be one, and its events must exist.
BEYOND_THE_SCHEMA = frozenset({"/video/upload", "/v1/webhooks", "/v1/webhooks/{webhookId}"})


async def test_answers_are_as_described(surface: Surface) -> None:
    """Statuses, content types and schemas of every operation; no input gives a 5xx."""
    async with surface.session.get(f"{surface.http}/openapi.json") as answer:
        document = await answer.json()
    tried = await asyncio.to_thread(_try_all, document, surface.http)
    assert tried > 200


def _try_all(document: Any, address: str) -> int:
    found: list[Any] = list(schemathesis.openapi.from_dict(document).get_all_operations())
    operations = [one.ok() for one in found]
    return sum(_try(operation, address) for operation in operations)


def _try(operation: Any, address: str) -> int:
    admin = operation.path.startswith("/v1/projects")
    lower = headers_for(ADMIN_TOKEN, None) if admin else headers_for()
    # As schemathesis spells them, or it takes its own attempt without credentials for one with them.
    headers = {name.title(): value for name, value in lower.items()}
    excluded = [positive_data_acceptance] if operation.path in BEYOND_THE_SCHEMA else []
    tried = 0

    @EXAMPLES
    @given(case=operation.as_strategy())
    def attempt(case: Any) -> None:
        nonlocal tried
        tried += 1
        case.call_and_validate(base_url=address, headers=headers, excluded_checks=excluded, timeout=10)

    attempt()
    return tried
