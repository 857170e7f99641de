"""From a screen to an SVG and a PNG that are the same on every machine: fixed ids, one font, one renderer."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:
    from textual.app import App

FONTS = Path(__file__).parent / "fonts"


def screen_svg(app: App[Any], name: str) -> str:
    """The screen of a running app. Textual's own export numbers its classes anew each time; here ``name`` does."""
    width, height = app.size
    console = canvas(width, height)
    # Textual renders the whole screen only through its compositor.
    render = app.screen._compositor.render_update(
        full=True, screen_stack=app._background_screens, simplify=True
    )
    console.print(render)
    return console.export_svg(title="quantui", unique_id=name)


def canvas(width: int, height: int | None = None) -> Console:
    """A console whose output becomes a picture."""
    return Console(
        record=True,
        width=width,
        height=height,
        force_terminal=True,
        color_system="truecolor",
        legacy_windows=False,
        safe_box=False,
        markup=False,
        highlight=False,
        emoji=False,
        file=io.StringIO(),
    )


def png(svg: str) -> bytes:
    """The picture as pixels, drawn with the font that lies here and no other."""
    import resvg_py

    drawn = resvg_py.svg_to_bytes(
        svg_string=svg,
        skip_system_fonts=True,
        font_dirs=[str(FONTS)],
        font_family="Fira Code",
        monospace_family="Fira Code",
    )
    return bytes(drawn)
