"""Untrusted text made safe to print: model names, log lines and metadata come from strangers."""

from __future__ import annotations

import re
import unicodedata

# ECMA-48 sequences, CSI and OSC among them, as a whole: removing only ESC would leave "[31m" behind.
_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"
    r"|\x1b[\]PX^_].*?(?:\x1b\\|\x07|$)"
    r"|\x9b[0-?]*[ -/]*[@-~]"
    r"|\x1b[ -/]*[0-~]?",
    re.DOTALL,
)


def sanitize(text: str, *, keep_newlines: bool = False) -> str:
    """``text`` without escape sequences, control characters and bidirectional overrides.

    What is removed can move the cursor, change colours, write the clipboard (OSC 52) or show a name
    reversed (Unicode TR 36, "bidirectional text spoofing"). Tabs and, unless kept, newlines become spaces.
    """
    if text.isprintable():
        # Most texts: none of the categories below is printable.
        return text
    text = _ESCAPES.sub("", text)
    out: list[str] = []
    for character in text:
        if character == "\n" and keep_newlines:
            out.append(character)
        elif character in "\n\t\r":
            out.append(" ")
        elif unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Co"}:
            out.append(character)
    return "".join(out)


def one_line(text: str) -> str:
    """``text`` sanitized, with every run of white space as one space."""
    return " ".join(sanitize(text).split())
