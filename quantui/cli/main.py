"""The argument parser and the dispatch. Commands are imported when they are run: `--help` stays quick."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

from quantui import __version__
from quantui.domain.errors import ExitCode, QuantuiError

COMMANDS: dict[str, tuple[str, str]] = {
    "doctor": ("quantui.cli.doctor", "show hardware, engines and caches, and what is wrong with each"),
    "engine": ("quantui.cli.engine", "list, make and remove the environments that merge and serve"),
    "inspect": ("quantui.cli.inspect", "show what a model or an adapter is, without loading it"),
}
"""Command name -> (module, one line of help). The module has ``configure(parser)`` and ``run(args) -> int``."""


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code (:class:`ExitCode`)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="quantui", description="quantui")
    parser.add_argument("--version", action="version", version=f"quantui {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, (module, help_line) in COMMANDS.items():
        sub = subparsers.add_parser(name, help=help_line, description=help_line)
        if name in arguments:
            import_module(module).configure(sub)
    args = parser.parse_args(arguments)
    if args.command is None:
        parser.print_help()
        return ExitCode.OK
    try:
        return int(import_module(COMMANDS[args.command][0]).run(args))
    except QuantuiError as error:
        from quantui.cli.output import print_error

        print_error(error, as_json=getattr(args, "json", False))
        return int(error.exit_code)
    except KeyboardInterrupt:
        return int(ExitCode.CANCELLED)
