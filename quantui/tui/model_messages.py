"""What the threads of the Model step tell its screen. ``about`` tells an answer from one that came too late."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.message import Message

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quantui.domain.errors import QuantuiError
    from quantui.domain.found import Found
    from quantui.runtime.subject import Subject
    from quantui.tui.looking import Looked


class Listed(Message):
    """More of what is on this machine; ``done``: this was all, with the path of the Hub cache and the added folders."""

    def __init__(
        self,
        about: int,
        found: Sequence[Found],
        *,
        done: bool = False,
        cache: str = "",
        folders: tuple[str, ...] = (),
    ) -> None:
        self.about = about
        self.found = tuple(found)
        self.done = done
        self.cache = cache
        self.folders = folders
        super().__init__()


class Searched(Message):
    """More of what the Hub found for ``text``; ``error``: why there is no more."""

    def __init__(
        self,
        text: str,
        found: Sequence[Found],
        *,
        done: bool = False,
        error: QuantuiError | None = None,
    ) -> None:
        self.text = text
        self.found = tuple(found)
        self.done = done
        self.error = error
        super().__init__()


class Known(Message):
    """Something more is known of what is highlighted."""

    def __init__(self, looked: Looked) -> None:
        self.looked = looked
        super().__init__()


class Doing(Message):
    """What is being done for the person, in words; a newer one stands for those that wait."""

    def __init__(self, about: int, text: str) -> None:
        self.about = about
        self.text = text
        super().__init__()

    def can_replace(self, message: Message) -> bool:
        """Files are hashed and models trained faster than anybody reads."""
        return isinstance(message, Doing)


class Chosen(Message):
    """Everything about the choice was looked up; or ``error`` says why it cannot be taken."""

    def __init__(self, about: int, answer: Subject | QuantuiError) -> None:
        self.about = about
        self.answer = answer
        super().__init__()


class DemoMade(Message):
    """The demo's model and adapter are there; or ``error`` says why not."""

    def __init__(self, found: Sequence[Found], error: QuantuiError | None = None) -> None:
        self.found = tuple(found)
        self.error = error
        super().__init__()


class FolderKept(Message):
    """A folder was added to those that are looked through, or taken away; or ``error`` says why not."""

    def __init__(
        self, path: str, *, removed: bool = False, error: QuantuiError | None = None
    ) -> None:
        self.path = path
        self.removed = removed
        self.error = error
        super().__init__()


class Broke(Message):
    """A defect in a thread: raised again where it is seen."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        super().__init__()
