"""The argument parser and the dispatch. Commands are imported when they run: `--help` stays quick."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING

from quantui import __version__
from quantui.domain.errors import ExitCode, QuantuiError

if TYPE_CHECKING:
    import argparse

COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("quantui.cli.demo", "the whole job on a small model made here: no GPU, no Hub"),
    "init": ("quantui.cli.init", "write a profile for a model and an adapter"),
    "merge": ("quantui.cli.merge", "merge LoRA adapters into their base, with proof"),
    "quantize": ("quantui.cli.quantize", "make a quantized checkpoint, with proof"),
    "recommend": (
        "quantui.cli.recommend",
        "rank the methods for a model on a machine, and say why",
    ),
    "fit": ("quantui.cli.fit", "say what a model takes with one method, and what fits"),
    "methods": ("quantui.cli.methods", "list the methods, what each needs, and where that is from"),
    "inspect": ("quantui.cli.inspect", "show what a checkpoint or an adapter is"),
    "doctor": ("quantui.cli.doctor", "show hardware, engines, caches, and what is wrong with each"),
    "cache": ("quantui.cli.cache", "show what takes the disk, and get it back safely"),
    "engine": ("quantui.cli.engine", "list, make and remove the environments that merge and serve"),
}
"""Name -> (module, one line of help). The module has ``configure(parser)`` and ``run(args) -> int``."""

_DESCRIPTION = """\
From a model and a LoRA adapter to a quantized vLLM server that is proven to
answer, and can be replayed.

  quantui                         the wizard: hardware, model, method, run, chat
  quantui demo                    try it: no GPU, no Hub, a small model made here
  quantui recommend MODEL         which method works here, fits, and is best
  quantui merge BASE ADAPTER      merge a LoRA adapter, with proof
  quantui quantize MODEL --method awq
                                  make a quantized checkpoint, with proof
  quantui init MODEL --adapter A  write prod.toml
  quantui --profile prod.toml     prepare, serve and check what it describes
  quantui cache ls                what takes the disk; rm and prune get it back
"""

_EPILOG = """\
exit codes:
  0    ok; also a server that was stopped after it had been ready
  1    a defect of quantui
  2    bad profile or arguments, or files that are not what they claim to be
  3    does not fit, or is not supported here (memory, disk, port, method)
  4    an engine is missing, could not be made, or failed
  5    model or adapter not found, or not permitted
  6    made, but did not pass its check
  130  cancelled
"""


def build_parser(arguments: list[str]) -> argparse.ArgumentParser:
    """The parser; only the command that ``arguments`` name is imported and configured."""
    import argparse

    parser = argparse.ArgumentParser(
        prog="quantui",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"quantui {__version__}")
    wizard = parser.add_argument_group("the wizard (quantui alone, in a terminal)")
    wizard.add_argument(
        "--hardware",
        metavar="FILE",
        dest="wizard_hardware",
        help="try it on another machine, as `quantui doctor --json` describes it",
    )
    replay = parser.add_argument_group("replaying a profile")
    replay.add_argument("--profile", metavar="FILE", help="prepare, serve until stopped, check")
    mode = replay.add_mutually_exclusive_group()
    mode.add_argument("--check", action="store_true", help="say what would happen and what differs")
    mode.add_argument("--dry-run", action="store_true", help="print the exact commands")
    mode.add_argument(
        "--prepare-only", action="store_true", help="download, merge, quantize, do not serve"
    )
    mode.add_argument(
        "--check-only", action="store_true", help="serve, check, stop: for a test in CI"
    )
    replay.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        dest="assignments",
        help="change an option for this time, e.g. --set serve.port=8001",
    )
    replay.add_argument("--force", action="store_true", help="go on where it does not seem to fit")
    replay.add_argument("--yes", "-y", action="store_true", help="install a missing engine unasked")
    replay.add_argument("--json", action="store_true", help="events as JSON lines on stdout")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for name, (module, line) in COMMANDS.items():
        sub = subparsers.add_parser(name, help=line, description=line[0].upper() + line[1:] + ".")
        if name in arguments:
            import_module(module).configure(sub)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code (:class:`ExitCode`)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments and _on_a_terminal():
        # A parser takes a tenth of the time to the wizard's first frame, and there is nothing to parse.
        return _run("quantui.cli.wizard", None, as_json=False)
    parser = build_parser(arguments)
    args = parser.parse_args(arguments)
    if args.command is None and args.profile is None:
        if args.wizard_hardware is None and arguments:
            parser.error("these options belong to --profile FILE")
        if not _on_a_terminal():
            if args.wizard_hardware is not None:
                parser.error("--hardware FILE opens the wizard, which needs a terminal")
            parser.print_help()
            return ExitCode.OK
    if args.wizard_hardware is not None and (args.command or args.profile is not None):
        parser.error("--hardware FILE before a command opens the wizard; give it after the command")
    if args.command and args.profile is not None:
        parser.error(f"--profile is a command of its own; {args.command} does not go with it")
    module = COMMANDS[args.command][0] if args.command else "quantui.cli.replay"
    if args.command is None and args.profile is None:
        module = "quantui.cli.wizard"
    return _run(module, args, as_json=getattr(args, "json", False))


def _on_a_terminal() -> bool:
    """Whether the wizard could be shown. Textual draws on standard error: all three have to be the terminal."""
    return all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr))


def _run(module: str, args: argparse.Namespace | None, *, as_json: bool) -> int:
    """Run a command's module; what it raises becomes words and an exit code."""
    try:
        return int(import_module(module).run(args))
    except QuantuiError as error:
        from quantui.cli.output import print_error

        print_error(error, as_json=as_json)
        return int(error.exit_code)
    except KeyboardInterrupt:
        return int(ExitCode.CANCELLED)
    except BrokenPipeError:
        # The reader of our output is gone, as in `quantui ... | head`.
        sys.stderr.close()
        return int(ExitCode.CANCELLED)
    except Exception as error:  # noqa: BLE001 - the last net: a person never sees a traceback
        return _report_defect(error, as_json=as_json)


def _report_defect(error: Exception, *, as_json: bool) -> int:
    """Say that quantui itself is at fault, and keep the traceback where a report can take it from."""
    from quantui.cli.output import print_error
    from quantui.runtime.defects import defect

    print_error(defect(error), as_json=as_json)
    return int(ExitCode.BUG)
