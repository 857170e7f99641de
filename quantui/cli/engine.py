"""``quantui engine``: list, make and remove the environments that merge, quantize and serve."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from quantui.cli.output import console, print_json
from quantui.domain.errors import ExitCode, QuantuiError
from quantui.domain.formatting import format_bytes
from quantui.domain.terminal_text import sanitize

if TYPE_CHECKING:
    import argparse
    import threading
    from collections.abc import Sequence

    from rich.progress import Progress

    from quantui.domain.draft import Draft
    from quantui.engines.specs import EngineSpec
    from quantui.runtime.engine_needs import EngineNeed
    from quantui.runtime.engines import Engine, EngineStatus

_PHASES = {
    "environment": "making the environment",
    "resolve": "resolving packages",
    "download": "downloading",
    "unpack": "putting packages in place",
    "installed": "packages installed",
    "check": "importing everything once, to check it",
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands' arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("ls", help="the engines for this machine, and their state")
    listing.add_argument("--all", action="store_true", help="those for other machines as well")
    install = actions.add_parser("install", help="make an engine's environment from its lock")
    remove = actions.add_parser("rm", help="delete an environment quantui made")
    for sub in (install, remove):
        sub.add_argument(
            "name", metavar="NAME", help="an engine, or a family: of `quantui engine ls`"
        )
        sub.add_argument("--yes", "-y", action="store_true", help="do not ask")
    install.add_argument("--force", action="store_true", help="make it anew though it is there")
    for sub in (listing, install, remove):
        sub.add_argument("--json", action="store_true", help="print JSON on stdout")


def run(args: argparse.Namespace) -> int:
    """Run ``ls``, ``install`` or ``rm``; gives the exit code."""
    return {"ls": _ls, "install": _install, "rm": _remove}[args.action](args)


def _ls(args: argparse.Namespace) -> int:
    from quantui.runtime.engine_advice import for_this_machine
    from quantui.runtime.engines import list_engines
    from quantui.runtime.probe import probe_hardware

    engines = list_engines()
    if args.json:
        print_json([engine.to_dict() for engine in engines])
        return ExitCode.OK
    shown = engines if args.all else for_this_machine(engines, probe_hardware())
    out = console()
    for engine in shown:
        _print_engine(engine)
    if len(shown) < len(engines):
        rest = [engine.spec.name for engine in engines if engine not in shown]
        out.print(f"For other machines (--all shows them): {', '.join(rest)}")
    return ExitCode.OK


def _print_engine(engine: EngineStatus) -> None:
    """Two lines of one that is absent, a few more of one that is there."""
    spec, out = engine.spec, console()
    out.print(f"{spec.name}  {engine.state}  {spec.title}")
    out.print(f"    to        {', '.join(task.replace('-', ' ', 1) for task in spec.provides)}")
    if engine.state == "absent":
        out.print(
            f"    takes     {format_bytes(spec.download_bytes)} to download, "
            f"{format_bytes(spec.disk_bytes)} on disk ({spec.disk_source.partition(':')[0]})"
        )
    else:
        out.print(f"    path      {sanitize(engine.path)}")
        out.print(f"    on disk   {_size(engine)}")
    if engine.versions:
        versions = ", ".join(f"{name} {version}" for name, version in engine.versions.items())
        out.print(f"    versions  {sanitize(versions)}")
    if engine.problem:
        out.print(f"    note      {sanitize(engine.problem)}")


def _engine_name(name: str) -> str:
    from quantui.engines.choice import family_member
    from quantui.runtime.probe import probe_hardware

    return family_member(name, probe_hardware())


def _size(engine: EngineStatus) -> str:
    if not engine.shared_bytes:
        return format_bytes(engine.bytes_on_disk)
    return f"{format_bytes(engine.bytes_on_disk)}, of which {format_bytes(engine.shared_bytes)} shared with uv's cache"


def ensure_engine(
    draft: Draft, *, cancel: threading.Event, yes: bool, purpose: str = "serve"
) -> None:
    """Make the engine ``draft`` asks for when there is none for ``purpose``, once the user has agreed.

    ``purpose`` is a key of a spec's ``provides``; for ``quantize-PRODUCER`` it is that producer's engine, or
    ``quantization.python``. Raises what :func:`ensure_engines` does.
    """
    from quantui.engines.choice import default_engine_name, producer_engine_name
    from quantui.runtime.engine_needs import EngineNeed
    from quantui.runtime.probe import probe_hardware

    name, python = draft.engine.name, draft.engine.python
    if purpose.startswith("quantize-"):
        name = producer_engine_name(purpose.removeprefix("quantize-"), probe_hardware())
        python = draft.quantization.python
    elif name == "auto":
        name = default_engine_name(probe_hardware())
    ensure_engines((EngineNeed(name, purpose, python),), cancel=cancel, yes=yes)


def ensure_engines(needs: Sequence[EngineNeed], *, cancel: threading.Event, yes: bool) -> None:
    """Make those of ``needs`` that are not there, once the user has agreed to the sum of them.

    Returns at once when all are there. Raises what :func:`find_engine` raises for an interpreter that is named,
    its ``engine.not-installed`` when there is nobody to ask and ``yes`` is not given, and what an install raises.
    """
    from quantui.engines.specs import engine_spec
    from quantui.runtime.engines import engine_status

    absent: dict[str, QuantuiError] = {}
    for need in needs:
        try:
            need.find()
        except QuantuiError as error:
            if error.code != "engine.not-installed":
                raise
            absent[need.name] = error
    if not absent:
        return
    specs = [engine_spec(name) for name in absent]
    if not (yes or sys.stdin.isatty()):
        raise _not_installed(specs, next(iter(absent.values())))
    for spec in specs:
        _announce(spec, engine_status(spec))
    if len(specs) > 1:
        total, disk = (
            format_bytes(sum(sizes))
            for sizes in zip(*((one.download_bytes, one.disk_bytes) for one in specs), strict=True)
        )
        console(stderr=True).print(
            f"together: about {total} to download at most, about {disk} on disk"
        )
    _agree(f"Install {' and '.join(absent)}?", yes=yes)
    for name in absent:
        _make(name, cancel)


def _not_installed(specs: Sequence[EngineSpec], first: QuantuiError) -> QuantuiError:
    """``first`` where one engine is absent, else one error for all of them."""
    if len(specs) == 1:
        return first
    names = [spec.name for spec in specs]
    download, disk = sum(one.download_bytes for one in specs), sum(one.disk_bytes for one in specs)
    return QuantuiError(
        first.code,
        f"The engines {' and '.join(names)} are not installed.",
        f"They would download about {download / 1e9:.1f} GB and take {disk / 1e9:.1f} GB on disk.",
        " && ".join(f"quantui engine install {name}" for name in names) + ", or --yes here.",
        first.exit_code,
    )


def _install(args: argparse.Namespace) -> int:
    from quantui.engines.specs import engine_spec
    from quantui.headless import cancel_on_signals
    from quantui.runtime.engines import engine_status

    spec = engine_spec(_engine_name(args.name))
    status = engine_status(spec)
    if status.state != "installed" or args.force:
        _announce(spec, status)
        _agree(f"Install {spec.name}?", yes=args.yes)
    with cancel_on_signals() as cancel:
        engine = _make(spec.name, cancel, force=args.force)
    if args.json:
        print_json(
            {
                "name": engine.name,
                "python": engine.python,
                "versions": engine.versions,
                "plugins": list(engine.plugins),
            }
        )
    return ExitCode.OK


def _make(name: str, cancel: threading.Event, *, force: bool = False) -> Engine:
    """Install with progress on stderr, and tell what was made."""
    from quantui.runtime.engines import install_engine

    with _progress() as progress:
        engine = install_engine(name, on_event=_Show(progress), cancel=cancel, force=force)
    versions = ", ".join(f"{package} {version}" for package, version in engine.versions.items())
    out = console(stderr=True)
    out.print(sanitize(f"{engine.name} is ready: {versions}"))
    out.print(sanitize(engine.python), soft_wrap=True)
    return engine


def _announce(spec: EngineSpec, status: EngineStatus) -> None:
    from quantui.engines.choice import machine_problems
    from quantui.runtime.probe import probe_hardware

    out = console(stderr=True)
    out.print(f"{spec.name}: {spec.title}")
    out.print(
        f"  download  about {format_bytes(spec.download_bytes)} at most; what uv's cache holds is not "
        "fetched again"
    )
    out.print(f"            ({spec.download_source})", style="dim")
    out.print(f"  on disk   about {format_bytes(spec.disk_bytes)} ({spec.disk_source})")
    out.print(f"  where to  {sanitize(status.path)}")
    if status.problem:
        out.print(f"  now       {sanitize(status.problem)}")
    for problem in machine_problems(spec, probe_hardware()):
        out.print(f"  warning   {sanitize(problem)}", style="yellow")
    for warning in spec.warnings:
        out.print(f"  warning   {warning.text}", style="yellow")


def _agree(question: str, *, yes: bool) -> None:
    """Return when the user says yes; raise when there is nobody to ask, or the answer is no."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise QuantuiError(
            "cli.needs-yes",
            f"{question} Nobody can answer: this is not a terminal.",
            "Installing and removing are not done without a yes.",
            "Give --yes.",
            ExitCode.BAD_INPUT,
        )
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise QuantuiError("cli.declined", "Nothing was done.", exit_code=ExitCode.CANCELLED)


