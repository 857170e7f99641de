"""Text from strangers is printed without anything that steers a terminal; errors keep their whole story."""

from __future__ import annotations

import pytest

from quantui.domain.errors import ExitCode, QuantuiError
from quantui.domain.formatting import format_bytes, format_seconds
from quantui.domain.terminal_text import sanitize


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("owner/Qwen2.5-7B", "owner/Qwen2.5-7B"),
        ("ünï 模型 \U0001f600", "ünï 模型 \U0001f600"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x9b31mred", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b]52;c;ZXZpbA==\x07", ""),
        ("\x1bPq#0;2\x1b\\x", "x"),
        ("\x1b]0;never closed", ""),
        ("\x1b(0lines", "lines"),
        ("\x1bc reset", " reset"),
        ("lone \x1b", "lone "),
        ("a\rb\tc\nd", "a b c d"),
        ("bell\x07 del\x7f nul\0", "bell del nul"),
        ("abc\u202edcba\u2066x\u200b", "abcdcbax"),
        ("\udcff\ue000", ""),
        ("[bold]markup[/bold]", "[bold]markup[/bold]"),
    ],
    ids=ascii,
)
def test_what_steers_a_terminal_is_taken_out(text, clean):
    assert sanitize(text) == clean


@pytest.mark.parametrize("code", [*range(0x20), *range(0x7F, 0xA0)])
def test_no_control_character_is_left(code):
    out = sanitize(f"a{chr(code)}b")
    assert all(character.isprintable() for character in out)


def test_newlines_can_be_kept():
    assert sanitize("a\n\x1b[1mb\r\n", keep_newlines=True) == "a\nb \n"


def test_cleaning_twice_changes_nothing_more():
    text = "\x1b\x1b[31m[31mx\x1b]0;\x1b[1mt\x07y"
    assert sanitize(sanitize(text)) == sanitize(text)


ERROR = QuantuiError("a.b", "What.", "Why.", "Fix.", ExitCode.NOT_FOUND, ("one", "two"))


def test_an_error_comes_back_from_its_dict():
    assert QuantuiError.from_dict(ERROR.to_dict()) == ERROR


@pytest.mark.parametrize("code", [77, "many", None, "", -1])
def test_an_exit_code_nobody_knows_is_the_engines(code):
    assert (
        QuantuiError.from_dict({**ERROR.to_dict(), "exit_code": code}).exit_code == ExitCode.ENGINE
    )


def test_an_error_without_anything_is_still_one():
    assert QuantuiError.from_dict({}) == QuantuiError("unknown", "", exit_code=ExitCode.ENGINE)


def test_an_error_says_what_why_and_the_fix():
    assert str(ERROR) == "What.\nWhy: Why.\nFix: Fix."
    assert str(QuantuiError("a.b", "What.")) == "What."


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, "unknown"), (0, "0.0 MiB"), (2**20, "1.0 MiB"), (2**30, "1.00 GiB"), (1.5 * 2**40, "1536.00 GiB")],
)  # fmt: skip
def test_bytes_are_shown_in_binary_units(count, text):
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(4.21, "4.2 s"), (59.94, "59.9 s"), (60, "1 min 00 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")],
)  # fmt: skip
def test_times_are_shown_as_people_say_them(seconds, text):
    assert format_seconds(seconds) == text
