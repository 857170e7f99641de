"""Start vLLM, follow its load, and keep it until it is to stop."""

from __future__ import annotations

import errno
import http.client
import os
import select
import socket
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from quantui.domain.diagnose import diagnose
from quantui.domain.errors import ExitCode, QuantuiError
from quantui.domain.events import LogLine, RunEvent, ServerReady, StepPhase, StepProgress
from quantui.domain.load_log import figures_of, parse_line, phase_of, shards_of
from quantui.runtime.log_tail import LogTail
from quantui.runtime.process import VLLM_STOP, KeptProcess, start_failure
from quantui.runtime.worker_run import cancelled

if TYPE_CHECKING:
    from collections.abc import Generator

    from quantui.domain.plan import ServeStep
    from quantui.runtime.run_context import RunContext

_TICK_S = 0.1
_HEALTH_EVERY_S = 0.25
_HEALTH_UNANNOUNCED_S = 2.0
"""How often /health is asked before the log says that the server opens: it may be told to log less."""
_STOP_S = 14.0
"""Past VLLM_STOP's last signal; then the keeper itself is killed, and what carries its mark."""
_OPENING = ("Starting vLLM server on", "Application startup complete")


@dataclass
class Server:
    """A vLLM that was started, and what its log told."""

    step: ServeStep
    process: KeptProcess
    tail: LogTail
    started: float
    lines: list[str] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    load_seconds: float | None = None

    @property
    def url(self) -> str:
        """Where to reach it from this machine."""
        host = self.step.host
        if host in {"0.0.0.0", "::"}:
            host = "127.0.0.1" if host == "0.0.0.0" else "::1"
        return f"http://{f'[{host}]' if ':' in host else host}:{self.step.port}"


def free_port(host: str) -> int:
    """A TCP port nobody listens on at this moment; raises as :func:`check_port`."""
    return _bind(host, 0)


def check_port(host: str, port: int) -> None:
    """Raise ``serve.port-in-use`` (exit code 3) or ``serve.bad-host`` (2) when it cannot be bound."""
    _bind(host, port)


def _bind(host: str, port: int) -> int:
    """Bind a port and let it go again; gives its number."""
    try:
        with socket.create_server((host, port), family=_family(host)) as listener:
            bound: int = listener.getsockname()[1]
            return bound
    except PermissionError as error:
        raise QuantuiError(
            "serve.port-forbidden",
            f"Port {port} may not be used.",
            f"{error.strerror}: ports below 1024 are the system's.",
            "Choose another: --set serve.port=8000",
            ExitCode.DOES_NOT_FIT,
        ) from None
    except (socket.gaierror, UnicodeError) as error:
        raise QuantuiError(
            "serve.bad-host",
            f"serve.host {host!r} is not an address.",
            str(error),
            "Use 127.0.0.1.",
        ) from None
    except OSError as error:
        in_use = error.errno == errno.EADDRINUSE
        raise QuantuiError(
            "serve.port-in-use" if in_use else "serve.bad-host",
            f"Port {port} of {host} is in use." if in_use else f"{host}:{port} cannot be bound.",
            "Another program listens there." if in_use else str(error),
            "Stop it, or choose another port: --set serve.port=0 takes a free one."
            if in_use
            else "Use an address of this machine in serve.host.",
            ExitCode.DOES_NOT_FIT if in_use else ExitCode.BAD_INPUT,
        ) from None


def check_can_serve(step: ServeStep) -> None:
    """Raise for what would keep the server from starting whatever the model: its port, its key."""
    check_port(step.host, step.port)
    if step.api_key_env:
        api_key(step)


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def start_server(
    context: RunContext, step: ServeStep, *, unmerged: bool, figures: dict[str, float] | None = None
) -> Generator[RunEvent, None, Server]:
    """Start vLLM and yield its load until ``/health`` answers; gives the running server.

    ``figures`` gets what the log tells, also of a server that does not come up. Raises the diagnosed failure
    (``serve.*``), or ``run.cancelled``; no process is left then.
    """
    check_port(step.host, step.port)
    argv = step.lora_argv if unmerged and step.lora_argv else step.argv
    environment = dict(step.env)
    if step.api_key_env:
        # In the environment and not on the command line, which every user of the machine can read.
        environment["VLLM_API_KEY"] = api_key(step)
    log = context.folder.log(step.id)
    process = KeptProcess(
        argv,
        run_id=context.folder.run_id,
        name=step.id,
        log=log,
        env=environment,
        cwd=context.folder.path,
        stop_plan=VLLM_STOP,
    )
    server = Server(step, process, LogTail(log), time.monotonic())
    server.figures = {} if figures is None else figures
    context.before_server()
    context.watch(process)
    try:
        yield from _until_ready(context, server)
    except GeneratorExit:
        # Nothing may be yielded any more.
        process.close()
        raise
    except BaseException:
        yield from stop_server(context, server)
        raise
    return server


