"""Make an environment from a locked spec: beside its place, proven, then renamed whole.

uv and the check run under a keeper, so that neither a cancel nor the death of quantui leaves a
process.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantui import __version__
from quantui.domain.errors import ExitCode, QuantuiError
from quantui.domain.versions import leading_numbers
from quantui.runtime import engine_store as store
from quantui.runtime.caches.room import told_what_could_go
from quantui.runtime.engine_build import check_build
from quantui.runtime.engine_site import Site, look
from quantui.runtime.paths import engines_dir
from quantui.runtime.process import KeptProcess, reap_abandoned, start_failure
from quantui.runtime.uv import failure, find_links, local_wheel, uv_binary, uv_environment

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping, Sequence

    from quantui.engines.specs import EngineSpec

    OnEvent = Callable[[dict[str, Any]], None]

_UNITS = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
_ANNOUNCED = re.compile(r"^\s*Downloading (\S+) \(([\d.]+)(B|KiB|MiB|GiB)\)")
_ARRIVED = re.compile(r"^\s*(?:Downloaded|Built) (\S+)")
_COUNTED = re.compile(r"^\s*(Resolved|Prepared|Installed) (\d+) packages?")
_PHASES = {"Resolved": "download", "Prepared": "unpack", "Installed": "installed"}
_CHECK_TIMEOUT_S = 900.0
"""The first import compiles every module: 20 s here on 2 cores, longer on a network file system."""


def make_environment(
    spec: EngineSpec, *, on_event: OnEvent, cancel: threading.Event, force: bool = False
) -> Path:
    """Install ``spec`` and give its folder; an up-to-date one is kept unless ``force``.

    ``on_event`` gets ``phase``, ``progress`` (in ``bytes`` or ``packages``) and ``notice`` events
    as workers send them. Raises ``engine.*`` and ``disk.*`` errors; ``engine.cancelled`` once
    ``cancel`` is set and all is cleared.
    """
    with store.exclusive(spec.name):
        target = store.engine_path(spec.name)
        record = store.read_record(target)
        if (
            record
            and record.lock_hash == spec.lock_hash
            and not force
            and store.engine_python(spec.name).exists()
        ):
            on_event(
                {"type": "notice", "level": "info", "text": f"{spec.name} is already installed."}
            )
            return target
        check_platform(spec)
        run_id = f"engine-{spec.name}-{hashlib.sha256(str(target).encode()).hexdigest()[:8]}"
        reap_abandoned(run_id)
        for leftover in store.partials(spec.name):
            on_event(
                {
                    "type": "notice",
                    "level": "info",
                    "text": f"Removing an unfinished {leftover.name}.",
                }
            )
            store.remove_tree(leftover)
        check_disk(spec)
        if target.exists():
            store.refuse_when_used(spec.name, target)
        partial = target.with_name(f"{spec.name}.partial-{os.getpid()}")
        try:
            Install(spec, partial, run_id, on_event, cancel).run()
            _swap(partial, target)
        except QuantuiError as error:
            if error.code != "disk.full":
                raise
            # What was half made is given back first: it counts as free for the next try.
            store.remove_tree(partial)
            raise told_what_could_go(error, target.parent, spec.disk_bytes) from None
        finally:
            store.remove_tree(partial)
        return target


def check_platform(spec: EngineSpec) -> None:
    """Raise ``engine.platform`` when the system, processor or C library rules ``spec`` out."""
    needs = spec.platform
    system, machine = platform.system(), platform.machine()
    libc, libc_version = platform.libc_ver()
    problem = ""
    if system != needs.system:
        problem = f"It needs {needs.system}; this is {system}."
    elif machine not in needs.machines:
        problem = f"It is locked for {' and '.join(needs.machines)}; this machine is {machine}."
    elif needs.glibc and libc != "glibc":
        problem = (
            f"Its wheels need glibc {needs.glibc}; this system's C library is {libc or 'another'}."
        )
    elif needs.glibc and leading_numbers(libc_version) < leading_numbers(needs.glibc):
        problem = f"Its wheels need glibc {needs.glibc}; this system has {libc_version}."
    if problem:
        raise QuantuiError(
            "engine.platform",
            f"{spec.name} cannot be installed here.",
            problem,
            f"You can {spec.own_interpreter}.",
            ExitCode.DOES_NOT_FIT,
        )


def check_disk(spec: EngineSpec) -> None:
    """Raise ``disk.not-enough`` when the engines' disk has less free than the environment takes."""
    folder = engines_dir()
    free = shutil.disk_usage(folder).free
    if free < spec.disk_bytes:
        error = QuantuiError(
            "disk.not-enough",
            f"{spec.name} takes {spec.disk_bytes / 1e9:.1f} GB on disk; {folder} has "
            f"{free / 1e9:.1f} GB free.",
            f"The size is {spec.disk_source}.",
            "Free space, or put quantui on another disk with QUANTUI_HOME.",
            ExitCode.DOES_NOT_FIT,
        )
        raise told_what_could_go(error, folder, spec.disk_bytes)


