"""A line or two that are told while there is something to tell."""

from __future__ import annotations

from textual.content import Content
from textual.widgets import Static


class Told(Static):
    """Hidden without a text; laid out anew only when the text changes, which a run asks for ten times a second."""

    DEFAULT_CSS = """
    Told { height: auto; display: none; }
    Told.-there { display: block; }
    """

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id, markup=False)
        self._told = Content()

    def tell(self, words: Content | str) -> None:
        """Show ``words``, or nothing where they are empty; a string is text and never markup."""
        content = words if isinstance(words, Content) else Content(words)
        if content.is_same(self._told):
            return
        self._told = content
        self.set_class(bool(content.plain), "-there")
        self.update(content)
