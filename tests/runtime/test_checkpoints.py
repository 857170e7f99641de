"""Folders as people have them: whole, damaged, mistaken for something else, or hostile."""

from __future__ import annotations

import json
import os
import random
import resource
import struct
import subprocess
import sys
import time

import pytest
from fixtures.checkpoint_folders import (
    adapter_files,
    model_files,
    model_tensors,
    safetensors_bytes,
    write,
)

from quantui.domain.adapter_match import check_adapter_fits
from quantui.domain.errors import ExitCode, QuantuiError
from quantui.runtime import file_hashes, paths
from quantui.runtime.models import resolve_adapter, resolve_model, was_trained_in_4bit
from quantui.runtime.safetensors_header import MAX_HEADER_BYTES, read_header


@pytest.fixture(autouse=True)
def no_hub(monkeypatch, tmp_path):
    monkeypatch.setenv("QUANTUI_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def refused(ref, resolve=resolve_model, **options):
    with pytest.raises(QuantuiError) as caught:
        resolve(str(ref), **options)
    assert caught.value.what
    assert caught.value.fix
    return caught.value


def test_a_whole_checkpoint(tmp_path):
    spec = resolve_model(str(write(tmp_path / "m", model_files(shards=3))))
    assert spec.source == "folder"
    assert spec.architectures == ("LlamaForCausalLM",)
    assert spec.context_length == 2048
    assert spec.dtype == "bfloat16"
    assert spec.parameters == 2816
    assert {t.name for t in spec.tensors} == set(model_tensors())
    assert spec.weight_bytes == sum(file.size_bytes for file in spec.weight_files)
    assert (spec.has_tokenizer, spec.has_chat_template, spec.custom_code) == (True, True, False)
    assert spec.license == "apache-2.0"
    assert spec.complete


def test_an_adapter(tmp_path):
    spec = resolve_adapter(str(write(tmp_path / "a", adapter_files(use_rslora=True))))
    assert (spec.peft_type, spec.rank, spec.alpha, spec.use_rslora) == ("LORA", 4, 8.0, True)
    assert spec.target_modules == ("q_proj", "v_proj")
    assert spec.base_ref == "owner/base"
    assert len(spec.tensors) == 8
    regex = adapter_files(target_modules=".*attn.*")
    assert resolve_adapter(str(write(tmp_path / "r", regex))).target_modules == ".*attn.*"


def test_an_adapter_without_a_base_is_read(tmp_path):
    folder = write(tmp_path / "a", adapter_files(base=None))
    assert resolve_adapter(str(folder)).base_ref is None


# Identity


def test_the_same_bytes_have_the_same_fingerprint_anywhere(tmp_path):
    one = resolve_model(str(write(tmp_path / "one", model_files())))
    two = resolve_model(str(write(tmp_path / "deep" / "two", model_files())))
    assert one.fingerprint == two.fingerprint


@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"]
)
def test_any_changed_byte_changes_the_fingerprint(tmp_path, name):
    files = model_files()
    before = resolve_model(str(write(tmp_path / "a", files))).fingerprint
    old = files[name]
    changed = old[:-1] + bytes([old[-1] ^ 1]) if name == "model.safetensors" else old + b" "
    after = resolve_model(str(write(tmp_path / "b", {**files, name: changed}))).fingerprint
    assert before != after


def test_a_readme_and_a_trainer_log_do_not_change_it(tmp_path):
    files = model_files()
    before = resolve_model(str(write(tmp_path / "a", files))).fingerprint
    more = {**files, "README.md": b"other", "trainer_state.json": b"{}", "optimizer.pt": b"x"}
    assert resolve_model(str(write(tmp_path / "b", more))).fingerprint == before


def test_a_change_in_place_is_seen_even_when_the_times_are_put_back(tmp_path):
    folder = write(tmp_path / "m", model_files())
    weights = folder / "model.safetensors"
    time.sleep(0.1)
    before = resolve_model(str(folder)).fingerprint
    stat = weights.stat()
    with weights.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x01")
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert resolve_model(str(folder)).fingerprint != before


