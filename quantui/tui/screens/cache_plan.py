"""What would go and what would stay, before anything does: a dry run, and the question."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual import work
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from quantui.domain.caches.deletion import DeletionPlan, plan_deletion
from quantui.domain.caches.words import sized
from quantui.tui.bugs import TellsBugs
from quantui.tui.cache_plan_words import (
    PLAN_COLUMNS,
    PlanLine,
    plan_cells,
    plan_detail,
    plan_lines,
    plan_summary,
)
from quantui.tui.widgets.key_bar import KeyBar
from quantui.tui.widgets.row_table import RowTable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from textual.app import ComposeResult

    from quantui.domain.caches.items import CacheDisk, CacheItem

_LOW = 22
"""Below so many lines less is told."""
_AROUND, _AROUND_LOW = 18, 11
"""Lines that everything but the things takes."""


class CachePlan(TellsBugs, ModalScreen[DeletionPlan | None]):
    """Gives the plan that was agreed to, None when nothing is to be done. Keeping everything has the focus."""

    TITLE = "delete"
    HELP = (
        "A dry run: what would go and how each thing comes back, what stays and why, and the bytes that this frees. "
        "It was looked at again just now; what a process uses stays. Nothing is deleted until you pick one of the "
        "answers. What is moved to the trash can be had back with u; its bytes are freed when the trash is emptied."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,k", "keep", "keep everything", key_display="esc"),
        Binding("x", "delete", "delete for good"),
        Binding("t", "trash", "to the trash"),
        Binding("tab", "app.focus_next", "list and answers"),
    ]
    DEFAULT_CSS = """
    CachePlan { align: center middle; }
    CachePlan > Vertical {
        width: 96%; max-width: 130; height: auto; max-height: 96%;
        border: round $warning; padding: 0 1; background: $surface;
    }
    CachePlan #sum { height: auto; max-height: 5; margin-bottom: 1; }
    CachePlan RowTable { height: 4; }
    CachePlan #told { height: 4; }
    CachePlan.-low #told { height: 2; }
    CachePlan.-low #sum { max-height: 2; margin-bottom: 0; }
    CachePlan OptionList { height: auto; border: none; padding: 0; background: $surface; }
    """

    class Looked(Message):
        """The things as they are at this moment: the plan to delete, and the one to move away."""

        def __init__(self, plan: DeletionPlan, moved: DeletionPlan) -> None:
            self.plan = plan
            self.moved = moved
            super().__init__()

    def __init__(
        self,
        chosen: Sequence[CacheItem],
        everything: Mapping[str, CacheItem],
        disks: Sequence[CacheDisk],
    ) -> None:
        super().__init__()
        self._chosen = tuple(chosen)
        self._everything = dict(everything)
        self._disks = tuple(disks)
        self.plan: DeletionPlan | None = None
        self.moved: DeletionPlan | None = None

    def compose(self) -> ComposeResult:
        """What it comes to, the things, the highlighted one in full, the answers."""
        count = len(self._chosen)
        with Vertical() as box:
            box.border_title = Content(f"delete {count:,} thing{'' if count == 1 else 's'}?")
            yield Static(Content("Looking again who uses them..."), id="sum", markup=False)
            yield RowTable[PlanLine](PLAN_COLUMNS, plan_cells, id="lines")
            yield Static(id="told", markup=False)
            yield OptionList(Option(Content("k  keep everything"), id="keep"))
        yield KeyBar()

    def on_mount(self) -> None:
        """The safe answer first; the rest comes with the plan."""
        answers = self.query_one(OptionList)
        answers.highlighted = 0
        answers.focus()
        self._look()

    @work(thread=True, exclusive=True, group="cache-plan", exit_on_error=False)
    def _look(self) -> None:
        from quantui.runtime.caches.checked_again import checked_again

        now = checked_again(self._chosen, self._everything)
        there = [now[item.path] for item in self._chosen if item.path in now]
        there.sort(key=lambda item: (-item.use.frees, item.path))
        plan = plan_deletion(there, now)
        self.post_message(self.Looked(plan, plan_deletion(there, now, to_trash=True)))

    def on_cache_plan_looked(self, message: Looked) -> None:
        """Show the plan, and what can be answered."""
        self.plan, self.moved = plan, moved = message.plan, message.moved
        self.query_one("#sum", Static).update(Content("\n").join(plan_summary(plan, self._disks)))
        self.query_one(RowTable).show(plan_lines(plan))
        self._fit()
        answers = self.query_one(OptionList)
        if plan.goes:
            words = f"x  delete for good: frees {sized(plan.frees)}"
            answers.add_option(Option(Content(words), id="delete"))
        if moved.goes:
            most = "" if len(moved.goes) == len(plan.goes) else f"{len(moved.goes):,} of them "
            words = f"t  move {most}to the trash: u undoes it; frees once it is emptied"
            answers.add_option(Option(Content(words), id="trash"))
        self.refresh_bindings()

    def on_resize(self) -> None:
        """As high as what there is to show, where there is room for it."""
        self._fit()

    def _fit(self) -> None:
        low = self.size.height < _LOW
        self.set_class(low, "-low")
        table = self.query_one(RowTable)
        room = self.size.height - (_AROUND_LOW if low else _AROUND)
        table.styles.height = max(3, min(len(table.rows) + 2, room))

    def on_row_table_highlighted(self, message: RowTable.Highlighted) -> None:
        """Say more of the line."""
        lines = plan_detail(message.table.row)
        self.query_one("#told", Static).update(Content("\n").join(lines))

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Enter gives the highlighted answer."""
        {"delete": self.action_delete, "trash": self.action_trash}.get(
            str(event.option.id), self.action_keep
        )()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Grey what cannot be done."""
        del parameters
        if action == "delete":
            return True if self.plan is not None and self.plan.goes else None
        if action == "trash":
            return True if self.moved is not None and self.moved.goes else None
        return True

    def action_keep(self) -> None:
        """Nothing happens; the selection stays."""
        self.dismiss(None)

    def action_delete(self) -> None:
        """Delete what goes."""
        if self.plan is not None and self.plan.goes:
            self.dismiss(self.plan)

    def action_trash(self) -> None:
        """Move away what can be had back."""
        if self.moved is not None and self.moved.goes:
            self.dismiss(self.moved)
