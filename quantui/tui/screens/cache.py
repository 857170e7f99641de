"""What takes the disk, and how to get it back: select, look at what would go and stay, and then delete it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, ClassVar

from textual import work
from textual.binding import Binding, BindingType
from textual.message import Message

from quantui.domain.caches.items import Kind
from quantui.domain.caches.words import shown, sized
from quantui.domain.errors import QuantuiError
from quantui.tui import cache_words as words
from quantui.tui.cache_job import DeletionJob, JobChanged
from quantui.tui.cache_view import may_go
from quantui.tui.screens.cache_list import CacheList

if TYPE_CHECKING:
    from quantui.domain.caches.deletion import DeletionPlan
    from quantui.domain.caches.items import CacheItem
    from quantui.domain.caches.pruning import Pruned

_DAY_S = 86400.0


class CacheScreen(CacheList):
    """The tables, and what is done with the selected things. Nothing is deleted before it was shown and confirmed."""

    HELP = words.HELP
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("d,delete", "delete", "delete", key_display="d"),
        Binding(
            "a", "all", "all", show=False, tooltip="select all that are shown, or none of them"
        ),
        Binding("p", "prune", "prune", tooltip="select what can go without regret"),
        Binding(
            "u", "undo", "undo", show=False, tooltip="bring back what was moved to the trash last"
        ),
        Binding(
            "v",
            "verify",
            "verify",
            show=False,
            tooltip="compare the selected things with their hashes",
        ),
        Binding(
            "w",
            "why",
            "why",
            show=False,
            tooltip="why: what the bytes of the highlighted thing are",
        ),
        Binding("y", "copy", "copy its path", show=False),
    ]

    class Proposed(Message):
        """What could go without regret."""

        def __init__(self, pruned: Pruned) -> None:
            self.pruned = pruned
            super().__init__()

    class Restored(Message):
        """Things are back from the trash, or why one is not."""

        def __init__(self, places: tuple[str, ...], error: QuantuiError | None = None) -> None:
            self.places = places
            self.error = error
            super().__init__()

    def on_mount(self) -> None:
        """A deletion that went on meanwhile, or whose end nobody saw, is shown."""
        job = self.kept.job
        if job is not None and not job.seen:
            self._watch(job)

    def on_unmount(self) -> None:
        """A deletion tells its end by itself now."""
        if self.kept.job is not None:
            self.kept.job.unwatch(self.post_message)

    # --- selecting

    @property
    def _acted_on(self) -> tuple[CacheItem, ...]:
        """The selected things, or else the highlighted one."""
        chosen = self.kept.chosen()
        line = self.table.row
        return chosen or ((line.item,) if line is not None else ())

    def action_mark(self) -> None:
        """Select the highlighted thing, or take it back; then to the next one."""
        line = self.table.row
        if line is None:
            return
        path, selected = line.item.path, self.kept.selected
        if line.item.parent in selected:
            self.notify("It goes with what it is a part of.", markup=False)
            return
        if path in selected:
            selected.remove(path)
        else:
            selected.add(path)
        self.table.cursor += 1
        self.show_again()

    def action_all(self) -> None:
        """Select all that are shown and may go; when they are, none of them."""
        paths = set(may_go(self.view.lines))
        selected = self.kept.selected
        if paths <= selected:
            selected -= {line.item.path for line in self.view.lines}
        else:
            selected |= paths
        self.show_again()

    def action_unfold(self, how: int) -> None:
        """Show the parts of the highlighted thing (1), hide them (0), or the other of both (2)."""
        line = self.table.row
        if line is None:
            return
        opened, path = self.kept.opened, line.item.path
        if line.parts and how and path not in opened:
            opened.add(path)
        elif path in opened and how != 1:
            opened.remove(path)
        elif line.whole is not None and not how:
            # From a revision to its repository, as in every tree.
            above = [one.item.path for one in self.view.lines].index(line.whole.path)
            self.table.cursor = above
            return
        self.show_again()

    # --- deleting

    def action_delete(self) -> None:
        """Show what would go and what would stay, and ask."""
        from quantui.tui.screens.cache_plan import CachePlan

        job = self.kept.job
        if job is not None and job.living:
            self._watch(job)
            return
        chosen = self._acted_on
        if chosen:
            self.app.push_screen(CachePlan(chosen, self.kept.items, self.kept.disks), self._agreed)

    def _agreed(self, plan: DeletionPlan | None) -> None:
        if plan is None or not plan.goes:
            return
        self.kept.job = job = DeletionJob(plan)
        self._watch(job)
        job.start(self.wizard)

    def _watch(self, job: DeletionJob) -> None:
        from quantui.tui.screens.cache_progress import CacheProgress

        job.unwatch(self.post_message)
        job.watch(self.post_message)
        self.app.push_screen(CacheProgress(job))

    def on_job_changed(self, message: JobChanged) -> None:
        """What is gone leaves the table at once; at the end the disk is looked at again."""
        from quantui.domain.caches.deletion import Deleted

        job = message.job
        self.kept.gone(one.item.path for one in job.done if isinstance(one, Deleted))
        if job.living:
            self.show_again()
        else:
            job.unwatch(self.post_message)
            self.action_refresh()

    # --- the trash

    def action_undo(self) -> None:
        """Bring back the highlighted thing of the trash, or what was moved there last."""
        line = self.table.row
        there = line is not None and line.item.kind is Kind.TRASH
        self.bring_back(line.item.path if line is not None and there else None)

    @work(thread=True, group="cache-undo", exclusive=True, exit_on_error=False)
    def bring_back(self, path: str | None) -> None:
        """Bring one thing of the trash back; None: all that was moved there together, last."""
        from quantui.runtime.caches.trash import last_trashed, restore

        back: list[str] = []
        try:
            folders = (path,) if path else tuple(one.folder for one in last_trashed())
            if not folders:
                raise QuantuiError(
                    "cache.nothing-in-the-trash",
                    "There is nothing in the trash to bring back.",
                    fix="Only what was moved to the trash can be had back; what was deleted is gone.",
                )
            for folder in folders:
                back.append(str(restore(folder)))
            self.post_message(self.Restored(tuple(back)))
        except QuantuiError as error:
            self.post_message(self.Restored(tuple(back), error))

    def on_cache_screen_restored(self, message: Restored) -> None:
        """Say where they are."""
        self.tell(message.error)
        if message.places:
            more = len(message.places) - 1
            others = f" and {words.counted(more)} more" if more else ""
            self.notify(f"Back: {shown(message.places[0])}{others}", markup=False)
            self.action_refresh()

    # --- proposals, checks, explanations

    def action_prune(self) -> None:
        """Select what can go without regret, with the reason of each."""
        self._propose(dict(self.kept.items))

    @work(thread=True, group="cache-prune", exclusive=True, exit_on_error=False)
    def _propose(self, items: dict[str, CacheItem]) -> None:
        from quantui.domain.caches.pruning import PruneRules, prune
        from quantui.runtime.settings import read_settings

        try:
            cache = read_settings().cache
        except QuantuiError as error:
            self.post_message(self.Surroundings(self.kept.roots, None, error))
            return
        rules = PruneRules(
            budget=cache.budget,
            keep_free=cache.keep_free,
            trash_older_than=cache.trash_days * _DAY_S,
        )
        self.post_message(
            self.Proposed(prune(items, rules, now=time.time(), disks=self.kept.disks))
        )

    def on_cache_screen_proposed(self, message: Proposed) -> None:
        """The proposal becomes the selection."""
        kept, pruned = self.kept, message.pruned
        kept.reasons = {one.item.path: one.why for one in pruned.chosen}
        kept.selected = {path for path in kept.reasons if path in kept.items}
        # What is proposed is to be seen, also where it is a part.
        kept.opened |= {item.parent for item in kept.chosen() if item.parent is not None}
        short = "; ".join(
            f"{sized(one.missing)} short of {one.goal}: {one.why}" for one in pruned.shortfalls
        )
        if not pruned.chosen:
            text = "Nothing can go without regret: what is old can be found with used>30d."
        else:
            text = f"{words.counted(len(pruned.chosen))} proposed; d shows what would go."
        self.notify(f"{text} {short}".strip(), markup=False)
        self.show_again()

    def action_verify(self) -> None:
        """Read the selected things, or the highlighted one, and compare them with their hashes."""
        from quantui.tui.screens.cache_verify import CacheVerify

        chosen = self._acted_on
        if chosen:
            self.app.push_screen(CacheVerify(chosen))

    def action_why(self) -> None:
        """What the bytes of the highlighted thing are, and who shares them."""
        from quantui.tui.cache_why import why_rows
        from quantui.tui.screens.why import Why

        line = self.table.row
        if line is not None:
            rows = why_rows(line.item, self.kept.items, self._now)
            self.app.push_screen(Why(shown(line.item.name), rows))

    def action_copy(self) -> None:
        """Copy the path of the highlighted thing (OSC 52)."""
        line = self.table.row
        if line is not None:
            self.app.copy_to_clipboard(shown(line.item.path))
            self.notify("Copied.")

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Grey what needs a thing; nothing in the trash is nothing to undo."""
        del parameters
        if action == "undo":
            return True if self.view.trash else None
        if action in ("delete", "mark", "all", "verify", "why", "copy", "prune"):
            return True if self.view.lines else None
        return True