def test_hashes_are_kept_and_a_damaged_cache_is_ignored(tmp_path):
    path = tmp_path / "w"
    path.write_bytes(b"x" * 1000)
    time.sleep(0.1)
    calls = []
    first = file_hashes.sha256_of(path, lambda *args: calls.append(args))
    assert file_hashes.sha256_of(path, lambda *args: calls.append(args)) == first
    assert len(calls) == 1
    cache = paths.cache_dir() / "file-hashes.json"
    for damage in (b"{", b"[]", b'{"a": 1}', b"\xff"):
        cache.write_bytes(damage)
        assert file_hashes.sha256_of(path) == first


def test_processes_hashing_at_once_do_not_lose_each_others_work(tmp_path):
    files = []
    for index in range(6):
        path = tmp_path / f"w{index}"
        path.write_bytes(bytes([index]) * 5000)
        files.append(path)
    time.sleep(0.1)
    code = (
        "import sys; from pathlib import Path; from quantui.runtime.file_hashes import sha256_of\n"
        "sha256_of(Path(sys.argv[1]))"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(path)]) for path in files]
    assert [process.wait(timeout=60) for process in running] == [0] * 6
    kept = json.loads((paths.cache_dir() / "file-hashes.json").read_text())
    assert len(kept) == 6


# What is not a usable checkpoint


def test_a_model_given_as_an_adapter_and_the_other_way_round(tmp_path):
    model = write(tmp_path / "m", model_files())
    adapter = write(tmp_path / "a", adapter_files())
    assert refused(adapter).code == "model.is-an-adapter"
    assert refused(model, resolve_adapter).code == "adapter.is-a-model"


def without(files, *names):
    return {name: content for name, content in files.items() if name not in names}


def with_index(change):
    files = model_files(shards=2)
    index = json.loads(files["model.safetensors.index.json"])
    change(index["weight_map"])
    return {**files, "model.safetensors.index.json": json.dumps(index).encode()}


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 5000000000\n"
BAD_MODELS = {
    "no config": (without(model_files(), "config.json"), "checkpoint.no-config"),
    "no weights": (without(model_files(), "model.safetensors"), "checkpoint.no-weights"),
    "empty": ({}, "checkpoint.no-weights"),
    "gguf only": ({"config.json": b"{}", "m.Q4_K_M.gguf": b"GGUF"}, "checkpoint.gguf-only"),
    "pickle only": ({"config.json": b"{}", "pytorch_model.bin": b"x"}, "checkpoint.pickle-only"),
    "config is not JSON": ({**model_files(), "config.json": b"{'a': 1}"}, "checkpoint.bad-json"),
    "config is a list": ({**model_files(), "config.json": b"[]"}, "checkpoint.bad-json"),
    "config is nested": (
        {**model_files(), "config.json": b"[" * 200_000},
        "checkpoint.bad-json",
    ),
    "config is not text": ({**model_files(), "config.json": b"\xff\xfe"}, "checkpoint.bad-json"),
    "config is a pointer": ({**model_files(), "config.json": LFS}, "checkpoint.lfs-pointer"),
    "weights are a pointer": (
        {**model_files(), "model.safetensors": LFS},
        "checkpoint.lfs-pointer",
    ),
    "shard missing": (
        without(model_files(shards=3), "model-00002-of-00003.safetensors"),
        "checkpoint.missing-shards",
    ),
    "index empty": (with_index(lambda m: m.clear()), "checkpoint.bad-json"),
    "index with a number": (with_index(lambda m: m.update(x=3)), "checkpoint.bad-json"),
    "index leads up": (
        with_index(lambda m: m.update(x="../secret.safetensors")),
        "checkpoint.outside-folder",
    ),
    "index is absolute": (
        with_index(lambda m: m.update(x="/etc/passwd")),
        "checkpoint.outside-folder",
    ),
    "index names a tensor that is not there": (
        with_index(lambda m: m.update(ghost="model-00001-of-00002.safetensors")),
        "checkpoint.index-mismatch",
    ),
    "cut short": (
        {**model_files(), "model.safetensors": model_files()["model.safetensors"][:-10]},
        "safetensors.truncated",
    ),
    "no bytes": ({**model_files(), "model.safetensors": b""}, "safetensors.truncated"),
    "too long": (
        {**model_files(), "model.safetensors": model_files()["model.safetensors"] + b"x"},
        "safetensors.bad-offsets",
    ),
    "header too large": (
        {**model_files(), "model.safetensors": struct.pack("<Q", MAX_HEADER_BYTES + 1) + b"{}"},
        "safetensors.header-too-large",
    ),
}


