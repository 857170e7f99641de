"""Facts derived from a checkpoint's config, file names and tensor headers."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from quantui.domain.architecture.config_view import positive, rope_parts, text_config, text_view
from quantui.domain.architecture.quantization_readers import read_quantization

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from quantui.domain.models import TensorInfo

_LENGTH_KEYS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "model_max_length",
    "max_target_positions",
    "max_sequence_length",
    "max_seq_length",
    "seq_len",
)
_STATES_SCALED_LENGTH = frozenset(
    {"su", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling"}
)
_TOKENIZER_FILES = frozenset(
    {"tokenizer.json", "tokenizer.model", "vocab.txt", "spiece.model", "tekken.json", "merges.txt"}
)
_NOT_CONTENT = frozenset(
    {
        "quantui.json",
        "trainer_state.json",
        "training_args.json",
        "training_config.json",
        "training_params.json",
        "args.json",
        "sft_args.json",
        "all_results.json",
        "train_results.json",
        "eval_results.json",
    }
)
_CONTENT_SUFFIXES = (".json", ".jinja", ".model", ".py", ".tiktoken")
_CONTENT_NAMES = frozenset({"merges.txt", "vocab.txt"})
_TORCH_NAMES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64"}
_SCALES = re.compile(
    r"(\.absmax|\.quant_map|\.nested_absmax|\.nested_quant_map|\.quant_state\.[^.]+|\.qzeros|\.scales"
    r"|\.g_idx|_scale(_inv|_2)?|_zero_point|_shape|_global_scale|\.SCB|\.weight_format)$"
)


def context_length(
    config: Mapping[str, Any], tokenizer_config: Mapping[str, Any] | None = None
) -> int | None:
    """Tokens of context that vLLM derives when no ``--max-model-len`` is given; None if unknown.

    Follows ``_get_and_verify_max_len`` of vllm/config/model.py (0.32): the smallest length key of the
    text config, or its class's default, lowered to the tokenizer's, then scaled by rope parameters
    (yarn, llama3 and gemma3 state the scaled length already; longrope serves the original one).
    """
    view = text_view(config)
    text = view.values
    lengths = [length for key in _LENGTH_KEYS if (length := view.whole(key)) is not None]
    derived: float | None = min(lengths, default=None)
    derived = view.whole("model_max_length") or derived
    limit = positive((tokenizer_config or {}).get("model_max_length"))
    if derived is not None and limit is not None:
        derived = min(derived, limit)
    if derived is None:
        return None
    ropes = rope_parts(text)
    if not ropes or "gemma3" in str(text.get("model_type", "")):
        return int(derived)
    factor = 1.0
    for rope in ropes:
        kind = rope.get("rope_type") or rope.get("type")
        if kind == "longrope":
            original = positive(rope.get("original_max_position_embeddings"))
            own = positive(text.get("original_max_position_embeddings")) or original
            return own or int(derived)
        if isinstance(kind, str) and kind in _STATES_SCALED_LENGTH:
            continue
        value = rope.get("factor", factor)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        factor = float(value) if number and 0 < value < 2**62 else factor
    return int(derived * factor)


def stored_dtype(
    config: Mapping[str, Any], tensors: Iterable[TensorInfo] | None = None
) -> str | None:
    """The dtype as torch names it (``bfloat16``): from config, else that of most bytes."""
    for part in (config, text_config(config)):
        for key in ("dtype", "torch_dtype"):
            if isinstance(value := part.get(key), str):
                return value.removeprefix("torch.")
    total: Counter[str] = Counter()
    for tensor in tensors or ():
        total[tensor.dtype] += tensor.nbytes
    if not total:
        return None
    name = total.most_common(1)[0][0]
    return _TORCH_NAMES.get(name, name.lower())


def parameter_count(tensors: Iterable[TensorInfo], config: Mapping[str, Any]) -> int | None:
    """How many parameters the tensors hold, packed 4-bit values counted as what they stand for.

    None when the packing is not one of bitsandbytes, GPTQ, AWQ or compressed-tensors.
    """
    quantization = read_quantization(config)
    bits = (quantization.bits if quantization else None) or 4
    count = 0
    for tensor in tensors:
        if quantization is not None and _SCALES.search(tensor.name):
            continue
        if tensor.dtype == "U8" and quantization and quantization.format == "bitsandbytes":
            count += tensor.elements * 2
        elif tensor.dtype == "I32" and tensor.name.endswith((".qweight", ".weight_packed")):
            count += tensor.elements * max(1, 32 // bits)
        elif tensor.dtype in {"U8", "I32"} and quantization is not None:
            return None
        else:
            count += tensor.elements
    return count


def has_tokenizer(names: Iterable[str]) -> bool:
    """Whether a tokenizer's vocabulary is among the files (its config alone is not enough)."""
    known = set(names)
    pair = {"vocab.json", "merges.txt"} <= known
    return pair or any(
        name in _TOKENIZER_FILES - {"merges.txt"} or name.endswith(".tiktoken") for name in known
    )


def has_chat_template(names: Iterable[str], tokenizer_config: Mapping[str, Any] | None) -> bool:
    """Whether a chat template comes with the checkpoint, in any of the three places it may be."""
    known = set(names)
    beside = {"chat_template.jinja", "chat_template.json"} & known
    return bool(
        beside
        or (tokenizer_config or {}).get("chat_template")
        or any(name.startswith("additional_chat_templates/") for name in known)
    )


def has_custom_code(*configs: Mapping[str, Any] | None) -> bool:
    """Whether loading runs Python code of the checkpoint's (``auto_map``, trust_remote_code)."""
    return any(bool((config or {}).get("auto_map")) for config in configs)


def is_content(name: str) -> bool:
    """Whether a side file takes part in what the model computes, and so in its fingerprint."""
    base = name.rsplit("/", 1)[-1]
    if base in _NOT_CONTENT or base.startswith("."):
        return False
    return base in _CONTENT_NAMES or base.endswith(_CONTENT_SUFFIXES)


def content_fingerprint(kind: str, digests: Iterable[tuple[str, str]]) -> str:
    """One hex SHA-256 over (file name, digest) pairs; ``kind`` names what the digests are.

    Hub digests are git or LFS object ids and folder digests are SHA-256: the kinds never meet.
    """
    state = hashlib.sha256(f"quantui-content-1\0{kind}\n".encode())
    for name, digest in sorted(digests):
        state.update(f"{name}\0{digest}\n".encode("utf-8", "surrogateescape"))
    return state.hexdigest()
