"""Versions as numbers that compare, from the text that people and packages write."""

from __future__ import annotations

import re

CURRENT_VLLM = "0.32"
"""The vLLM that the catalogue and the rules of memory describe, and that an unknown version is taken for."""
_NUMBERS = re.compile(r"\s*v?(\d{1,9}(?:\.\d{1,9})*)", re.ASCII)


def leading_numbers(text: str | None) -> tuple[int, ...]:
    """The numbers a version begins with: ``(0, 28, 1)`` of ``v0.28.1rc2.dev3``; empty when there are none."""
    found = _NUMBERS.match(text or "")
    return tuple(map(int, found[1].split("."))) if found else ()


def version_numbers(text: str | None) -> tuple[int, ...]:
    """As :func:`leading_numbers`, of vLLM's version; one that says nothing counts as the current one."""
    numbers = leading_numbers(text)
    return numbers if len(numbers) > 1 else leading_numbers(CURRENT_VLLM)
