"""Says to the owner of a running egress that its orders may have changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from server.ports.jobs import ChangeFeed


class OrdersBoard:
    """One per process. Owners read the orders again when stirred, and every second anyway."""

    def __init__(self) -> None:
        self._watching: dict[str, set[asyncio.Event]] = {}

    def notice(self, egress_id: str) -> None:
        """Call it after the commit that changed the orders: an owner in this process looks at once."""
        for stirred in self._watching.get(egress_id, ()):
            stirred.set()

    def stir(self) -> None:
        """Something changed somewhere, perhaps the orders of any egress: the change feed's wake."""
        for events in self._watching.values():
            for stirred in events:
                stirred.set()

    @contextmanager
    def watch(self, egress_id: str) -> Iterator[asyncio.Event]:
        stirred = asyncio.Event()
        self._watching.setdefault(egress_id, set()).add(stirred)
        try:
            yield stirred
        finally:
            self._watching[egress_id].discard(stirred)
            if not self._watching[egress_id]:
                del self._watching[egress_id]


class StirringFeed:
    """A `ChangeFeed` that stirs a board too: orders that another process gave are seen at once."""

    def __init__(self, feed: ChangeFeed, board: OrdersBoard) -> None:
        self._feed = feed
        self._board = board

    def start(self, wake: Callable[[], None]) -> None:
        """Calls `wake` in the running event loop after each change."""

        def woken() -> None:
            wake()
            self._board.stir()

        self._feed.start(woken)

    async def stop(self) -> None:
        await self._feed.stop()