def api_key(step: ServeStep) -> str:
    """The key from the variable that the profile names; raises when it is not set."""
    key = os.environ.get(step.api_key_env or "")
    if not key:
        raise QuantuiError(
            "serve.no-api-key",
            f"The environment variable {step.api_key_env} is not set.",
            "serve.api_key_env names it as the place of the API key.",
            f"export {step.api_key_env}=...",
        )
    return key


def _until_ready(context: RunContext, server: Server) -> Generator[RunEvent, None, None]:
    step, process = server.step, server.process
    opening, asked = False, server.started
    while True:
        select.select([process.status_fd], [], [], _TICK_S)
        status = process.status()
        for event in read_log(server, final=status.gone):
            opening = opening or (
                isinstance(event, LogLine) and any(text in event.text for text in _OPENING)
            )
            yield event
        yield from context.samples()
        if context.cancelled():
            raise cancelled()
        if failure := start_failure(status, process.argv):
            raise failure
        if status.exit_code is not None or status.gone:
            # Also with exit status 0: nobody asked it to end.
            process.close()
            yield from read_log(server, final=True)
            log = str(context.folder.log(step.id))
            raise diagnose(server.lines, exit_code=status.exit_code, log=log)
        now = time.monotonic()
        if now - asked >= (_HEALTH_EVERY_S if opening else _HEALTH_UNANNOUNCED_S):
            asked = now
            if healthy(server):
                break
        if now - server.started > step.timeout_s:
            raise QuantuiError(
                "serve.timeout",
                f"The server was not ready after {step.timeout_s:.0f} s.",
                "It may still be compiling or reading weights from a slow disk.",
                "Raise serve.startup_timeout_s.",
                ExitCode.ENGINE,
                (f"log: {context.folder.log(step.id)}",),
            )
    server.load_seconds = now - server.started
    yield ServerReady(
        at=time.time(),
        url=f"{server.url}/v1",
        model=step.served_name,
        pid=process.status().pid or 0,
        seconds=server.load_seconds,
    )


def read_log(server: Server, *, final: bool = False) -> Generator[RunEvent, None, None]:
    """New log lines as events, with the phases, shard progress and figures they tell."""
    step = server.step.id
    for line in server.tail.lines(final=final):
        at = time.time()
        server.lines.append(line)
        yield LogLine(at=at, step=step, text=line)
        message = parse_line(line).message
        if phase := phase_of(message):
            yield StepPhase(at=at, step=step, phase=phase.title)
        if shards := shards_of(message):
            yield StepProgress(
                at=at, step=step, done=shards.done, total=shards.total, unit="shards"
            )
        for figure in figures_of(message):
            server.figures[figure.name] = figure.among(server.figures.get(figure.name))


def healthy(server: Server) -> bool:
    """Whether ``/health`` answers 200."""
    host = server.url.removeprefix("http://").rpartition(":")[0].strip("[]")
    connection = http.client.HTTPConnection(host, server.step.port, timeout=2)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def hold(context: RunContext, server: Server) -> Generator[RunEvent, None, None]:
    """Keep serving until the run is cancelled; a server that ends by itself is an error."""
    while not context.cancelled():
        select.select([server.process.status_fd], [], [], _TICK_S)
        yield from read_log(server)
        del server.lines[:-500]
        yield from context.samples()
        status = server.process.status()
        if status.exit_code is not None or status.gone:
            yield from read_log(server, final=True)
            log = str(context.folder.log(server.step.id))
            error = diagnose(server.lines, exit_code=status.exit_code, log=log)
            error.what = f"The server ended while it served. {error.what}"
            raise error


def stop_server(context: RunContext, server: Server) -> Generator[RunEvent, None, None]:
    """Stop vLLM and wait until none of its processes is left; also when the iterator is closed meanwhile."""
    server.process.request_stop()
    deadline = time.monotonic() + _STOP_S
    try:
        while not server.process.status().gone and time.monotonic() < deadline:
            select.select([server.process.status_fd], [], [], _TICK_S)
            yield from read_log(server)
            yield from context.samples()
    finally:
        server.process.close(timeout=max(1.0, deadline - time.monotonic()))
        context.unwatch(server.process)
    yield from read_log(server, final=True)
