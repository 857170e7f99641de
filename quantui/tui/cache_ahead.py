"""What the cache screen needs, loaded while nothing else is to be done: `c` may be pressed at any time."""

from __future__ import annotations

from quantui.tui.giving_way import giving_way


def load_ahead() -> None:
    """Import the inventory and the screen: a tenth of a second that the first rows need not wait for."""
    with giving_way():
        import quantui.runtime.caches.hub_scan
        import quantui.runtime.caches.inventory
        import quantui.runtime.caches.scan_process
        import quantui.tui.screens.cache  # noqa: F401 - loaded, not used
