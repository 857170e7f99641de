"""The `quantui` command."""

from quantui.cli.main import main

__all__ = ["main"]
