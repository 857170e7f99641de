"""What reaches a person who looks elsewhere: the title of the terminal, and its bell when something is due."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from quantui.domain.terminal_text import one_line

if TYPE_CHECKING:
    from textual.app import App

    from quantui.tui.run_view import RunView

_KEEP_TITLE, _OWN_TITLE = "\x1b[22;2t", "\x1b[23;2t"
"""xterm's stack of window titles: ours goes on top and is taken off at the end."""


def title_of(view: RunView) -> str:
    """The step with its percent, or how the run stands: ``quantui: merge 42%``."""
    if not view.living:
        how = {"ok": "ended", "failed": "failed", "cancelled": "cancelled"}[view.outcome]
        return f"quantui: {how}"
    if view.serving:
        return f"quantui: serving {one_line(view.state.ready.model if view.state.ready else '')}"
    step = view.state.current
    if view.cancelling or step is None:
        return "quantui: stopping" if view.cancelling else "quantui: starting"
    if step.total and step.done is not None:
        return f"quantui: {one_line(step.id)} {min(1.0, step.done / step.total):.0%}"
    return f"quantui: {one_line(step.id)}"


class Terminal:
    """Title (OSC 2) and bell of a real terminal; silent without one."""

    def __init__(self, app: App[Any]) -> None:
        self._app = app
        self._title = ""
        self._due: tuple[RunView, str] | None = None

    def follow(self, view: RunView) -> None:
        """Show how ``view`` stands; ring once when its server is ready, and once when it ends by itself."""
        self.title(title_of(view))
        due = view.outcome or ("ready" if view.serving else "")
        if due and (view, due) != self._due:
            self._due = (view, due)
            if not view.cancelling:
                self._app.bell()

    def title(self, text: str) -> None:
        """Set the title; the one before comes back with :meth:`close`."""
        if text != self._title:
            self._write(f"{'' if self._title else _KEEP_TITLE}\x1b]2;{one_line(text)[:120]}\x07")
            self._title = text

    def close(self) -> None:
        """Give the terminal its own title back."""
        if self._title:
            self._write(f"\x1b]2;\x07{_OWN_TITLE}")
            self._title = ""

    def _write(self, sequence: str) -> None:
        driver = self._app._driver
        if driver is not None and not self._app.is_headless:
            driver.write(sequence)
