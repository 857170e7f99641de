"""The Model step: the facts of what is highlighted, an adapter to go with it, and taking it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Static

from quantui.domain.errors import QuantuiError
from quantui.domain.terminal_text import one_line
from quantui.tui.model_facts import demo_facts, error_facts, facts_of, first_facts
from quantui.tui.model_list import MAKE_DEMO
from quantui.tui.model_words import folder_question
from quantui.tui.screens.model_line import ModelLine

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from quantui.domain.explained_row import Row
    from quantui.domain.found import Found
    from quantui.runtime.subject import Subject
    from quantui.tui import model_messages as told
    from quantui.tui.looking import Looked

_LOOK_AFTER_S = 0.12
_ASK_HUB_AFTER_S = 0.6
"""How long one stays highlighted before the Hub is asked: moving through a list asks nothing."""


class ModelScreen(ModelLine):
    """Enter takes the highlighted model, or adapter with its base, once everything about it was looked up."""

    NAME = "model"
    HELP = (
        "What is to be served. Enter takes the highlighted model, or an adapter with its base; x picks an adapter to "
        "go with a model. / narrows the list, searches the Hub, or takes a path or owner/name; 1 to 4 show the tabs, "
        "d the facts alone, r reads again. Nothing is downloaded here but configs and headers."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("x", "adapter", "adapter"),
        Binding("a", "folder", "add"),
        Binding("d", "details", "details", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._shown: tuple[Found, Found | None] | None = None
        self._looked: Looked | None = None
        self._going: Found | None = None
        self._taking = 0

    # --- the facts of what is highlighted

    def _highlighted(self, *, again: bool = False) -> None:
        row, mate = self._table.row, self._place.mate
        if row is not None and self._shown == (row, mate) and not again:
            return
        self._stop_taking()
        self._looked = None
        self._not_later("look", "hub")
        if row is None:
            self._shown = None
            self._work.forget()
            self._facts.show("", ())
            return
        self._shown = (row, mate)
        if row == MAKE_DEMO:
            self._facts.show("demo", demo_facts())
        else:
            self._facts.show(row.kind, first_facts(row))
            # A name that is still being typed is looked up on Enter.
            if row.place != "typed" or again or not self._line.has_focus:
                self._later("look", _LOOK_AFTER_S, self._look)
        self.refresh_bindings()

    def _look(self) -> None:
        if self._shown is not None:
            self._work.look(*self._shown)

    def on_known(self, message: told.Known) -> None:
        """More is known; the Hub is asked for the rest once the person stays here."""
        looked = message.looked
        if self._shown != (looked.found, looked.mate):
            return
        first = self._looked is None
        self._looked = looked
        self._facts.show(_title(looked), facts_of(looked), again=True)
        if first:
            self._later("hub", _ASK_HUB_AFTER_S, self._look_further)
        self.refresh_bindings()

    def _look_further(self) -> None:
        if self._looked is not None:
            self._work.look_further(self._looked)

    def why(self) -> Sequence[Row]:
        """Where the figures come from."""
        return () if self._looked is None else self._looked.why

    def action_details(self) -> None:
        """The facts alone, or beside the list."""
        self.toggle_class("-zoom")
        self._focus_list()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Grey an adapter where no model is highlighted."""
        if action == "adapter":
            row = self._table.row if self.is_mounted else None
            return True if row is not None and row != MAKE_DEMO else None
        return super().check_action(action, parameters)

    # --- an adapter to go with a model

    def action_adapter(self) -> None:
        """On an adapter: pick it, or drop it. On a model: ask which."""
        row = self._table.row
        if row is None or row == MAKE_DEMO:
            return
        if self._is_adapter(row):
            self._set_mate(None if self._place.mate == row else row)
            return
        from quantui.tui.screens.model_adapters import PickAdapter

        adapters = self._entries.by_tab["adapters"]
        self.app.push_screen(PickAdapter(row, adapters, self._place.mate), self._picked)

    def _is_adapter(self, row: Found) -> bool:
        looked = self._looked
        return row.kind == "adapter" or (looked is not None and looked.adapter is not None)

    def _picked(self, found: Found | None) -> None:
        if found is not None:
            self._set_mate(found if found.ref else None)

    def _set_mate(self, mate: Found | None) -> None:
        self._place.mate = mate
        self._show_list()
        self.update_rail()

    # --- a folder

    def action_folder(self) -> None:
        """Ask for a folder to look through."""
        from quantui.tui.screens.ask_path import AskPath

        question = folder_question(self._added)
        self.app.push_screen(AskPath("add a folder", question, placeholder="~/models"), self._keep)

    def _keep(self, path: Path | None) -> None:
        if path is not None:
            self._work.keep_folder(str(path))

    def on_folder_kept(self, message: told.FolderKept) -> None:
        """Show what is in it, or say why it cannot be read."""
        self._show_problem(message.error)
        if message.error is None:
            done = "No longer looked through" if message.removed else "Added"
            self.notify(f"{done}: {one_line(message.path)}.", markup=False)
            self.action_tab("folders")
            self.action_refresh()

    # --- taking it

    def ready(self) -> bool:
        """Whether the highlighted one can be taken, as far as is known; the Hub may answer the next time."""
        row, looked = (self._table.row if self.is_mounted else None), self._looked
        if row is None or self._going is not None or self._work.making_demo:
            return False
        if row.problem and row.place != "hub":
            return False
        if looked is None:
            return True
        errors = (looked.error, looked.base_error, looked.fit_error)
        return all(error is None or error.code.startswith("hub.") for error in errors)

    def action_next(self) -> None:
        """Look up everything about the highlighted one, then go on."""
        row = self._table.row
        if row is None or not self.ready():
            return
        self._show_problem(None)
        self._taking += 1
        if row == MAKE_DEMO:
            self._work.make_demo(self._taking)
            self._say("making the demo's model and adapter")
            return
        self._going = row
        mate = None if self._is_adapter(row) else self._place.mate
        on_cpu = self.session.answers.gpus == ()
        self._say(f"looking up {row.ref}")
        self._work.choose(self._taking, row, mate, self.session.hardware, on_cpu=on_cpu)
        self.refresh_bindings()

    def action_back(self) -> None:
        """Leave the line, stop what is under way, or go back."""
        if self._line.has_focus:
            if self._place.tab != "hub":
                self._line.value = ""
            self._focus_list()
        elif self._going is not None:
            self._stop_taking()
        elif self._work.making_demo:
            self._work.stop_demo()
            self._say("stopping")
        elif self.has_class("-zoom"):
            self.action_details()
        else:
            super().action_back()

    def _stop_taking(self) -> None:
        if self._going is not None:
            self._going = None
            self._taking += 1
            self._say("")

    def _say(self, text: str) -> None:
        line = self.query_one("#doing", Static)
        line.set_class(bool(text), "-there")
        told = Content(f"{one_line(text)} ... (Esc stops it)" if text else "")
        line.update(told, layout=False)

    def on_doing(self, message: told.Doing) -> None:
        """How far it is."""
        if message.about == self._taking:
            self._say(message.text)

    def on_chosen(self, message: told.Chosen) -> None:
        """Go on with it, or say why not."""
        if message.about != self._taking or self._going is None:
            return
        row, self._going = self._going, None
        self._say("")
        if isinstance(message.answer, QuantuiError):
            self._facts.show(row.kind, [*first_facts(row), *error_facts(message.answer)])
            self.refresh_bindings()
            return
        self._take(row, message.answer)

    def _take(self, row: Found, subject: Subject) -> None:
        session, model, adapter = self.session, subject.model, subject.adapter
        ref, revision = _named(model.ref, model.source, model.path), row.revision
        adapter_ref = adapter_revision = None
        if adapter is not None:
            adapter_ref = _named(adapter.ref, adapter.source, adapter.path)
            if self._is_adapter(row):
                adapter_revision = row.revision
                revision = adapter.base_revision if model.ref == adapter.base_ref else None
            elif self._place.mate is not None:
                adapter_revision = self._place.mate.revision
        cleared = session.answer(
            model=ref, revision=revision, adapter=adapter_ref, adapter_revision=adapter_revision
        )
        session.loaded = None
        session.subject = replace(subject, described_by=session.described_by)
        self.tell_cleared(cleared)
        self.wizard.go("method")

    # --- the demo

    def on_demo_made(self, message: told.DemoMade) -> None:
        """Its model is highlighted, its adapter picked to go with it."""
        self._say("")
        if message.error is not None:
            if message.error.code != "run.cancelled":
                self._facts.show("demo", [*demo_facts(), *error_facts(message.error)])
            self.refresh_bindings()
            return
        self._entries.add(message.found)
        for found in message.found:
            if found.kind == "adapter":
                self._place.mate = found
            else:
                self._place.keys["folders"] = found.key
        self._show_tab("folders")

    def on_broke(self, message: told.Broke) -> None:
        """A defect in a thread is one of the program's."""
        raise message.error


def _named(ref: str, source: str, path: str | None) -> str:
    """What the profile says: the whole path of a folder, also where a part of it was typed."""
    return path if source == "folder" and path is not None else ref


def _title(looked: Looked) -> str:
    kind = "adapter" if looked.adapter is not None else looked.found.kind
    return f"{kind} + adapter" if looked.mate is not None and kind == "model" else kind
