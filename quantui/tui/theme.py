"""Colours: quantui's own dark and light themes; Textual's are there too."""

from __future__ import annotations

from textual.theme import Theme

THEMES = (
    Theme(
        name="quantui-dark",
        primary="#7aa2f7",
        secondary="#bb9af7",
        accent="#7dcfff",
        warning="#e0af68",
        error="#f7768e",
        success="#9ece6a",
        foreground="#c0caf5",
        background="#16161e",
        surface="#1a1b26",
        panel="#24283b",
        dark=True,
        variables={
            "text-muted": "#8a93bf",
            "scrollbar": "#3b4261",
            "scrollbar-hover": "#545c7e",
            "scrollbar-background": "#1f2030",
        },
    ),
    Theme(
        name="quantui-light",
        primary="#2e5aac",
        secondary="#7847bd",
        accent="#0f6f8c",
        warning="#8c6c00",
        error="#b3202d",
        success="#3f6b1f",
        foreground="#22252e",
        background="#fafafa",
        surface="#ffffff",
        panel="#e8eaf0",
        dark=False,
        variables={
            "text-muted": "#5c6370",
            "scrollbar": "#b4bac8",
            "scrollbar-hover": "#8d95a8",
            "scrollbar-background": "#eef0f4",
        },
    ),
)
