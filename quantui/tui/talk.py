"""A conversation with the served model, kept as long as the wizard lives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Turn:
    """What ``role`` (user or assistant) said; ``note``: how fast, or what went wrong.

    ``thought``: what a reasoning model thought before it; shown, and not sent again.
    """

    role: str
    text: str
    note: str = ""
    thought: str = ""


@dataclass
class Talk:
    """Turns in order. ``system``: the system prompt, "" for none."""

    turns: list[Turn] = field(default_factory=list)
    system: str = ""

    def messages(self) -> list[dict[str, str]]:
        """What is sent: the system prompt and every turn that says something."""
        first = [{"role": "system", "content": self.system}] if self.system else []
        return [
            *first,
            *({"role": turn.role, "content": turn.text} for turn in self.turns if turn.text),
        ]


def talk_of(places: dict[str, Any], run_id: str) -> Talk:
    """The conversation with the server of a run, kept in ``places``; with another run another one begins."""
    kept = places.get("talk")
    if kept is None or kept[0] != run_id:
        kept = places["talk"] = (run_id, Talk())
    talk: Talk = kept[1]
    return talk


def speed_words(tokens: int | None, seconds: float, first_token_s: float | None) -> str:
    """``42 tokens, 31.5 tokens/s, first after 0.21 s``; decoding alone counts for the rate, as in the run's check."""
    words = ["tokens unknown" if tokens is None else f"{tokens} token{'s' if tokens != 1 else ''}"]
    after = seconds - (first_token_s or 0.0)
    if tokens is not None and tokens > 1 and first_token_s is not None and after > 0:
        words.append(f"{(tokens - 1) / after:.1f} tokens/s")
    if first_token_s is not None:
        words.append(f"first after {first_token_s:.2f} s")
    return ", ".join(words)
