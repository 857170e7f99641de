"""What the lists of the Model step say of themselves: the row of tabs, the hint of the line, why a list is empty."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content
from textual.style import Style

from quantui.domain.terminal_text import one_line
from quantui.tui.model_list import TABS, TITLES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from quantui.domain.found import Found

HINTS = {
    "cache": "/ narrows; a path or owner/name and Enter looks it up",
    "folders": "/ narrows; a adds a folder; a path or owner/name and Enter looks it up",
    "hub": "/ searches the Hub by name; owner/name and Enter looks one up",
    "adapters": "/ narrows, or names one to look up; x picks one for a model",
}


def tabs_content(here: str, counts: Mapping[str, int | None], mate: Found | None) -> Content:
    """``▸1 Hub cache 12  2 folders ...``: the number is the key; ``counts`` None where nothing is known.

    ``mate``: the adapter that was picked to go with a model.
    """
    parts: list[Content] = []
    for number, tab in enumerate(TABS, 1):
        count = counts[tab]
        told = "" if count is None else f" {count}"
        text = f"{'▸' if tab == here else ' '}{number} {TITLES[tab]}{told} "
        style = "bold $primary" if tab == here else "$text-muted"
        click = Style.from_meta({"@click": f"screen.tab('{tab}')"})
        parts.append(Content.styled(text, style).stylize(click))
    if mate is not None:
        short = one_line(mate.ref).rstrip("/").rpartition("/")[2]
        parts.append(Content.styled(f" + {short}", "bold"))
    return Content("").join(parts)


def nothing_here(tab: str, cache: str, *, reading: bool, filtered: bool) -> str:
    """Why a list of this machine is empty, and which key helps. ``cache``: the path of the Hub cache."""
    if reading:
        return "Reading what is on this machine ..."
    if filtered:
        return "Nothing here matches. / and Escape clear the line; 3 searches the Hub."
    return {
        "cache": f"The Hub cache at {one_line(cache)} holds no models: "
        "press 3 to search the Hub, a to add a folder.",
        "folders": "No models in the current folder or in those you added: press a to add a folder.",
        "adapters": "No adapters are on this machine: press 3 to search the Hub, a to add a folder, "
        "or / and type the path of one.",
    }[tab]


def folder_question(added: Sequence[str]) -> str:
    """What is asked where a folder can be added; ``added``: those that were."""
    question = "Models and adapters are looked for in it, and two levels below."
    if not added:
        return question
    listed = "\n".join(f"  {one_line(folder)}" for folder in added)
    return f"{question}\nAdded so far (the same path again takes it away):\n{listed}"


def nothing_found(*, searching: bool, failed: bool, searched: bool) -> str:
    """Why the list of the Hub's is empty."""
    if searching:
        return "Searching the Hub ..."
    if failed:
        return "The Hub was not searched; r tries again."
    if searched:
        return "The Hub has no model and no adapter with this in its name."
    return "Type a part of a name and press Enter."