def _swap(partial: Path, target: Path) -> None:
    """Put the environment in its place; the one it replaces goes when the new one stands."""
    if not target.exists():
        partial.rename(target)
        return
    old = target.with_name(f"{target.name}.old-{os.getpid()}")
    target.rename(old)
    try:
        partial.rename(target)
    except OSError:
        old.rename(target)
        raise
    store.remove_tree(old)


class Install:
    """One install under way: its steps, its log and its progress."""

    def __init__(
        self,
        spec: EngineSpec,
        partial: Path,
        run_id: str,
        on_event: OnEvent,
        cancel: threading.Event,
    ) -> None:
        self.spec = spec
        self.partial = partial
        self.python = partial / "bin" / "python"
        self.run_id = run_id
        self.on_event = on_event
        self.cancel = cancel
        self.log = engines_dir() / f"{spec.name}.install.log"
        self.log.write_text("", encoding="utf-8")
        self.sizes: dict[str, int] = {}
        self.arrived: set[str] = set()

    def run(self) -> None:
        """All of it, up to the written record."""
        started = time.time()
        self.phase("environment")
        # Relocatable: the scripts find their interpreter beside them, so the rename breaks nothing.
        self.uv(
            *("venv", "--quiet", "--relocatable", "--no-project"),
            *("--python", self.wanted_python(), str(self.partial)),
            doing="making an environment",
        )
        if self.spec.built:
            check_build(self.spec, self.python)
        self.phase("resolve")
        for entries, options in self.batches():
            self.install(entries, options)
        self.phase("check")
        site = self.check()
        size = store.disk_size(self.partial)
        store.write_record(
            self.partial,
            store.EngineRecord(
                spec=self.spec.name,
                lock_hash=self.spec.lock_hash,
                versions=site.versions(),
                plugins=list(site.plugins),
                bytes_on_disk=size.total,
                shared_bytes=size.shared,
                created=started,
                install_seconds=round(time.time() - started, 1),
                quantui_version=__version__,
            ),
        )

    def phase(self, name: str) -> None:
        """Tell that a stage begins."""
        self.on_event({"type": "phase", "name": name})

    def wanted_python(self) -> str:
        """This interpreter when it is of the locked version: nothing is searched or downloaded."""
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        return sys.executable if version == self.spec.python else self.spec.python

    def batches(self) -> list[tuple[tuple[str, ...], list[str]]]:
        """Lock entries to install together, with uv's options for them.

        Packages from PyTorch's own index go apart: --torch-backend would send others there too. Those that
        are built come last, without isolation: their builds use what is installed and fetch nothing.
        """
        sources = {item.name for item in self.spec.built}
        every = self.spec.lock_entries()
        built = tuple(entry for entry in every if entry.partition("==")[0] in sources)
        wheels = self.wheel_batches(tuple(entry for entry in every if entry not in built))
        if not built:
            return wheels
        return [*wheels, (built, ["--no-binary", ":all:", "--no-build-isolation"])]

    def wheel_batches(self, entries: tuple[str, ...]) -> list[tuple[tuple[str, ...], list[str]]]:
        """Those of :meth:`batches` for which nothing is built."""
        only = ["--only-binary", ":all:"]
        torch = self.spec.torch
        if torch is None:
            return [(entries, only)]
        versions = self.spec.locked_versions
        elsewhere = tuple(
            entry
            for entry in entries
            if (name := entry.partition("==")[0].lower()) in torch.packages
            and not local_wheel(
                name, versions[name], self.spec.python, platform.machine(), find_links()
            )
        )
        rest = tuple(entry for entry in entries if entry not in elsewhere)
        batches: list[tuple[tuple[str, ...], list[str]]] = [(rest, only)]
        if elsewhere:
            batches.insert(0, (elsewhere, [*only, f"--torch-backend={torch.backend}"]))
        return batches

    def install(self, entries: Sequence[str], options: Sequence[str]) -> None:
        """Install locked entries and nothing else; hashes are checked."""
        with tempfile.TemporaryDirectory() as folder:
            requirements = Path(folder, "requirements.txt")
            requirements.write_text("\n".join(entries) + "\n", encoding="utf-8")
            self.uv(
                *("pip", "install", "--python", str(self.python), "--no-deps", "--require-hashes"),
                *(*options, "-r", str(requirements)),
                doing="installing packages",
                env={
                    name: value
                    for item in self.spec.built
                    for name, value in item.environment.items()
                },
            )

    def check(self) -> Site:
        """Import what the engine is for, with its own interpreter; raises ``engine.broken``."""
        code = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)"
        status, text = self.watch(
            [str(self.python), "-I", "-c", code, *self.spec.imports], "check", {}, _CHECK_TIMEOUT_S
        )
        site = look(str(self.python), self.spec.imports)
        if status != 0 or site.missing:
            lines = [line.strip() for line in text.splitlines() if line.strip()]
            raise QuantuiError(
                "engine.broken",
                f"The new environment {self.spec.name} does not import what it is for.",
                lines[-1][:300] if lines else f"The check ended with status {status}.",
                f"The whole output is in {self.log}; the environment was removed.",
                ExitCode.ENGINE,
                tuple(line[:300] for line in lines[-4:-1]),
            )
        return site

    def uv(self, *arguments: str, doing: str, env: Mapping[str, str] | None = None) -> None:
        """Run uv, with ``env`` besides its settings; its failures become one error."""
        changes = uv_environment() | dict(env or {})
        removed = [
            part for name, value in changes.items() if value is None for part in ("-u", name)
        ]
        added = {name: value for name, value in changes.items() if value is not None}
        status, text = self.watch(
            ["/usr/bin/env", *removed, uv_binary(), *arguments], "uv", added, None
        )
        if status != 0:
            raise failure(self.spec, text, self.log, doing=f"{doing} for {self.spec.name}")

    def watch(
        self, argv: Sequence[str], name: str, env: dict[str, str], timeout: float | None
    ) -> tuple[int, str]:
        """Run ``argv`` to its end, turning its output into events; (exit status, output)."""
        offset = self.log.stat().st_size
        read = offset
        deadline = None if timeout is None else time.monotonic() + timeout
        process = KeptProcess(
            argv, run_id=self.run_id, name=name, log=self.log, env=env, cwd=engines_dir()
        )
        try:
            while not process.status().gone:
                if self.cancel.is_set():
                    raise cancelled(self.spec.name)
                if deadline is not None and time.monotonic() > deadline:
                    break
                read = self.follow(read)
                time.sleep(0.1)
        finally:
            status = process.close()
        if self.cancel.is_set():
            raise cancelled(self.spec.name)
        problem = start_failure(status, argv)
        if problem:
            raise problem
        self.follow(read, last=True)
        with self.log.open("rb") as file:
            file.seek(offset)
            text = file.read().decode(errors="replace")
        return (-9 if status.exit_code is None else status.exit_code), text

    def follow(self, offset: int, *, last: bool = False) -> int:
        """Turn the log's new whole lines into events; gives the offset after them."""
        with self.log.open("rb") as file:
            file.seek(offset)
            data = file.read()
        end = len(data) if last else data.rfind(b"\n") + 1
        for line in data[:end].decode(errors="replace").splitlines():
            self.line(line)
        return offset + end

    def line(self, line: str) -> None:
        """One line of uv's as an event, if it tells of progress."""
        if match := _ANNOUNCED.match(line):
            self.sizes[match[1]] = int(float(match[2]) * _UNITS[match[3]])
            self.downloaded(f"downloading {match[1]}")
        elif match := _ARRIVED.match(line):
            self.arrived.add(match[1])
            self.downloaded(f"got {match[1]}")
        elif match := _COUNTED.match(line):
            self.on_event({
                "type": "progress", "done": int(match[2]), "total": None, "unit": "packages",
                "message": match[1].lower(),
            })  # fmt: skip
            self.phase(_PHASES[match[1]])

    def downloaded(self, message: str) -> None:
        """Bytes of the files that arrived, of those uv announced (it names only large ones)."""
        done = sum(size for name, size in self.sizes.items() if name in self.arrived)
        total = sum(self.sizes.values())
        self.on_event(
            {"type": "progress", "done": done, "total": total, "unit": "bytes", "message": message}
        )


def cancelled(name: str) -> QuantuiError:
    """The error that a cancelled install ends with."""
    return QuantuiError(
        "engine.cancelled",
        f"The install of {name} was cancelled.",
        "Nothing of it is left; uv's cache keeps what was downloaded.",
        "",
        ExitCode.CANCELLED,
    )
