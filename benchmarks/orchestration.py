"""What quantui costs over the same vLLM started by hand, side by side.

    python benchmarks/orchestration.py [PROFILE] [--rounds 3] [--markdown]

By hand: exactly the command of ``quantui --profile PROFILE --dry-run``, /health asked every 50 ms, one prompt,
SIGINT. By quantui: ``--check-only``, which does the same and checks more. They take turns, and every second round
the other goes first. What is made once (download, merge, compiled Python modules) is made before, by a start that is
not counted. Without PROFILE, `quantui demo` makes one.

CPU and memory are sampled from /proc five times a second, in both the same way. *Orchestrator* is quantui, its
keepers, its looks at engines and its check; by hand there is none, so its share is given of what vLLM itself takes.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from quantui.runtime import keeper
from quantui.runtime.profile_file import load_profile
from quantui.runtime.sampler import tree_bytes

TARGET = 0.02
"""quantui may take so much longer than vLLM by hand until it is ready, as a fraction."""

QUANTUI = str(Path(sys.executable).with_name("quantui"))
_TICKS = os.sysconf("SC_CLK_TCK")
_OURS = (b"keeper.py", b"check_endpoint.py")


@dataclass
class Round:
    """One start: seconds since it began, CPU seconds, bytes."""

    ready_s: float = 0.0
    answered_s: float = 0.0
    gone_s: float = 0.0
    before_vllm_s: float = 0.0
    cpu_s: dict[str, float] = field(default_factory=dict)
    peak_bytes: dict[str, int] = field(default_factory=dict)


class Sampler(threading.Thread):
    """CPU time and peak private memory below a process, vLLM's and the orchestrator's apart."""

    def __init__(self, root: int, *, orchestrated: bool) -> None:
        super().__init__(daemon=True)
        self._root = root
        self._orchestrated = orchestrated
        self._over = threading.Event()
        self._cpu: dict[int, tuple[str, float]] = {}
        self.peak: dict[str, int] = {"vLLM": 0, "orchestrator": 0}

    def run(self) -> None:
        """Sample until closed."""
        while not self._over.wait(0.2):
            groups: dict[str, list[int]] = {"vLLM": [], "orchestrator": []}
            for pid in (self._root, *keeper.descendants(self._root)):
                with suppress(OSError, IndexError):
                    stat = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
                    owner = self._owner(pid, parent=int(stat[1]))
                    self._cpu[pid] = owner, (int(stat[11]) + int(stat[12])) / _TICKS
                    groups[owner].append(pid)
            for owner, pids in groups.items():
                self.peak[owner] = max(self.peak[owner], tree_bytes(pids) or 0)

    def _owner(self, pid: int, *, parent: int) -> str:
        if not self._orchestrated:
            return "vLLM"
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        # vLLM is a keeper's child; what quantui starts itself looks an engine up.
        ours = self._root in (pid, parent) or any(name in command for name in _OURS)
        return "orchestrator" if ours else "vLLM"

    def close(self) -> dict[str, float]:
        """Stop; gives CPU seconds by owner."""
        self._over.set()
        self.join()
        spent = {"vLLM": 0.0, "orchestrator": 0.0}
        for owner, seconds in self._cpu.values():
            spent[owner] += seconds
        return spent


def commands_of(profile: Path) -> dict[str, str]:
    """The last two lines of the dry run: what serves, and what is asked."""
    done = subprocess.run(
        [QUANTUI, "--profile", profile, "--dry-run", "--json"],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    *_, serve, check = (item["command"] for item in json.loads(done.stdout))
    return {"serve": serve, "prompt": json.loads(check[check.index("{") :])["prompt"]}


def by_hand(profile: Path, folder: Path) -> Round:
    """vLLM started, asked once and stopped, with nothing around it."""
    told, draft = commands_of(profile), load_profile(profile)
    words = shlex.split(told["serve"])
    environment = dict(os.environ)
    while words[0].partition("=")[0].isidentifier():
        name, _, value = words.pop(0).partition("=")
        environment[name] = os.path.expandvars(value)
    host, port = (words[words.index(name) + 1] for name in ("--host", "--port"))
    name = words[words.index("--served-model-name") + 1]
    with (folder / "by-hand.log").open("ab") as log:
        started = time.monotonic()
        server = subprocess.Popen(
            words,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    sampler = Sampler(server.pid, orchestrated=False)
    sampler.start()
    result = Round()
    try:
        while ask(host, port, "GET", "/health") != 200:
            if server.poll() is not None:
                sys.exit(f"vLLM ended by itself; see {log.name}")
            time.sleep(0.05)
        result.ready_s = time.monotonic() - started
        body = {
            "model": name,
            "prompt": told["prompt"],
            "max_tokens": draft.check.max_tokens,
            "temperature": 0,
        }
        key = environment.get("VLLM_API_KEY", "")
        status = ask(host, port, "POST", "/v1/completions", body, key)
        if status != 200:
            sys.exit(f"vLLM answered {status}")
        result.answered_s = time.monotonic() - started
    finally:
        server.send_signal(signal.SIGINT)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
        result.gone_s = time.monotonic() - started
        result.cpu_s = sampler.close()
        result.peak_bytes = sampler.peak
    return result


def ask(
    host: str, port: str, verb: str, path: str, body: dict[str, object] | None = None, key: str = ""
) -> int | None:
    """The status of one request; None when nobody answers."""
    headers = {"Content-Type": "application/json"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    connection = http.client.HTTPConnection(host, int(port), timeout=2 if body is None else 600)
    try:
        connection.request(verb, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def by_quantui(profile: Path, folder: Path) -> Round:
    """The same through quantui, its events telling the moments."""
    result, began = Round(), time.time()
    with (folder / "quantui.log").open("ab") as log:
        process = subprocess.Popen(
            [QUANTUI, "--profile", profile, "--check-only", "--json"],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    sampler = Sampler(process.pid, orchestrated=True)
    sampler.start()
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        # The moment it is known to the reader; what the event says of itself is a little earlier.
        now = time.time() - began
        if event["type"] == "step.started" and event["step"] == "serve":
            result.before_vllm_s = now
        elif event["type"] == "server.ready":
            result.ready_s = now
        elif event["type"] == "step.finished" and event["step"] == "check":
            result.answered_s = now
    process.wait()
    result.gone_s = time.time() - began
    result.cpu_s = sampler.close()
    result.peak_bytes = sampler.peak
    if process.returncode:
        sys.exit(f"quantui ended with exit code {process.returncode}; see {log.name}")
    return result


def median(rounds: list[Round], name: str) -> float:
    """The median of one figure."""
    return float(statistics.median(getattr(item, name) for item in rounds))


def report(hand: list[Round], ours: list[Round], *, markdown: bool) -> int:
    """Print both side by side; gives 0 where the target is kept, 1 where missed, 2 where noise hides it."""
    rows = [("", "by hand", "quantui", "ratio")]
    for title, name in (
        ("start to ready, s", "ready_s"),
        ("start to the prompt's answer and figures, s", "answered_s"),
        ("start to stopped, s", "gone_s"),
    ):
        a, b = median(hand, name), median(ours, name)
        rows.append((title, spread(hand, name), spread(ours, name), f"{b / a:.3f}"))
    cpu = [statistics.median(item.cpu_s["vLLM"] for item in group) for group in (hand, ours)]
    rows.append(("CPU of vLLM, s", f"{cpu[0]:.1f}", f"{cpu[1]:.1f}", f"{cpu[1] / cpu[0]:.3f}"))
    own = statistics.median(item.cpu_s["orchestrator"] for item in ours)
    rows.append(("CPU of the orchestrator, s", "0", f"{own:.2f}", f"{own / cpu[1]:.3f} of vLLM's"))
    ram = statistics.median(item.peak_bytes["orchestrator"] for item in ours)
    vllm = statistics.median(item.peak_bytes["vLLM"] for item in ours)
    rows.append(
        (
            "peak RAM of the orchestrator, MiB",
            "0",
            f"{ram / 2**20:.0f}",
            f"{ram / vllm:.3f} of vLLM's",
        )
    )
    rows.append(("before vLLM is started, s", "0", spread(ours, "before_vllm_s"), ""))
    if markdown:
        rows.insert(1, ("---",) * 4)
        print(*(f"| {' | '.join(row)} |" for row in rows), sep="\n")
    else:
        print(*(f"{row[0]:<45}{row[1]:>22}{row[2]:>22}  {row[3]}" for row in rows), sep="\n")
    over = median(ours, "ready_s") / median(hand, "ready_s") - 1
    differ = noise(hand)
    code = 2 if abs(over - TARGET) < differ else int(over > TARGET)
    verdict = ("kept", "MISSED", "UNDECIDED, give it more rounds on a quiet machine")[code]
    print(
        f"target {verdict}: {over:+.1%} until ready, at most {TARGET:+.0%}; "
        f"by hand alone the rounds differ by {differ:.1%}"
    )
    return code


def spread(rounds: list[Round], name: str) -> str:
    """Median, with least and most."""
    values = [getattr(item, name) for item in rounds]
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def noise(rounds: list[Round]) -> float:
    """(Most - least) / median of the time until ready."""
    values = [item.ready_s for item in rounds]
    return (max(values) - min(values)) / statistics.median(values)


def main() -> int:
    """Run the rounds; the exit code is the verdict, see :func:`report`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("profile", metavar="PROFILE", nargs="?", help="default: the demo's")
    parser.add_argument("--rounds", type=int, default=3, help="default: 3")
    parser.add_argument("--markdown", action="store_true", help="a table to keep")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="quantui-benchmark-") as name:
        folder = Path(name)
        # Compiled modules are kept, as they are where vLLM ran before, whatever this shell says.
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = str(folder / "pycache")
        profile = folder / "demo.toml"
        if arguments.profile:
            profile = Path(arguments.profile).absolute()
        else:
            subprocess.run([QUANTUI, "demo", "--out", profile], check=True)
        print(f"not counted: {by_quantui(profile, folder).ready_s:.2f} s", file=sys.stderr)
        hand: list[Round] = []
        ours: list[Round] = []
        for number in range(arguments.rounds):
            turns = [(by_hand, hand), (by_quantui, ours)]
            for start, rounds in turns if number % 2 == 0 else reversed(turns):
                rounds.append(start(profile, folder))
                print(f"{start.__name__}: ready after {rounds[-1].ready_s:.2f} s", file=sys.stderr)
        return report(hand, ours, markdown=arguments.markdown)


if __name__ == "__main__":
    sys.exit(main())
