"""Ask an engine's own vLLM what it can do, once: the answer is kept until the engine changes.

Asking costs 20 to 30 s, nearly all of it imports; reading the kept answer costs 0.1 s, spent on
finding out whether the engine is still the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import select
import shutil
import tempfile
import time
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantui import __version__
from quantui.domain.errors import ExitCode, QuantuiError
from quantui.engines.capabilities import Capabilities
from quantui.runtime.engine_site import look
from quantui.runtime.paths import cache_dir
from quantui.runtime.process import KeptProcess, start_failure

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from quantui.runtime.engines import Engine

TIMEOUT_S = 600.0
"""Twenty times what it takes here: a first import from a network file system is slow."""

# What these hold changes vLLM's answer without changing a package.
_ENVIRONMENT = ("VLLM_PLUGINS", "VLLM_TARGET_DEVICE", "CUDA_VISIBLE_DEVICES", "PYTHONPATH")


def engine_capabilities(
    engine: Engine,
    *,
    cancel: threading.Event | None = None,
    on_event: Callable[[dict[str, Any]], None] | None = None,
    timeout: float = TIMEOUT_S,
    refresh: bool = False,
) -> Capabilities:
    """What the vLLM of ``engine`` can do, from the cache unless the engine changed or ``refresh``.

    ``on_event`` gets the worker's ``phase`` events. Raises ``engine.lacks-vllm``,
    ``engine.probe-failed``, ``engine.probe-timeout``, ``engine.cancelled``, and what the worker
    itself reports.
    """
    key = cache_key(engine)
    kept = _place(key)
    known = None if refresh else _kept(key)
    if known is not None:
        return known
    capabilities = Capabilities.from_dict(_ask(engine, key, cancel, on_event, timeout))
    # The cache only saves time: that it cannot be written stops nobody.
    with contextlib.suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        partial = kept.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps(capabilities.to_dict()), encoding="utf-8")
        partial.replace(kept)
    return capabilities


def kept_capabilities(engine: Engine) -> Capabilities | None:
    """What ``engine`` answered before, if it is still the same; nothing is started but a look at it (0.1 s)."""
    with contextlib.suppress(QuantuiError):
        return _kept(cache_key(engine))
    return None


def cache_key(engine: Engine) -> str:
    """A hash of all the answer depends on; raises ``engine.lacks-vllm``."""
    site = look(engine.python, ("vllm",))
    if site.missing:
        raise QuantuiError(
            "engine.lacks-vllm",
            f"The interpreter {engine.python} lacks vllm.",
            f"It is Python {site.python} at {site.prefix}.",
            "Name an interpreter that has vLLM, or let quantui make one: quantui engine install",
            ExitCode.ENGINE,
        )
    with resources.as_file(_worker()) as worker:
        program = worker.read_bytes()
    parts = [
        __version__,
        hashlib.sha256(program).hexdigest(),
        site.interpreter,
        site.python,
        json.dumps(site.packages, sort_keys=True),
        *site.plugins,
        *(f"{name}={os.environ.get(name)}" for name in _ENVIRONMENT),
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _place(key: str) -> Path:
    return cache_dir() / "capabilities" / f"{key}.json"


def _kept(key: str) -> Capabilities | None:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return Capabilities.from_dict(json.loads(_place(key).read_text(encoding="utf-8")))
    return None


def _worker() -> Any:  # noqa: ANN401 - a Traversable, whose as_file form is a path
    return resources.files("quantui") / "engines" / "workers" / "probe_vllm.py"


def _ask(
    engine: Engine,
    key: str,
    cancel: threading.Event | None,
    on_event: Callable[[dict[str, Any]], None] | None,
    timeout: float,
) -> dict[str, Any]:
    """Run the probe to its end and give its result event."""
    folder = Path(tempfile.mkdtemp(prefix="quantui-probe-"))
    try:
        job, log = folder / "job.json", folder / "log"
        job.write_text("{}", encoding="utf-8")
        with resources.as_file(_worker()) as worker:
            process = KeptProcess(
                [engine.python, str(worker), str(job)],
                run_id=f"probe-{key[:8]}-{os.getpid()}",
                name="probe",
                log=log,
                # An answer about this machine needs no telemetry and no look at the Hub.
                env={"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"},
                cwd=folder,
                events=True,
            )
            try:
                last = _listen(process, cancel, on_event, timeout)
            finally:
                status = process.close()
        problem = start_failure(status, process.argv)
        if problem:
            raise problem
        # A crash is worth the end of the log, which goes with the folder; the rest says what to do.
        if last.get("type") == "error" and last.get("code") != "worker.crashed":
            raise QuantuiError.from_dict(last)
        if last.get("type") != "result":
            raise _failed(engine, status.exit_code, log)
        return {name: value for name, value in last.items() if name != "type"}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _listen(
    process: KeptProcess,
    cancel: threading.Event | None,
    on_event: Callable[[dict[str, Any]], None] | None,
    timeout: float,
) -> dict[str, Any]:
    """Read events until the process is gone; gives the last one. Raises on cancel and timeout."""
    deadline = time.monotonic() + timeout
    buffer, last = b"", {}
    descriptor = process.events_fd
    assert descriptor is not None
    while True:
        gone = process.status().gone
        if cancel is not None and cancel.is_set():
            raise QuantuiError(
                "engine.cancelled", "Asking the engine was cancelled.", exit_code=ExitCode.CANCELLED
            )
        if time.monotonic() > deadline:
            raise QuantuiError(
                "engine.probe-timeout",
                f"The engine did not tell what it can do within {timeout:.0f} s.",
                "Importing vLLM takes 20 to 30 s on a local disk.",
                "Try again; the first import is the slowest. If it stays so, move the engine to a "
                "local disk.",
                ExitCode.ENGINE,
            )
        if not gone:
            select.select([descriptor], [], [], 0.1)
        ended = False
        with contextlib.suppress(BlockingIOError):
            while data := os.read(descriptor, 1 << 16):
                buffer += data
            ended = True
        *lines, buffer = buffer.split(b"\n")
        for line in lines:
            last = json.loads(line)
            if on_event is not None and last.get("type") != "result":
                on_event(last)
        if gone:
            return last
        if ended:
            time.sleep(0.05)


def _failed(engine: Engine, exit_code: int | None, log: Path) -> QuantuiError:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return QuantuiError(
        "engine.probe-failed",
        f"The vLLM of {engine.python} could not be asked what it can do.",
        lines[-1][:300] if lines else f"It ended with status {exit_code} and said nothing.",
        "Check that it imports: run that interpreter with -c 'import vllm'.",
        ExitCode.ENGINE,
        tuple(line[:300] for line in lines[-4:-1]),
    )