@pytest.mark.parametrize("case", BAD_MODELS)
def test_bad_checkpoints_are_named_for_what_they_are(tmp_path, case):
    files, code = BAD_MODELS[case]
    (tmp_path / "m").mkdir()
    error = refused(write(tmp_path / "m", files))
    assert error.code == code
    assert error.exit_code == ExitCode.BAD_INPUT


def test_missing_shards_are_listed(tmp_path):
    files = without(model_files(shards=3), "model-00002-of-00003.safetensors")
    assert "model-00002-of-00003.safetensors" in refused(write(tmp_path / "m", files)).detail


def test_pickles_are_read_about_only_when_allowed(tmp_path):
    folder = write(tmp_path / "m", {"config.json": b"{}", "pytorch_model.bin": b"\x80\x04."})
    assert "save_pretrained" in refused(folder).fix
    spec = resolve_model(str(folder), allow_pickle=True)
    assert spec.tensors is None
    assert spec.weight_bytes == 3


def test_links_out_of_the_folder_are_refused(tmp_path):
    outside = tmp_path / "outside.safetensors"
    outside.write_bytes(model_files()["model.safetensors"])
    folder = write(tmp_path / "m", without(model_files(), "model.safetensors"))
    (folder / "model.safetensors").symlink_to(outside)
    assert refused(folder).code == "checkpoint.outside-folder"


def test_a_link_to_the_folder_itself_is_fine(tmp_path):
    write(tmp_path / "m", model_files())
    (tmp_path / "link").symlink_to(tmp_path / "m")
    assert resolve_model(str(tmp_path / "link")).complete


def test_a_pipe_in_the_folder_does_not_hang(tmp_path):
    folder = write(tmp_path / "m", without(model_files(), "model.safetensors"))
    os.mkfifo(folder / "model.safetensors")
    assert refused(folder).code == "checkpoint.no-weights"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_files_that_may_not_be_read(tmp_path):
    folder = write(tmp_path / "m", model_files())
    (folder / "config.json").chmod(0)
    error = refused(folder)
    assert error.code == "checkpoint.unreadable"
    assert error.exit_code == ExitCode.NOT_FOUND


def test_an_adapter_without_weights_or_config(tmp_path):
    no_weights = without(adapter_files(), "adapter_model.safetensors")
    assert refused(write(tmp_path / "a", no_weights), resolve_adapter).code == "adapter.no-weights"
    (tmp_path / "e").mkdir()
    assert refused(tmp_path / "e", resolve_adapter).code == "adapter.no-config"
    pickled = {**no_weights, "adapter_model.bin": b"x"}
    error = refused(write(tmp_path / "p", pickled), resolve_adapter)
    assert error.code == "checkpoint.pickle-only"


def test_a_missing_folder_names_what_is_near(tmp_path):
    (tmp_path / "my-model").mkdir()
    error = refused(tmp_path / "my-modell")
    assert error.code == "model.folder-not-found"
    assert error.exit_code == ExitCode.NOT_FOUND
    assert str(tmp_path / "my-model") in error.fix
    file = tmp_path / "my-model" / "config.json"
    file.write_text("{}")
    assert refused(file).code == "model.is-a-file"


@pytest.mark.parametrize("ref", ["", " ", "\0", "\x1b[31mred", "a b", "x" * 5000, "a/b@c", "-x"])
def test_what_cannot_be_a_name_is_refused(ref):
    assert refused(ref).code == "model.bad-name"


@pytest.mark.parametrize("ref", ["/" + "x" * 5000, "~nobody-of-this-name/m", "/a\0b", "./gone"])
def test_what_is_meant_as_a_path_is_not_asked_of_the_hub(ref):
    assert refused(ref).code == "model.folder-not-found"


def test_an_adapter_of_another_base_is_refused_from_the_headers_alone(tmp_path):
    model = resolve_model(str(write(tmp_path / "m", model_files(hidden=16))))
    fits = resolve_adapter(str(write(tmp_path / "a", adapter_files(hidden=16))))
    assert check_adapter_fits(model, fits).matched == 4
    other = resolve_adapter(str(write(tmp_path / "b", adapter_files(hidden=32))))
    with pytest.raises(QuantuiError) as caught:
        check_adapter_fits(model, other)
    assert caught.value.code == "adapter.other-base"
    assert "[32, 32]" in caught.value.why


# The evidence beside an adapter


