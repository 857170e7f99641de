"""The ladder of context lengths: which fit on the device, how many users each holds, and which is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content
from textual.widget import Widget

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quantui.domain.choosing.context_ladder import Rung

_STYLES = {"fits": "$text-success", "tight": "$text-warning", "does not fit": "$text-error"}


def short_length(tokens: int) -> str:
    """``8k`` for 8192, ``40k`` for 40960; other numbers as they are."""
    return f"{tokens // 1024}k" if tokens >= 1024 and tokens % 1024 == 0 else str(tokens)


def rung_text(rung: Rung, users: int) -> str:
    """The length with its mark: ✓ fits, ~ not for sure or not for all users at once, ✗ does not fit."""
    length = short_length(rung.context)
    if rung.verdict == "fits":
        return f"{length}✓"
    if rung.verdict == "does not fit":
        return f"{length}✗"
    return f"{length}~{rung.held}/{users}" if rung.held < users else f"{length}~"


class ContextLadderBar(Widget, can_focus=False):
    """Two lines: the rungs, the asked one in brackets, and what they mean."""

    DEFAULT_CSS = """
    ContextLadderBar { height: 2; text-wrap: nowrap; text-overflow: ellipsis; }
    """

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._rungs: Sequence[Rung] = ()
        self._asked = 0
        self._users = 1
        self._limit: int | None = None

    def show(
        self, rungs: Sequence[Rung], *, asked: int, users: int, limit: int | None = None
    ) -> None:
        """Draw other rungs; ``asked`` tokens for ``users`` at once, ``limit``: what the model was made for."""
        self._rungs, self._asked, self._users, self._limit = rungs, asked, users, limit
        self.refresh()

    def render(self) -> Content:
        """The rungs that there is room for around the asked one, then the asked in words."""
        words = f"{self._users} user{'s' if self._users > 1 else ''}"
        made = "" if self._limit is None else f"; the model was made for {self._limit}"
        asked = f"asked: {self._asked} tokens for each of {words} at once{made}"
        if self._users == 1:
            asked = f"asked: {self._asked} tokens, 1 user{made}"
        second = Content.styled(asked, "$text-muted")
        if not self._rungs:
            return Content.assemble("context  not computed for this method\n", second)
        return Content.assemble(self._line(max(20, self.content_size.width)), "\n", second)

    def _line(self, width: int) -> Content:
        pieces = [self._piece(rung) for rung in self._rungs]
        lengths = [rung.context for rung in self._rungs]
        first = last = lengths.index(self._asked) if self._asked in lengths else 0
        room = width - len("context  ") - 4
        used = pieces[first].cell_length
        while True:
            if last + 1 < len(pieces) and used + 1 + pieces[last + 1].cell_length <= room:
                last += 1
                used += 1 + pieces[last].cell_length
            elif first > 0 and used + 1 + pieces[first - 1].cell_length <= room:
                first -= 1
                used += 1 + pieces[first].cell_length
            else:
                break
        line = Content(" ").join(pieces[first : last + 1])
        before, behind = "… " if first else "", " …" if last + 1 < len(pieces) else ""
        return Content.assemble(Content.styled("context  ", "bold"), before, line, behind)

    def _piece(self, rung: Rung) -> Content:
        text, style = rung_text(rung, self._users), _STYLES[rung.verdict]
        if rung.context == self._asked:
            return Content.styled(f"[{text}]", f"bold reverse {style}")
        return Content.styled(f" {text} ", style)
