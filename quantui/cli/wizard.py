"""``quantui`` alone, in a terminal: the wizard."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse


def run(args: argparse.Namespace | None) -> int:
    """Open the wizard; gives its exit code. None: nothing was asked for but the wizard."""
    from quantui.tui.launch import launch

    return launch(None if args is None else args.wizard_hardware)
