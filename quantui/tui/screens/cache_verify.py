"""Things read to the end and compared with their hashes: how far, and what was found."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, ClassVar

from textual import work
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import ProgressBar, Static
from textual.worker import get_current_worker

from quantui.domain.caches.verification import Soundness, Verified, Verifying
from quantui.domain.caches.words import shown, sized
from quantui.domain.terminal_text import one_line
from quantui.tui.bugs import TellsBugs
from quantui.tui.widgets.key_bar import KeyBar
from quantui.tui.widgets.row_table import Cell, Column, RowTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import ComposeResult

    from quantui.domain.caches.items import CacheItem

_TELL_EVERY_S = 0.12
_COLUMNS = (
    Column("", 12),
    Column("compared", 10, right=True),
    Column("name", 18, grows=True),
    Column("found", 20, grows=True),
)
_TONES = {Soundness.OK: "good", Soundness.DAMAGED: "bad", Soundness.INCOMPLETE: "warn"}
_MARKS = {Soundness.OK: "✓", Soundness.DAMAGED: "✗", Soundness.INCOMPLETE: "!"}


class CacheVerify(TellsBugs, ModalScreen[None]):
    """Nothing is changed; Escape ends it."""

    TITLE = "verify"
    HELP = (
        "Every file is read and its hash compared: those of the Hub with their etags, those of quantui's models with "
        "the hashes in their record, those of an engine with its wheels'. What is damaged is told with what to do; "
        "nothing is changed or deleted here."
    )
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,v,q", "dismiss", "close")]
    DEFAULT_CSS = """
    CacheVerify { align: center middle; }
    CacheVerify > Vertical {
        width: 92%; max-width: 120; height: 80%;
        border: round $primary; padding: 0 1; background: $surface;
    }
    CacheVerify ProgressBar { width: 100%; height: 1; }
    CacheVerify Bar { width: 1fr; }
    CacheVerify #head { height: 1; }
    CacheVerify RowTable { height: 1fr; margin-top: 1; }
    CacheVerify #told { height: 4; }
    """

    class Checked(Message):
        """What is through, and how far the thing at hand is; ``done``: there is no other."""

        def __init__(
            self, through: tuple[Verified, ...], at: Verifying | None, *, done: bool
        ) -> None:
            self.through = through
            self.at = at
            self.done = done
            super().__init__()

        def can_replace(self, message: Message) -> bool:
            """A newer one holds all of an older one."""
            return isinstance(message, CacheVerify.Checked)

    def __init__(self, items: Sequence[CacheItem]) -> None:
        super().__init__()
        self._items = tuple(items)
        self.through: tuple[Verified, ...] = ()
        self.done = False

    def compose(self) -> ComposeResult:
        """How far, what was found, the highlighted finding in full."""
        count = len(self._items)
        with Vertical() as box:
            box.border_title = Content(f"verify {count:,} thing{'' if count == 1 else 's'}")
            yield Static(Content("Listing the files..."), id="head", markup=False)
            yield ProgressBar(total=1.0, show_eta=False)
            yield RowTable[Verified](_COLUMNS, verified_cells, id="found")
            yield Static(id="told", markup=False)
        yield KeyBar()

    def on_mount(self) -> None:
        """Begin."""
        self.query_one(RowTable).focus()
        self._check()

    @work(thread=True, exclusive=True, group="cache-verify", exit_on_error=False)
    def _check(self) -> None:
        from quantui.runtime.caches.verifying import verify

        worker = get_current_worker()
        through: list[Verified] = []
        told = 0.0
        for event in verify(self._items, cancelled=lambda: worker.is_cancelled):
            at = None
            if isinstance(event, Verified):
                through.append(event)
            else:
                at = event
            if isinstance(event, Verified) or time.monotonic() - told >= _TELL_EVERY_S:
                told = time.monotonic()
                self.post_message(self.Checked(tuple(through), at, done=False))
        if not worker.is_cancelled:
            self.post_message(self.Checked(tuple(through), None, done=True))

    def on_cache_verify_checked(self, message: Checked) -> None:
        """Draw it."""
        self.through, self.done = message.through, message.done
        table, count = self.query_one(RowTable), len(self._items)
        if len(message.through) != len(table.rows):
            table.show(message.through)
        at, share = message.at, 0.0
        if message.done:
            bad = sum(one.damaged for one in message.through)
            unknown = sum(one.state is Soundness.UNKNOWN for one in message.through)
            words = f"{bad:,} damaged or incomplete" if bad else "nothing is damaged"
            words += f", {unknown:,} with nothing to compare with" if unknown else ""
            head = Content.styled(f"{len(message.through):,} verified: {words}", "bold")
        elif at is not None:
            share = at.done_bytes / at.total_bytes if at.total_bytes else 0.0
            read = f"{sized(at.done_bytes)} of {sized(at.total_bytes)}"
            head = Content(
                f"{len(message.through) + 1:,} of {count:,}: {shown(at.item.name)}, {read}"
            )
        else:
            head = Content(f"{len(message.through):,} of {count:,} verified")
        self.query_one("#head", Static).update(head)
        whole = 1.0 if message.done else (len(message.through) + share) / max(1, count)
        self.query_one(ProgressBar).update(progress=whole)

    def on_row_table_highlighted(self, message: RowTable.Highlighted) -> None:
        """All that was found of the highlighted thing."""
        row = message.table.row
        lines = [] if row is None else finding_lines(row)
        self.query_one("#told", Static).update(Content("\n").join(lines))


def verified_cells(one: Verified) -> Sequence[Cell | str]:
    """A thing that is through."""
    first = one.findings[0] if one.findings else None
    words = one_line(first.what) if first is not None else "every hash is right"
    return (
        Cell(f"{_MARKS.get(one.state, '-')} {one.state}", _TONES.get(one.state, "muted")),
        sized(one.checked_bytes),
        shown(one.item.name),
        Cell(words, "" if one.damaged else "muted"),
    )


def finding_lines(one: Verified) -> list[Content]:
    """The first findings with their files and what to do."""
    lines = [Content.styled(shown(one.item.path), "$text-muted")]
    for finding in one.findings[:2]:
        where = f"{shown(finding.path)}: " if finding.path else ""
        fix = f" {one_line(finding.fix)}" if finding.fix else ""
        lines.append(Content(f"{where}{one_line(finding.what)}{fix}"))
    if len(one.findings) > 2:
        lines.append(Content(f"and {len(one.findings) - 2:,} more"))
    return lines