def test_evidence_is_gathered_from_the_files_beside_the_adapter(tmp_path):
    files = {**adapter_files(), "axolotl.yaml": b"adapter: qlora\nload_in_4bit: true\n"}
    found = was_trained_in_4bit(str(write(tmp_path / "a", files)))
    assert found.answer is True
    assert {item.source for item in found.evidence} == {"axolotl.yaml"}


def test_a_trainers_checkpoint_is_judged_by_the_folder_above(tmp_path):
    write(tmp_path / "out", {"training_args.yaml": b"quantization_bit: 4\n"})
    folder = write(tmp_path / "out" / "checkpoint-500", adapter_files())
    assert was_trained_in_4bit(str(folder)).answer is True


def test_a_local_base_in_4bit_is_evidence(tmp_path):
    stored = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
    base = write(tmp_path / "base", model_files(**stored))
    folder = write(tmp_path / "a", adapter_files(base=str(base)))
    assert was_trained_in_4bit(str(folder)).answer is True
    assert resolve_adapter(str(folder), four_bit=False).four_bit.overridden


# Hostile headers


def test_headers_are_read_as_the_safetensors_library_reads_them(tmp_path):
    from safetensors import deserialize

    content = safetensors_bytes(model_tensors(), {"format": "pt"})
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    theirs = {name: (info["dtype"], tuple(info["shape"])) for name, info in deserialize(content)}
    assert {t.name: (t.dtype, t.shape) for t in read_header(path, "x")} == theirs


def header_file(path, entries, data=b""):
    raw = json.dumps(entries).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)
    return path


def entry(dtype="F32", shape=(1,), offsets=(0, 4)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.mark.parametrize(
    ("entries", "code"),
    [
        ({"a": entry("Q9")}, "safetensors.unknown-dtype"),
        ({"a": entry(), "b": entry()}, "safetensors.bad-offsets"),
        ({"a": entry(offsets=(4, 8))}, "safetensors.bad-offsets"),
        ({"a": entry(shape=(3,), offsets=(0, 12))}, "safetensors.truncated"),
        ({"a": entry(shape=(-1,))}, "safetensors.bad-header"),
        ({"a": entry(shape=(True,))}, "safetensors.bad-header"),
        ({"a": entry(shape=(2**63,))}, "safetensors.bad-header"),
        ({"a": entry(shape=[1] * 100)}, "safetensors.bad-header"),
        ({"a": entry(offsets=(4, 0))}, "safetensors.bad-header"),
        ({"a": entry(offsets=(0, 4, 8))}, "safetensors.bad-header"),
        ({"a": entry(offsets=(0, 3))}, "safetensors.bad-header"),
        ({"a": 3}, "safetensors.bad-header"),
        ([], "safetensors.bad-header"),
    ],
)
def test_headers_that_lie_are_refused(tmp_path, entries, code):
    path = header_file(tmp_path / "x.safetensors", entries, bytes(4))
    with pytest.raises(QuantuiError) as caught:
        read_header(path, "x.safetensors")
    assert caught.value.code == code


def mutate(random_, content):
    content = bytearray(content)
    for _ in range(random_.randint(1, 4)):
        kind = random_.randrange(4)
        at = random_.randrange(max(1, len(content)))
        if kind == 0 and content:
            content[at] = random_.randrange(256)
        elif kind == 1:
            del content[at : at + random_.randint(1, 40)]
        elif kind == 2:
            content[at:at] = random_.choice(
                [b"-", b"9" * 30, b"null", b"[", b"{", b'"', b"1e999", b"\xff", b"NaN", b"\\u0000"]
            )
        elif len(content) >= 8:
            length = random_.choice([0, 1, 2**63, 2**64 - 1, random_.getrandbits(30)])
            content[:8] = struct.pack("<Q", length)
    return bytes(content)


def test_mutated_headers_give_an_answer_or_a_clear_error(tmp_path):
    random_ = random.Random(20)
    sources = [
        safetensors_bytes({"a": ("F32", (2, 2)), "b": ("BF16", (3,))}, {"format": "pt"}),
        model_files()["model.safetensors"][:900],
    ]
    path = tmp_path / "x.safetensors"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    codes = set()
    for _ in range(3000):
        path.write_bytes(mutate(random_, random_.choice(sources)))
        try:
            read_header(path, "x.safetensors")
        except QuantuiError as error:
            codes.add(error.code)
    assert len(codes) >= 5
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kib < 64 * 1024
