"""``quantui`` alone, in a terminal: the wizard."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse


def run(args: argparse.Namespace) -> int:
    """Open the wizard; gives its exit code."""
    from quantui.tui.launch import launch

    return launch(args.wizard_hardware)
