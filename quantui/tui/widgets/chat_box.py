"""A chat with the served model: answers stream in, each with its tokens a second and the time to its first token."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, ClassVar

from textual import work
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, Static

from quantui.domain.terminal_text import sanitize
from quantui.tui.bugs import TellsBugs
from quantui.tui.talk import Talk, Turn, speed_words

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from quantui.domain.errors import QuantuiError

MAX_TOKENS = 1024
"""The longest answer; a chat that runs on can be stopped with Escape."""
_TELL_EVERY_S = 0.05


class ChatInput(Input):
    """What is typed goes to the model; Escape leaves it, so that the other keys can be reached."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "submit", "send"),
        Binding("escape", "out", "stop the answer, other keys"),
    ]

    def action_out(self) -> None:
        """Stop the answer that streams; without one, leave the input."""
        box = self.query_ancestor(ChatBox)
        if not box.stop():
            box.query_one("#talk").focus()


class ChatBox(TellsBugs, Vertical):
    """Shows a :class:`Talk` and adds to it. :meth:`connect` says where the model is."""

    DEFAULT_CSS = """
    ChatBox { height: 1fr; }
    ChatBox #talk { height: 1fr; }
    ChatBox #talk Static { height: auto; margin-bottom: 1; }
    ChatBox Input { height: 3; border: round $panel; }
    ChatBox Input:focus { border: round $primary; }
    """

    class Said(Message):
        """The answer to ``turn`` went on, or ended (``over``); ``error`` says why it broke off."""

        def __init__(self, turn: Turn, *, over: bool, error: QuantuiError | None = None) -> None:
            self.turn = turn
            self.over = over
            self.error = error
            super().__init__()

        def can_replace(self, message: Message) -> bool:
            """The turn holds everything that came: the newest message stands for those that wait."""
            return isinstance(message, ChatBox.Said) and not message.over

    def __init__(self, talk: Talk, id: str | None = None) -> None:
        super().__init__(id=id)
        self.talk = talk
        self._url = self._model = ""
        self._key: str | None = None
        self._stop: threading.Event | None = None

    def compose(self) -> ComposeResult:
        """What was said, then where to say something."""
        with VerticalScroll(id="talk"):
            for turn in self.talk.turns:
                yield self._shown(turn)
            if not self.talk.turns:
                yield Static("Ask the model something: it answers here.", id="empty", markup=False)
        yield ChatInput(placeholder="Say something; Enter sends", id="say")

    def on_mount(self) -> None:
        """The newest is in sight, and the person can type."""
        # By query: an app that ends at this moment has taken the children away again.
        for talk in self.query("#talk").results(VerticalScroll):
            talk.anchor()
        self.query(ChatInput).focus()

    def on_unmount(self) -> None:
        """An answer that streams ends with the screen."""
        self.stop()

    def connect(self, url: str, model: str, key: str | None) -> None:
        """``url`` of the API (``.../v1``), the served name, and the API key if the server wants one."""
        self._url, self._model, self._key = url, model, key

    @property
    def answering(self) -> bool:
        """Whether an answer streams."""
        return self._stop is not None

    def stop(self) -> bool:
        """Stop the answer that streams; False when there is none."""
        if self._stop is None:
            return False
        self._stop.set()
        return True

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Send it. While an answer streams it waits in the input."""
        event.stop()
        text = event.value.strip()
        if not text or self.answering or not self._url:
            return
        event.input.value = ""
        for empty in self.query("#empty"):
            empty.remove()
        asked, answer = Turn("user", text), Turn("assistant", "", "…")
        self.talk.turns += [asked, answer]
        talk = self.query_one("#talk", VerticalScroll)
        talk.mount(self._shown(asked), self._shown(answer))
        talk.anchor()
        self._stop = threading.Event()
        self._ask(self.talk.messages(), answer, self._stop)

    @work(thread=True, group="chat", exit_on_error=False)
    def _ask(self, messages: list[dict[str, str]], answer: Turn, stop: threading.Event) -> None:
        from quantui.domain.errors import QuantuiError
        from quantui.runtime.chat import ChatDelta, chat

        told, error = 0.0, None
        try:
            for part in chat(
                self._url,
                self._model,
                messages,
                api_key=self._key,
                max_tokens=MAX_TOKENS,
                stop=stop,
            ):
                if isinstance(part, ChatDelta):
                    if part.reasoning:
                        answer.thought += part.text
                    else:
                        answer.text += part.text
                    if time.monotonic() - told >= _TELL_EVERY_S:
                        told = time.monotonic()
                        self.post_message(self.Said(answer, over=False))
                else:
                    words = [speed_words(part.tokens, part.seconds, part.first_token_seconds)]
                    words += ["stopped"] if part.finish_reason == "stopped" else []
                    words += ["cut off at its longest"] if part.finish_reason == "length" else []
                    words += [part.note] if part.note else []
                    answer.note = "; ".join(words)
        except QuantuiError as caught:
            error = caught
            answer.note = f"✗ {caught.what} {caught.why}".strip()
        if answer.note == "…":
            answer.note = "stopped"
        self.post_message(self.Said(answer, over=True, error=error))

    def on_chat_box_said(self, message: Said) -> None:
        """Draw the answer as far as it is."""
        for shown in self.query("#talk Static").results(Static):
            if getattr(shown, "turn", None) is message.turn:
                shown.update(_words(message.turn))
        if message.over:
            self._stop = None

    @staticmethod
    def _shown(turn: Turn) -> Static:
        return _Said(turn)


class _Said(Static):
    """One turn."""

    def __init__(self, turn: Turn) -> None:
        super().__init__(_words(turn), markup=False)
        self.turn = turn


def _words(turn: Turn) -> Content:
    asked = turn.role == "user"
    parts = [
        Content.styled("you  " if asked else "model  ", "bold $text-accent" if asked else "bold")
    ]
    if turn.thought:
        thought = sanitize(turn.thought, keep_newlines=True).strip()
        parts.append(Content.styled(f"(thinks) {thought}\n", "italic $text-muted"))
    parts.append(Content(sanitize(turn.text, keep_newlines=True).strip()))
    if turn.note:
        parts.append(Content.styled(f"\n{sanitize(turn.note)}", "$text-muted"))
    return Content.assemble(*parts)
