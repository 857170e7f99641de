"""What the cache screen says around its tables: the title, the disks, the filter's count, the highlighted thing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content

from quantui.domain.caches.words import budget_words, joined, rebuilt, shown, sized
from quantui.domain.terminal_text import one_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from quantui.domain.caches.items import CacheDisk, CacheItem, ScanProblem
    from quantui.domain.errors import QuantuiError
    from quantui.tui.cache_view import Selected, View

HELP = """
Everything that quantui and the Hub keep on disk. Above: the places; below: the things in the highlighted one.
"frees" is what deleting that thing alone gives back: a file that others hold too is not freed. → opens a
repository's revisions. Space selects; the selection stays until you take it back, and its bytes, counted
together, are in the title. d shows what would go and what would stay, and asks; nothing is deleted before.

The filter takes size>10GB, frees>1GB, used>30d, made>2w, kind=merged,quantized, name~llama, profile=none,
busy=no, area=artifacts, and plain words; all of them must hold. Escape leaves it, once more empties it.
p selects what can go without regret: nothing that a profile or a process uses, nothing that cannot be made
again. v reads the selected things and compares them with their hashes. u brings back what was moved to the
trash last. w says what the bytes are made of.
"""
EMPTY = "Nothing is kept yet: models, engines and runs appear here once there are any."
NO_MATCH = "Nothing matches. Escape leaves the filter, once more empties it."


def title_words(view: View, *, done: bool) -> tuple[str, str]:
    """What is selected, and what there is: the first is "" without a selection."""
    there = f"{'' if done else 'so far '}{sized(view.on_disk)}"
    chosen = selected_words(view.selected)
    if chosen:
        return chosen, f"{there} in all"
    total = f"{there} in {counted(view.places[0].things if view.places else 0)}"
    return "", total if done else f"{total}, scanning..."


def selected_words(selected: Selected) -> str:
    """``2 selected: frees 19.38 GiB, 1.20 GiB shared stays``."""
    if not selected.things:
        return ""
    words = f"{selected.things:,} selected: frees {sized(selected.frees)}"
    if selected.shared:
        words += f", {sized(selected.shared)} shared stays"
    if selected.staying:
        words += f", {selected.staying:,} may not go"
    if selected.hidden:
        words += f" ({selected.hidden:,} not shown)"
    return words


def counted(number: int) -> str:
    """``1 thing``, ``1,204 things``."""
    return f"{number:,} thing{'' if number == 1 else 's'}"


def disk_words(
    disks: Sequence[CacheDisk], names: Mapping[str, str], used: int, budget: int | None
) -> str:
    """Free of total for each file system; the budget where one is set. ``names``: path of a root to its name."""
    parts = []
    for disk in disks:
        room = f"{sized(disk.free_bytes)} free of {sized(disk.total_bytes)}"
        if len(disks) > 1:
            places = list(dict.fromkeys(names.get(root, root) for root in disk.roots))
            more = f" and {len(places) - 2} more" if len(places) > 2 else ""
            room = f"{', '.join(map(shown, places[:2]))}{more}: {room}"
        parts.append(room)
    if budget is not None:
        parts.insert(0, budget_words(used, budget))
    return ("disk: " if len(disks) == 1 and budget is None else "") + " · ".join(parts)


def filter_words(view: View, order: str, error: QuantuiError | None, *, filtered: bool) -> Content:
    """How many things are shown and their bytes, or what is wrong with a half-typed filter."""
    if error is not None:
        words = one_line(f"{error.what} {error.fix}")
        return Content.styled(f"! {words}", "$text-warning")
    count = f"{view.matching:,} of {counted(view.things)}" if filtered else counted(view.things)
    freed = (
        ""
        if view.matching_frees >= view.matching_bytes
        else f", frees {sized(view.matching_frees)}"
    )
    return Content.styled(
        f"{count}, {sized(view.matching_bytes)}{freed} · by {order}", "$text-muted"
    )


def thing_lines(item: CacheItem, reason: str, parent: CacheItem | None) -> list[Content]:
    """The highlighted thing: what it is, where, why it may not go or was proposed, how it comes back."""
    above = f"of {shown(parent.name)}: " if parent is not None else ""
    what = f"  {above}{shown(item.detail)}"
    lines = [Content.assemble(Content.styled(shown(item.name), "bold"), what)]
    if item.keep:
        lines.append(Content.styled(f"stays: {one_line(item.keep)}", "$text-warning"))
    elif item.busy:
        lines.append(Content.styled(f"in use: {users_words(item)}", "$text-success"))
    elif reason:
        lines.append(Content.styled(f"proposed: {one_line(reason)}", "$text-accent"))
    elif item.use.shared:
        lines.append(
            Content(f"{sized(item.use.shared)} of it stay when it goes: others hold them too")
        )
    if item.profiles:
        names = joined([shown(path) for path in item.profiles])
        lines.append(Content(f"used by {names}"))
    lines.append(Content.styled(back_words(item), "$text-muted"))
    # Last: where there is no room for all, `y` copies it and `w` shows it.
    lines.append(Content.styled(shown(item.path), "$text-muted"))
    return lines


def users_words(item: CacheItem) -> str:
    """``vllm (process 4711) has files of it open``, every process."""
    return "; ".join(
        f"{one_line(use.name)} (process {use.pid}) {one_line(use.how)}" for use in item.users
    )


def back_words(item: CacheItem) -> str:
    """What it was made from, and how it comes back once it is gone."""
    back = f"to have it again: {rebuilt(item.rebuild)}" if item.rebuild else rebuilt(None)
    if item.rebuild is not None and not item.rebuild.possible:
        back = f"cannot be had again: {rebuilt(item.rebuild)}"
    if not item.made_from or back.startswith("to have it again: made from"):
        return back
    return f"made from {' + '.join(shown(one) for one in item.made_from)}; {back}"


def place_lines(
    name: str, where: str, problems: Sequence[ScanProblem], *, most: int = 2
) -> list[Content]:
    """The highlighted place: where it is, and what could not be read in it."""
    lines = [Content.styled(shown(where), "$text-muted")] if where else []
    for problem in problems[:most]:
        fix = f" {one_line(problem.fix)}" if problem.fix else ""
        lines.append(
            Content.styled(
                f"! {shown(problem.path)}: {one_line(problem.what)}{fix}", "$text-warning"
            )
        )
    if len(problems) > most:
        lines.append(Content.styled(f"  and {len(problems) - most} more like that", "$text-muted"))
    return lines or [Content.styled(name, "$text-muted")]