def _remove(args: argparse.Namespace) -> int:
    from quantui.engines.specs import engine_spec
    from quantui.runtime.engines import engine_status, remove_engine

    status = engine_status(engine_spec(_engine_name(args.name)))
    if status.state != "absent":
        console(stderr=True).print(f"{sanitize(status.path)}: {_size(status)}", soft_wrap=True)
        _agree(f"Delete {status.spec.name}?", yes=args.yes)
    removed = remove_engine(status.spec.name)
    if args.json:
        print_json({"name": status.spec.name, "removed_bytes": removed})
    else:
        console(stderr=True).print(f"Removed {status.spec.name}, {format_bytes(removed)}.")
    return ExitCode.OK


def _progress() -> Progress:
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
        console=console(stderr=True),
        transient=True,
    )


class _Show:
    """Install events as one line with a spinner; without a terminal, a line for each phase."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.task = progress.add_task("starting")
        self.phase = ""

    def __call__(self, event: dict[str, Any]) -> None:
        """Show one event."""
        if event["type"] == "phase":
            self.phase = _PHASES.get(event["name"], event["name"])
            self.progress.update(self.task, description=self.phase)
            if not self.progress.console.is_terminal:
                self.progress.console.print(self.phase)
        elif event["type"] == "notice":
            self.progress.console.print(sanitize(event["text"]))
        elif event["type"] == "progress" and event["unit"] == "bytes":
            text = (
                f"{self.phase}: {format_bytes(event['done'])} of {format_bytes(event['total'])}, "
                f"{sanitize(event['message'])}"
            )
            self.progress.update(self.task, description=text)
        elif event["type"] == "progress":
            self.progress.update(
                self.task, description=f"{self.phase}: {event['done']} packages {event['message']}"
            )
