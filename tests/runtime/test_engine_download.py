"""An install interrupted while uv downloads, and where torch comes from."""

from __future__ import annotations

import contextlib
import http.server
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))
import tiny_engine

from quantui.domain.errors import ExitCode, QuantuiError
from quantui.engines.specs import load_specs, parse_specs
from quantui.runtime import engine_store as store
from quantui.runtime.engine_install import Install, make_environment


class SlowIndex(http.server.ThreadingHTTPServer):
    """A find-links page whose one wheel begins to arrive and never ends."""

    daemon_threads = True

    def __init__(self, wheel: Path) -> None:
        self.wheel = wheel
        self.asked = threading.Event()
        self.let_go = threading.Event()
        super().__init__(("127.0.0.1", 0), SlowHandler)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/links.html"


class SlowHandler(http.server.BaseHTTPRequestHandler):
    server: SlowIndex

    def do_GET(self) -> None:
        self.send_response(200)
        if self.path.endswith(".html"):
            page = f'<a href="{self.server.wheel.name}">wheel</a>'.encode()
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)
            return
        self.send_header("Content-Length", str(50 * 1024 * 1024))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(self.server.wheel.read_bytes()[:100])
            self.wfile.flush()
            self.server.asked.set()
            self.server.let_go.wait(120)

    def do_HEAD(self) -> None:
        self.send_response(405)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def index(tmp_path, monkeypatch):
    wheel = tiny_engine.make_wheel(tmp_path / "wheels", "tinypkg")
    tiny_engine.write_spec(tmp_path / "specs", wheel)
    server = SlowIndex(wheel)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("UV_FIND_LINKS", server.address)
    monkeypatch.setenv("UV_DEFAULT_INDEX", server.address)
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in ("UV_OFFLINE", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    yield server
    server.let_go.set()
    server.shutdown()
    server.server_close()


def uv_processes(tmp_path):
    mark = str(tmp_path)
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if process.info["cmdline"] and any(mark in part for part in process.info["cmdline"][1:])
    ]


def partial_folders():
    return [path.name for path in store.engines_dir().iterdir() if path.is_dir()]


def test_a_cancel_while_uv_downloads_stops_it(index, tmp_path):
    cancel = threading.Event()

    def cancel_when_asked():
        index.asked.wait(60)
        cancel.set()

    threading.Thread(target=cancel_when_asked, daemon=True).start()
    spec = load_specs(tmp_path / "specs")["tiny"]
    with pytest.raises(QuantuiError) as caught:
        make_environment(spec, on_event=lambda _: None, cancel=cancel)
    assert index.asked.is_set()
    assert caught.value.exit_code == ExitCode.CANCELLED
    assert uv_processes(tmp_path) == []
    assert partial_folders() == []


def test_a_kill_of_quantui_while_uv_downloads_leaves_no_process(index, tmp_path):
    installer = subprocess.Popen(
        [sys.executable, tiny_engine.__file__, str(tmp_path / "specs")], stdout=subprocess.DEVNULL
    )
    assert index.asked.wait(60)
    assert uv_processes(tmp_path)
    installer.kill()
    installer.wait()
    deadline = time.monotonic() + 15
    while uv_processes(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert uv_processes(tmp_path) == []
    assert all(".partial-" in name for name in partial_folders())


def spec_with_torch(tmp_path):
    folder = tiny_engine.write_spec(
        tmp_path / "specs", tiny_engine.make_wheel(tmp_path / "wheels", "tinypkg")
    )
    text = (folder / "tiny.toml").read_text()
    torch = '[torch]\nbackend = "cpu"\npackages = ["torch"]\n'
    lock = (folder / "tiny.lock").read_text()
    lock += "torch==2.13.0+cpu \\\n    --hash=sha256:" + "0" * 64 + "\n"
    text = text.replace("[[requirement]]", torch + "[[requirement]]")
    return parse_specs(text, lambda _: lock)[0]


WHEELS = ["--only-binary", ":all:"]


def batches(spec, tmp_path):
    store.engines_dir().mkdir(parents=True, exist_ok=True)
    install = Install(spec, tmp_path / "env", "x", lambda _: None, threading.Event())
    return [
        ([entry.split("==")[0] for entry in entries], options)
        for entries, options in install.batches()
    ]


def test_torch_comes_from_its_own_index_and_nothing_else_does(tmp_path, monkeypatch):
    for name in ("UV_FIND_LINKS", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    assert batches(spec_with_torch(tmp_path), tmp_path) == [
        (["torch"], [*WHEELS, "--torch-backend=cpu"]),
        (["tinypkg"], WHEELS),
    ]


def test_a_wheel_of_torch_in_a_folder_is_used_instead(tmp_path, monkeypatch):
    import platform

    tag = "cp" + tiny_engine.PYTHON.replace(".", "")
    file = f"torch-2.13.0+cpu-{tag}-{tag}-manylinux_2_28_{platform.machine()}.whl"
    (tmp_path / file).touch()
    monkeypatch.delenv("UV_FIND_LINKS", raising=False)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    assert batches(spec_with_torch(tmp_path), tmp_path) == [(["tinypkg", "torch"], WHEELS)]
