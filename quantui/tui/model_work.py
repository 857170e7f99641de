"""The threads of the Model step: they browse, look up, search and choose, and tell its screen by messages."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from textual._context import NoActiveAppError

from quantui.domain.errors import QuantuiError
from quantui.domain.formatting import format_bytes
from quantui.tui.lane import Lane
from quantui.tui.model_messages import (
    Broke,
    Chosen,
    DemoMade,
    Doing,
    FolderKept,
    Known,
    Listed,
    Searched,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual.message import Message

    from quantui.domain.found import Found
    from quantui.domain.hardware import HardwareReport
    from quantui.tui.looking import Looked

_TELL_EVERY_S = 0.1


class ModelWork:
    """Each kind of work has a lane of its own: a Hub that does not answer holds up nothing that is here."""

    def __init__(self, post: Callable[[Message], object]) -> None:
        self._post = post
        kinds = ("browse", "look", "hub", "search", "choose", "folders")
        self._lanes = {kind: Lane(f"model-{kind}", self._broke) for kind in kinds}
        self._demo: threading.Event | None = None

    def _tell(self, message: Message) -> None:
        # The screen may have gone while the thread waited for an answer.
        with contextlib.suppress(NoActiveAppError):
            self._post(message)

    def _broke(self, error: Exception) -> None:
        self._tell(Broke(error))

    def close(self) -> None:
        """Stop everything; the demo's training ends within seconds, and what it had begun is removed."""
        for lane in self._lanes.values():
            lane.drop()
        self.stop_demo()

    def browse(self, about: int) -> None:
        """List what is on this machine."""

        def work(stopped: Callable[[], bool]) -> None:
            from quantui.runtime.browse import browse, hub_cache
            from quantui.runtime.browsed_folders import added_folders

            try:
                current = Path.cwd()
            except OSError:
                # It was deleted under the person's feet.
                current = None
            waiting: list[Found] = []
            told = time.monotonic()
            for found in browse(stopped, current=current):
                waiting.append(found)
                if time.monotonic() - told >= _TELL_EVERY_S:
                    self._tell(Listed(about, waiting))
                    waiting, told = [], time.monotonic()
            if not stopped():
                kept = tuple(map(str, added_folders()))
                cache = str(hub_cache())
                self._tell(Listed(about, waiting, done=True, cache=cache, folders=kept))

        self._lanes["browse"].ask(work)

    def look(self, found: Found, mate: Found | None) -> None:
        """Look at what is highlighted, with what is on this machine."""
        self._lanes["hub"].drop()

        def work(stopped: Callable[[], bool]) -> None:
            from quantui.tui.looking import look_here

            looked = look_here(found, mate)
            if not stopped():
                self._tell(Known(_explained(looked)))

        self._lanes["look"].ask(work)

    def look_further(self, looked: Looked) -> None:
        """Ask the Hub for what this machine does not tell."""

        def work(stopped: Callable[[], bool]) -> None:
            from quantui.tui.looking import look_further

            for more in look_further(looked, stopped):
                if stopped():
                    return
                self._tell(Known(_explained(more)))

        self._lanes["hub"].ask(work)

    def forget(self) -> None:
        """Nothing is highlighted."""
        self._lanes["look"].drop()
        self._lanes["hub"].drop()

    def search(self, text: str) -> None:
        """Search the Hub; "" ends the search under way."""
        if not text:
            self._lanes["search"].drop()
            return

        def work(stopped: Callable[[], bool]) -> None:
            from quantui.runtime.hub_search import search_hub

            waiting: list[Found] = []
            try:
                for found in search_hub(text, stopped):
                    waiting.append(found)
                    if found.kind != waiting[0].kind or len(waiting) >= 50:
                        self._tell(Searched(text, waiting))
                        waiting = []
            except QuantuiError as error:
                self._tell(Searched(text, waiting, done=True, error=error))
            else:
                self._tell(Searched(text, waiting, done=True))

        self._lanes["search"].ask(work)

    def choose(
        self,
        about: int,
        found: Found,
        mate: Found | None,
        hardware: HardwareReport | None,
        *,
        on_cpu: bool,
    ) -> None:
        """Look up everything the next step needs; large files that were never hashed take their time."""

        def work(stopped: Callable[[], bool]) -> None:
            from quantui.runtime.models import split_revision
            from quantui.runtime.subject import look_at

            def progress(name: str, done: int, total: int) -> None:
                share = f"{format_bytes(done)} of {format_bytes(total)}"
                self._tell(Doing(about, f"computing the SHA-256 of {name}: {share}"))

            ref, revision = found.ref, found.revision
            if found.place == "typed":
                ref, revision = split_revision(ref)
            try:
                answer = look_at(
                    ref,
                    revision=revision,
                    adapter=None if mate is None else mate.ref,
                    adapter_revision=None if mate is None else mate.revision,
                    hardware=hardware,
                    on_cpu=on_cpu,
                    progress=progress,
                )
            except QuantuiError as error:
                self._tell(Chosen(about, error))
            else:
                self._tell(Chosen(about, answer))
            del stopped

        self._lanes["choose"].ask(work)

    def keep_folder(self, text: str) -> None:
        """Keep a folder to be looked through, or no longer where it is kept already."""

        def work(stopped: Callable[[], bool]) -> None:
            from quantui.runtime.browsed_folders import add_folder, added_folders, remove_folder

            del stopped
            try:
                folder = Path(text).absolute()
                if folder in added_folders():
                    remove_folder(folder)
                    self._tell(FolderKept(str(folder), removed=True))
                else:
                    self._tell(FolderKept(str(add_folder(text))))
            except QuantuiError as error:
                self._tell(FolderKept(text, error=error))

        self._lanes["folders"].ask(work)

    # --- the demo

    @property
    def making_demo(self) -> bool:
        """Whether the demo's model is being made."""
        return self._demo is not None and not self._demo.is_set()

    def stop_demo(self) -> None:
        """Stop making it."""
        if self._demo is not None:
            self._demo.set()

    def make_demo(self, about: int) -> None:
        """Train the demo's model. The thread keeps the program alive until its processes are gone."""
        self._demo = cancel = threading.Event()
        threading.Thread(target=self._make_demo, args=(about, cancel), name="model-demo").start()

    def _make_demo(self, about: int, cancel: threading.Event) -> None:
        try:
            error = self._train(about, cancel)
        except QuantuiError as caught:
            error = caught
        except Exception as caught:  # noqa: BLE001 - a defect, told where it is seen
            self._broke(caught)
            return
        finally:
            cancel.set()
        from quantui.runtime.browse import browse_demo

        self._tell(DemoMade((), error) if error else DemoMade(tuple(browse_demo())))

    def _train(self, about: int, cancel: threading.Event) -> QuantuiError | None:
        from quantui.domain.events import RunFinished, StepPhase, StepProgress
        from quantui.engines.choice import CPU_ENGINE
        from quantui.runtime.demo import make_demo
        from quantui.runtime.engines import find_engine

        python = find_engine(CPU_ENGINE, purpose="train-demo").python
        phase = ""
        for event in make_demo(python, cancel):
            if isinstance(event, StepPhase):
                phase = event.phase
                self._tell(Doing(about, phase))
            elif isinstance(event, StepProgress):
                whole = f" of {event.total:g}" if event.total else ""
                count = f"{event.done:g}{whole} {event.unit}".strip()
                told = f", {event.message}" if event.message else ""
                self._tell(Doing(about, f"{phase}: {count}{told}"))
            elif isinstance(event, RunFinished) and event.error is not None:
                return QuantuiError.from_dict(event.error)
        return None


def _explained(looked: Looked) -> Looked:
    from quantui.tui.model_why import why_rows

    return replace(looked, why=why_rows(looked))
