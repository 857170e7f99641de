"""The keys of the screen that is shown, in one line; what cannot be used now is dim and in brackets."""

from __future__ import annotations

from textual.content import Content
from textual.style import Style
from textual.widget import Widget


class KeyBar(Widget, can_focus=False):
    """Like Textual's Footer, drawn as one line of text: it costs no widget a key, so that the first frame is quick."""

    DEFAULT_CSS = """
    KeyBar {
        dock: bottom;
        height: 1;
        background: $footer-background;
        color: $footer-foreground;
        text-wrap: nowrap;
        text-overflow: ellipsis;
    }
    """

    auto_links = False
    """A key is no link to be underlined; a click works all the same."""

    def on_mount(self) -> None:
        """Follow the bindings as focus and state change."""
        self.screen.bindings_updated_signal.subscribe(self, lambda _: self.refresh())

    def render(self) -> Content:
        """Key and word of each shown binding, in the order they are declared."""
        parts: list[Content] = []
        seen: set[str] = set()
        for active in self.screen.active_bindings.values():
            binding = active.binding
            if not binding.show or binding.action in seen:
                continue
            seen.add(binding.action)
            key = self.app.get_key_display(binding)
            if active.enabled:
                click = Style.from_meta({"@click": f"app.simulate_key('{binding.key}')"})
                text = Content.assemble(
                    Content.styled(f" {key}", "bold $footer-key-foreground"),
                    Content.styled(f" {binding.description}", "$footer-description-foreground"),
                )
                parts.append(text.stylize(click))
            else:
                parts.append(Content.styled(f" ({key} {binding.description})", "dim"))
        return Content("").join(parts)
