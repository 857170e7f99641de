"""A plan in three panes: its steps above; below, the profile and the commands, of which a narrow screen shows one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Static

from quantui.tui.review_words import commands_content, steps_content, toml_content

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from quantui.tui.planner import Planned

_PANES = ("steps", "profile", "commands")


class PlanPanes(Vertical):
    """Shows a plan. ``whole``: the profile with every option explained, as it is saved, and not only what is chosen."""

    DEFAULT_CSS = """
    PlanPanes { height: 1fr; }
    PlanPanes #steps { height: auto; max-height: 50%; }
    PlanPanes.-one #steps { max-height: 60%; }
    PlanPanes #lower { height: 1fr; min-height: 5; }
    PlanPanes VerticalScroll {
        border: round $foreground 30%; padding: 0 1;
        scrollbar-size-vertical: 1; scrollbar-gutter: stable;
    }
    PlanPanes VerticalScroll:focus { border: round $primary; }
    PlanPanes VerticalScroll Static { height: auto; }
    PlanPanes #profile, PlanPanes #commands { width: 1fr; height: 1fr; }
    PlanPanes.-one .-behind { display: none; }
    PlanPanes.-outdated Static { color: $text-muted; }
    """

    def __init__(self) -> None:
        super().__init__()
        self.whole = False
        self._lower = "profile"
        self._planned: Planned | None = None

    def compose(self) -> ComposeResult:
        """Three panes that scroll."""
        with VerticalScroll(id="steps") as steps:
            steps.border_title = "steps"
            yield Static("Planning…", id="steps-text", markup=False)
        with Horizontal(id="lower"):
            with VerticalScroll(id="profile"):
                yield Static(id="profile-text", markup=False)
            with VerticalScroll(id="commands"):
                yield Static(id="commands-text", markup=False)

    def say(self, text: str) -> None:
        """A text where the steps will stand."""
        self._current(True)
        self.query_one("#steps-text", Static).update(Content(text))

    def outdate(self) -> None:
        """What is shown is planned anew: it is greyed and said so until :meth:`show` or :meth:`say`."""
        self._current(self._planned is None)

    def show(self, planned: Planned) -> None:
        """Show a plan."""
        self._planned = planned
        self._current(True)
        self.draw()

    def _current(self, current: bool) -> None:
        self.set_class(not current, "-outdated")
        self.query_one("#steps").border_title = "steps" if current else "steps, being planned anew…"

    def draw(self) -> None:
        """Draw it anew, for the width there is."""
        self.set_class(self.screen.has_class("-narrow"), "-one")
        self._retitle()
        planned = self._planned
        if planned is None:
            return
        pane = self.query_one("#steps", VerticalScroll)
        width = max(60, pane.scrollable_content_region.width)
        self.query_one("#steps-text", Static).update(steps_content(planned, width))
        profile = planned.profile if self.whole else planned.chosen
        self.query_one("#profile-text", Static).update(toml_content(profile))
        self.query_one("#commands-text", Static).update(commands_content(planned))

    def go(self, by: int) -> None:
        """Focus the next pane, or the one before; in one place, the lower two take turns."""
        at = next((n for n, name in enumerate(_PANES) if self.query_one(f"#{name}").has_focus), 0)
        self.bring(_PANES[(at + by) % len(_PANES)])

    def bring(self, name: str) -> None:
        """Focus a pane: ``steps``, ``profile`` or ``commands``."""
        if name != "steps":
            self._lower = name
        for other in _PANES[1:]:
            self.query_one(f"#{other}").set_class(other != self._lower, "-behind")
        self.query_one(f"#{name}").focus()
        self._retitle()

    def _retitle(self) -> None:
        kind = "as saved" if self.whole else "what is chosen"
        self.query_one("#profile").border_title = f"profile, {kind} (e)"
        self.query_one("#commands").border_title = "commands"
        for name, other in (("profile", "commands"), ("commands", "profile")):
            hint = f"tab: {other}" if self.has_class("-one") else ""
            self.query_one(f"#{name}").border_subtitle = hint
