"""A sketch of a model: what config.json, an index or headers tell when the weights are not there."""

from __future__ import annotations

import json
import struct

import pytest
from fixtures.checkpoint_folders import model_files, safetensors_bytes, write

from quantui.domain.errors import QuantuiError
from quantui.runtime import file_hashes
from quantui.runtime.models import resolve_model


def header_of(content):
    """The first bytes of a safetensors file, without its data."""
    return content[: 8 + struct.unpack("<Q", content[:8])[0]]


def only(files, *names):
    return {name: content for name, content in files.items() if name in names}


def test_config_alone_is_a_sketch_without_tensors(tmp_path):
    folder = write(tmp_path / "m", only(model_files(), "config.json"))
    spec = resolve_model(str(folder), sketch=True)
    assert (spec.complete, spec.tensors, spec.weight_bytes) == (False, None, None)
    assert spec.architectures == ("LlamaForCausalLM",)
    assert spec.notes == ("no weights here: sizes are computed from config.json",)


def test_without_being_asked_for_a_sketch_missing_weights_are_an_error(tmp_path):
    folder = write(tmp_path / "m", only(model_files(), "config.json"))
    with pytest.raises(QuantuiError) as raised:
        resolve_model(str(folder))
    assert raised.value.code == "checkpoint.no-weights"
    assert "--sketch" in raised.value.fix


def test_headers_without_data_give_every_tensor(tmp_path):
    files = model_files()
    whole = resolve_model(str(write(tmp_path / "whole", files)))
    files["model.safetensors"] = header_of(files["model.safetensors"])
    spec = resolve_model(str(write(tmp_path / "m", files)), sketch=True)
    assert spec.tensors == whole.tensors
    assert spec.weight_bytes == sum(tensor.nbytes for tensor in whole.tensors or ())
    assert spec.complete is False
    assert "the weight files hold their headers only" in spec.notes


def test_headers_without_data_are_no_model(tmp_path):
    files = model_files()
    files["model.safetensors"] = header_of(files["model.safetensors"])
    with pytest.raises(QuantuiError) as raised:
        resolve_model(str(write(tmp_path / "m", files)))
    assert raised.value.code == "safetensors.truncated"


def test_a_header_that_is_itself_cut_is_refused_in_a_sketch_too(tmp_path):
    files = model_files()
    files["model.safetensors"] = header_of(files["model.safetensors"])[:-5]
    with pytest.raises(QuantuiError) as raised:
        resolve_model(str(write(tmp_path / "m", files)), sketch=True)
    assert raised.value.code == "safetensors.truncated"


def test_an_index_alone_gives_the_total_size(tmp_path):
    files = only(model_files(shards=2), "config.json", "model.safetensors.index.json")
    index = json.loads(files["model.safetensors.index.json"])
    index["metadata"] = {"total_size": 123456}
    files["model.safetensors.index.json"] = json.dumps(index).encode()
    spec = resolve_model(str(write(tmp_path / "m", files)), sketch=True)
    assert (spec.weight_bytes, spec.tensors) == (123456, None)
    assert spec.missing_files == (
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    )


@pytest.mark.parametrize("size", [-1, 0, True, "12", None, 1e300, [1]])
def test_a_total_size_that_makes_no_sense_is_unknown(tmp_path, size):
    files = only(model_files(shards=2), "config.json", "model.safetensors.index.json")
    index = {**json.loads(files["model.safetensors.index.json"]), "metadata": {"total_size": size}}
    files["model.safetensors.index.json"] = json.dumps(index).encode()
    assert resolve_model(str(write(tmp_path / "m", files)), sketch=True).weight_bytes is None


def test_an_index_may_not_name_files_outside_in_a_sketch_either(tmp_path):
    index = {"weight_map": {"a": "../evil.safetensors"}}
    files = only(model_files(), "config.json")
    files["model.safetensors.index.json"] = json.dumps(index).encode()
    with pytest.raises(QuantuiError) as raised:
        resolve_model(str(write(tmp_path / "m", files)), sketch=True)
    assert raised.value.code == "checkpoint.outside-folder"


def test_pickled_weights_are_measured_and_not_looked_into(tmp_path):
    files = {**only(model_files(), "config.json"), "pytorch_model.bin": bytes(1000)}
    spec = resolve_model(str(write(tmp_path / "m", files)), sketch=True)
    assert (spec.weight_bytes, spec.tensors) == (1000, None)


def test_a_whole_small_model_is_the_same_with_and_without_a_sketch(tmp_path):
    folder = str(write(tmp_path / "m", model_files(shards=2)))
    assert resolve_model(folder, sketch=True) == resolve_model(folder)


def test_large_weights_are_not_hashed_for_a_sketch(tmp_path, monkeypatch):
    files = model_files()
    files["model.safetensors"] = safetensors_bytes({"big": ("U8", (11 * 1024 * 1024,))})
    folder = str(write(tmp_path / "m", files))
    read = []
    real = file_hashes.sha256_of

    def noted(path, progress=None):
        read.append(path.name)
        return real(path, progress)

    monkeypatch.setattr(file_hashes, "sha256_of", noted)
    spec = resolve_model(folder, sketch=True)
    assert "model.safetensors" not in read
    assert spec.weight_files[0].sha256 is None
    assert spec.fingerprint != resolve_model(folder).fingerprint
