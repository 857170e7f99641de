"""Everything of a checkpoint that is not weights: config, tokenizer, chat template, the rest."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

from quantui_wire import notice

if TYPE_CHECKING:
    from pathlib import Path

_WEIGHT_SUFFIXES = {
    ".bin", ".ckpt", ".gguf", ".h5", ".msgpack", ".onnx", ".ot", ".pt", ".pth", ".safetensors",
}  # fmt: skip

_TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "chat_template.jinja",
    "chat_template.json",
)  # fmt: skip


def changes_of(model: Any) -> dict[str, Any]:  # noqa: ANN401
    """The fields of config.json that follow from a merged ``model``: dtype, tie, vocabulary."""
    found = {
        "dtype": str(model.dtype).removeprefix("torch."),
        "tie_word_embeddings": model.config.tie_word_embeddings,
    }
    text = model.config.get_text_config()
    if hasattr(text, "vocab_size"):
        found["vocab_size"] = text.vocab_size
    return found


def write_config(base: dict[str, Any], changes: dict[str, Any], folder: Path) -> None:
    """The base's own config with what the merge changed.

    Not the config transformers would write: its version renames fields that servers of another
    version read. ``changes``: ``dtype``, fields of the whole (``architectures``, labels), and fields
    that are changed wherever they stand (``tie_word_embeddings``, ``vocab_size``).
    """
    config = {name: value for name, value in base.items() if name != "quantization_config"}
    changes = dict(changes)
    if dtype := changes.pop("dtype", None):
        config["dtype" if "dtype" in config or "torch_dtype" not in config else "torch_dtype"] = (
            dtype
        )
    parts = [config]
    if isinstance(config.get("text_config"), dict):
        config["text_config"] = dict(config["text_config"])
        parts.append(config["text_config"])
    for name, value in changes.items():
        holding = [part for part in parts if name in part]
        if name != "vocab_size" and not any(part is config for part in holding):
            # A tie is stated where it was not, too: leaving it out means tied to some versions.
            holding.append(config)
        for part in holding:
            part[name] = value
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")


def copy_side_files(base: Path, adapter: Path, folder: Path, tokenizer_from: str) -> list[str]:
    """Copy all that is not weights from ``base``, then the adapter's tokenizer over it.

    ``tokenizer_from``: ``auto`` (the adapter's where it has one), ``base`` or ``adapter``. Returns
    the names of tokenizer files that differ between the two and come from the adapter.
    """
    generated = folder / "generation_config.json"
    generated.unlink(missing_ok=True)
    for source in sorted(base.rglob("*")):
        relative = source.relative_to(base)
        if any(part.startswith(".") for part in relative.parts) or not source.is_file():
            continue
        is_index = relative.name.endswith(".index.json")
        is_pickle = relative.suffix in {".pkl", ".pickle"}
        if relative.suffix in _WEIGHT_SUFFIXES or is_index or is_pickle:
            continue
        if relative.as_posix() in {"config.json", "merge_proof.json", "quantui.json"}:
            continue
        (folder / relative).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, folder / relative)
    if tokenizer_from == "base":
        return []
    different = []
    for name in _TOKENIZER_FILES:
        source, target = adapter / name, folder / name
        if source.is_file():
            if not target.exists() or target.read_bytes() != source.read_bytes():
                different.append(name)
            shutil.copyfile(source, target)
    if different:
        notice(
            "Tokenizer files of the adapter differ from the base's and were taken: "
            + ", ".join(different),
            level="warning",
        )
    return different
