"""The served model: talk to it, see what was predicted and measured, take the snippets, keep it or stop it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual import work
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Input

from quantui.domain.formatting import format_seconds
from quantui.domain.terminal_text import one_line
from quantui.tui.run_words import run_rows
from quantui.tui.screens.ask import Ask, Reply
from quantui.tui.screens.step import StepScreen
from quantui.tui.talk import talk_of
from quantui.tui.widgets.chat_box import ChatBox
from quantui.tui.widgets.served_facts import ServedFacts
from quantui.tui.widgets.told import Told

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from textual.widget import Widget

    from quantui.domain.explained_row import Row
    from quantui.tui.run_view import RunView
    from quantui.tui.talk import Talk


class ReadyScreen(StepScreen):
    """Shown while ``session.run`` serves. Wide: chat left, figures right; narrow: `m` goes between them."""

    NAME = "ready"
    # The chat's input takes the focus itself; the first Input of the screen is hidden at first.
    AUTO_FOCUS: ClassVar[str | None] = ""
    HELP = (
        "The model is served by vLLM at the address on top, as OpenAI's API has it. Escape leaves the chat's input, "
        "so that the other keys work. What was predicted stands beside what was measured. k keeps the server "
        "running when quantui is left; x stops it and checks that its memory is back."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,i", "chat", "chat"),
        Binding("w", "why", "why", show=False),
        Binding("m", "facts", "figures"),
        Binding("tab", "snippet", "snippet", priority=True, show=False),
        Binding("y", "copy", "copy", show=False),
        Binding("s", "save", "save"),
        Binding("k", "keep", "keep"),
        Binding("x", "stop", "stop"),
        Binding("l", "log", "log", show=False),
        Binding("t", "system", "system prompt", show=False),
    ]
    DEFAULT_CSS = """
    ReadyScreen #where { max-height: 3; }
    ReadyScreen #both { height: 1fr; }
    ReadyScreen.-wide #facts { padding-left: 2; }
    ReadyScreen.-wide #where { margin-bottom: 1; }
    ReadyScreen #chatting { width: 1fr; }
    ReadyScreen #system { display: none; height: 1; border: none; background: $panel; padding: 0 1; }
    ReadyScreen #system.-there { display: block; }
    ReadyScreen.-short ChatInput, ReadyScreen.-short ChatInput:focus { height: 1; border: none; padding: 0 1; }
    ReadyScreen.-short #facts RunMemory { height: 7; }
    ReadyScreen.-narrow #facts { display: none; }
    ReadyScreen.-narrow.-facts #facts { display: block; }
    ReadyScreen.-narrow.-facts #chatting { display: none; }
    """

    class Snippets(Message):
        """How to use the endpoint from elsewhere: name to text."""

        def __init__(self, texts: dict[str, str], key: str | None) -> None:
            self.texts = texts
            self.key = key
            super().__init__()

    def __init__(self) -> None:
        super().__init__()
        self._snippets: dict[str, str] = {}
        self._railed: object = None

    @property
    def view(self) -> RunView | None:
        """The run, None when there is none (any more)."""
        return self.session.run

    @property
    def talk(self) -> Talk:
        """The conversation with this server; another one begins with another run."""
        return talk_of(self.session.places, self.view.state.run_id if self.view else "")

    def compose_body(self) -> Iterable[Widget]:
        """The endpoint, the chat, the figures."""
        yield Told(id="where")
        with Horizontal(id="both"):
            with Vertical(id="chatting"):
                yield Input(
                    self.talk.system,
                    placeholder="System prompt; Enter takes it, empty for none",
                    id="system",
                )
                yield ChatBox(self.talk, id="chat")
            yield ServedFacts(id="facts")

    def on_mount(self) -> None:
        """Look up what the chat needs; draw once everything is there."""
        self._learn()
        self.call_after_refresh(self.run_changed)

    def on_screen_resume(self) -> None:
        """The server may have ended while another screen was above this one."""
        self.call_after_refresh(self.run_changed)

    @work(thread=True, group="snippets", exit_on_error=False)
    def _learn(self) -> None:
        """The API key, and the snippets: both need modules that are not loaded yet."""
        from quantui.domain.plan import ServeStep
        from quantui.runtime.chat import snippets

        view = self.view
        ready = view.state.ready if view else None
        if view is None or ready is None:
            return
        step = view.plan.step("serve") if view.plan else None
        variable = step.api_key_env if isinstance(step, ServeStep) else None
        key = os.environ.get(variable) if variable else None
        chat = view.plan is None or view.plan.model.has_chat_template
        texts = snippets(ready.url, ready.model, key_env=variable, chat=chat)
        self.post_message(self.Snippets(texts, key))

    def on_ready_screen_snippets(self, message: Snippets) -> None:
        """Everything that the chat needs is there."""
        view = self.view
        self._snippets = message.texts
        if view is not None and view.state.ready is not None:
            ready = view.state.ready
            for box in self.query(ChatBox):
                box.connect(ready.url, ready.model, message.key)
        for facts in self.query(ServedFacts):
            facts.offer(message.texts)

    # --- what is shown

    def run_changed(self) -> None:
        """Draw what changes; a server that has ended is no longer ready."""
        view = self.view
        if view is None:
            return
        if len(self.query("#where, #figures, #memory")) < 3:
            self.call_after_refresh(self.run_changed)
            return
        if not view.living or view.cancelling:
            if self.app.screen is self:
                self.wizard.go("failure" if view.outcome == "failed" else "run")
            return
        self._show_where(view)
        self.query_one(ServedFacts).show(view)
        step = view.state.current
        now = (
            step.id if step else "",
            view.outcome,
            view.detached,
            bool(self._snippets),
            view.hosted is not None,
            self.session.draft is not None,
        )
        if now != self._railed:
            # Rail and keys say nothing of how far a step is: they are not drawn ten times a second.
            self._railed = now
            self.update_rail()

    def _show_where(self, view: RunView) -> None:
        ready = view.state.ready
        if ready is None:
            return
        after = f"ready {format_seconds(ready.seconds)} after its start"
        background = " · in the background" if view.detached else ""
        lines = [
            Content.assemble(
                Content.styled(f"✓ {ready.url}", "bold $text-success"),
                Content.styled(f"  as {one_line(ready.model)}", "bold"),
                Content.styled(f"  {after}{background}", "$text-muted"),
            )
        ]
        warnings = [one.text for one in view.state.notices if one.level == "warning"]
        if warnings:
            more = f" ({len(warnings)} warnings: w)" if len(warnings) > 1 else ""
            lines.append(Content.styled(f"! {one_line(warnings[-1])}{more}", "$text-warning"))
        self.query_one("#where", Told).tell(Content("\n").join(lines))

    def why(self) -> Sequence[Row]:
        """Predicted and measured figures with their sources, and every notice."""
        return run_rows(self.view) if self.view is not None else ()

    # --- keys

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Figures have a key of their own only where they do not stand beside the chat."""
        if action == "next":
            return False
        if action == "why":
            return True if self.view is not None else None
        if action == "facts":
            return self.has_class("-narrow")
        if action == "save":
            return True if self.session.draft is not None else None
        if action == "snippet":
            return bool(self._snippets) and self._facts_shown()
        if action == "copy":
            return bool(self._snippets) and self._facts_shown()
        return super().check_action(action, parameters)

    def _facts_shown(self) -> bool:
        return not self.has_class("-narrow") or self.has_class("-facts")

    def action_chat(self) -> None:
        """Back to the chat's input."""
        self.remove_class("-facts")
        self.query_one("#say").focus()

    def action_facts(self) -> None:
        """From the chat to the figures, or back."""
        self.toggle_class("-facts")
        self.query_one("#facts" if self.has_class("-facts") else "#say").focus()
        self.refresh_bindings()

    def action_snippet(self) -> None:
        """The next snippet."""
        self.query_one(ServedFacts).next_snippet()

    def action_copy(self) -> None:
        """Copy the snippet that is shown (OSC 52)."""
        shown = self.query_one(ServedFacts).snippet
        if shown is not None:
            name, text = shown
            self.app.copy_to_clipboard(text)
            self.notify(f"Copied the {name} snippet.", markup=False)

    def action_save(self) -> None:
        """Save the profile."""
        from quantui.tui.saving import save_profile

        save_profile(self)

    def action_log(self) -> None:
        """The server's log."""
        from quantui.tui.screens.log import LogScreen

        view = self.view
        if view is not None and view.hosted is not None:
            self.app.push_screen(LogScreen(Path(view.hosted.log(view.last_step))))

    def action_system(self) -> None:
        """Ask for the system prompt."""
        self.remove_class("-facts")
        system = self.query_one("#system", Input)
        system.add_class("-there")
        system.focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Take the system prompt; it holds from the next question on."""
        if event.input.id == "system":
            self.talk.system = event.value.strip()
            event.input.set_class(bool(self.talk.system), "-there")
            self.query_one("#say").focus()

    def action_keep(self) -> None:
        """Keep serving without this window, and quit."""
        from quantui.tui.leaving import keep_and_leave

        keep_and_leave(self.wizard)

    def action_stop(self) -> None:
        """Ask, then stop the server."""
        body = "Every process of the server ends, and it is checked that its memory is back."
        replies = [Reply("on", "g", "go on serving"), Reply("stop", "x", "stop it")]
        self.app.push_screen(Ask("Stop the server?", body, replies), self._replied)

    def action_back(self) -> None:
        """Stop an answer that streams; else to Review, the server being asked about."""
        if self.query_one(ChatBox).stop():
            return
        body = "It goes on serving while you look at the review; b brings you back to it."
        replies = [
            Reply("keep", "k", "keep it serving, and go to the review"),
            Reply("stop", "x", "stop it"),
        ]
        self.app.push_screen(Ask("Leave the server?", body, replies), self._replied)

    def _replied(self, reply: str | None) -> None:
        view = self.view
        if reply == "keep":
            self.wizard.go("review")
        elif reply == "stop" and view is not None and view.living:
            view.cancel()
            self.wizard.go("run")
