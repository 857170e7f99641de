"""Copies of a model that somebody has quantized already: what they are stored in, and which come first.

All of it is the word of strangers: that a repository holds this model, and in what format, is said by its own
card, tags and name. Faces sanitize the texts.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from quantui.domain.architecture.checkpoint_format import CheckpointFormat, classify_quantization
from quantui.domain.architecture.config_view import text_config

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

VariantSource = Literal["hub", "hub-cache", "folder"]
"""Still on the Hub; whole in the Hub cache; a folder that quantui made."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A quantized copy of ``base_ref``.

    ``method`` is the catalogue's name, "" when only ``quant_method`` (vLLM's) is known; ``size_bytes`` of
    its weights; ``evidence`` why it is taken for a copy, and for this method; ``path`` where it lies on
    this machine. What is not known is None.
    """

    ref: str
    publisher: str
    method: str
    quant_method: str
    bits: int | None
    source: VariantSource
    base_ref: str
    evidence: tuple[str, ...]
    group_size: int | None = None
    activation_bits: int | None = None
    text: str = ""
    downloads: int | None = None
    likes: int | None = None
    size_bytes: int | None = None
    revision: str | None = None
    gated: bool | str | None = None
    last_modified: str | None = None
    path: str | None = None


_NAMES: tuple[tuple[str, CheckpointFormat], ...] = tuple(
    (pattern, CheckpointFormat(method, bits, None, text, quant_method, activations))
    for pattern, method, bits, text, quant_method, activations in (
        # The first that matches counts: what is more special stands before what it contains.
        (r"gguf|i?q\d(_[0-9k])?(_[a-z]+)?", "gguf", None, "GGUF", "gguf", 16),
        (r"(nv)?fp4", "nvfp4", 4, "NVFP4", "", None),
        (r"mxfp4", "mxfp4", 4, "MXFP4", "mxfp4", None),
        (r"mxfp8", "mxfp8", 8, "MXFP8", "", 8),
        (r"auto-?round", "autoround", None, "AutoRound", "auto-round", 16),
        (r"awq", "awq", 4, "AWQ", "awq", 16),
        (r"gptq", "gptq", None, "GPTQ", "gptq", 16),
        (r"(bnb|bitsandbytes)-?8-?bit", "bitsandbytes_8bit", 8, "8 bit", "bitsandbytes", 16),
        (r"bnb|bitsandbytes|nf4", "bitsandbytes", 4, "4 bit", "bitsandbytes", 16),
        (r"fp8-?block", "fp8_block", 8, "FP8 in blocks", "", 8),
        (r"fp8-?static", "fp8_static", 8, "FP8, static scales", "", 8),
        (r"fp8-?(dynamic)?|f8_e4m3", "fp8_dynamic", 8, "FP8", "", 8),
        (r"(quantized-?)?w8a8(-?int8)?", "int8_w8a8", 8, "INT8 W8A8", "compressed-tensors", 8),
        (r"(quantized-?)?w4a16", "w4a16", 4, "W4A16", "compressed-tensors", 16),
        (r"(quantized-?)?w8a16", "w8a16", 8, "W8A16", "compressed-tensors", 16),
        (r"w4a8", "w4a8", 4, "W4A8", "compressed-tensors", 8),
        (r"hqq", "hqq", None, "HQQ", "hqq", 16),
        (r"aqlm", "aqlm", None, "AQLM", "aqlm", 16),
        (r"torchao", "torchao", None, "torchao", "torchao", None),
        (r"quark", "quark", None, "Quark", "quark", None),
    )
)
_OTHER_RUNTIMES = re.compile(
    r"(^|[-_./])(mlx|openvino|onnx|coreml|exl[23]|mnn|executorch|rknn|litert|tflite|ctranslate2"
    r"|ct2|webgpu|tensorrt|trtllm|ov|mlc|q4f(16|32)(_1)?|nexa|qnn|ryzenai)(?=$|[-_./])",
    re.IGNORECASE,
)
"""Formats of programs that are not vLLM, as they stand in names and tags."""
_SUFFIX = re.compile(
    r"([-_.](awq|gptq|gguf|bnb|bitsandbytes|nf4|hqq|aqlm|torchao|quark|autoround|auto-round|quantized|int[248]"
    r"|(nv|mx)?fp[48]|[2-8]-?bits?|w\da\d+(-int8)?|g(roup)?\d+|\d+g|a?sym|dynamic|static|block|tensor|channel"
    r"|marlin|unsloth|kv|i?q\d(_[0-9k])?(_[a-z]+)?))+"
)
"""What stands behind a model's name where a quantized copy is named after it, and nothing else does."""
_BITS = re.compile(r"(?<![a-z0-9])(?:int|w)?([2-8])-?bits?(?![a-z])|(?<![a-z0-9])int([48])(?!\d)")


def for_another_runtime(name: str, tags: Iterable[str] = ()) -> bool:
    """Whether a repository's name or tags say that it is for a program other than vLLM."""
    short = name.rpartition("/")[2]
    return bool(_OTHER_RUNTIMES.search(short)) or any(map(_OTHER_RUNTIMES.fullmatch, tags))


def by_name(name: str) -> CheckpointFormat | None:
    """The method that a repository's name (``owner/NAME``) or a tag tells; None when it tells none."""
    short = name.rpartition("/")[2].lower().replace("_", "-")
    if "unquantized" in short:
        return None
    for pattern, found in _NAMES:
        if re.search(rf"(?<![a-z0-9])(?:{pattern.replace('_', '[-_]')})(?![a-z0-9])", short):
            bits = found.bits
            if bits is None and (match := _BITS.search(short)):
                bits = int(match[1] or match[2])
            return found._replace(bits=bits)
    return None


def classify(
    ref: str, config: Mapping[str, Any] | None, tags: Iterable[str] = ()
) -> tuple[CheckpointFormat, str] | None:
    """(what it is stored in, what says so): by its config, else by its tags, else by its name.

    The Hub keeps only a part of config.json: of what it has, a name may tell the rest.
    """
    stored = None if config is None else classify_quantization(config)
    named = by_name(ref)
    if stored is not None:
        if stored.method:
            return stored, "quantization_config"
        if named is not None and named.quant_method in {"", stored.quant_method}:
            named = named._replace(quant_method=stored.quant_method)
            return named, f"quantization_config ({stored.quant_method}) and its name"
        return stored, "quantization_config"
    tags = tuple(tags)
    if "gguf" in tags:
        return CheckpointFormat("gguf", None, None, "GGUF", "gguf", 16), "tag gguf"
    if named is not None:
        return named, "its name"
    for tag in tags:
        if ":" not in tag and (found := by_name(tag)) is not None:
            return found, f"tag {tag}"
    return None


def same_shape(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two configs describe models of the same architecture and dimensions, as far as both tell."""
    first, second = text_config(one), text_config(other)
    told = 0
    for key in (
        "model_type",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "intermediate_size",
        "vocab_size",
    ):
        if key in first and key in second:
            told += 1
            if first[key] != second[key]:
                return False
    return told > 1


def same_architecture(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether nothing in two configs says that they are different architectures."""
    names = [set(map(str, found)) for c in (one, other) if (found := _listed(c))]
    return len(names) < 2 or bool(names[0] & names[1])


def named_after(ref: str, base: str) -> bool:
    """Whether a repository's name is the base's with only words of quantization behind it, case aside.

    ``Model-7B-Instruct-AWQ`` is no copy of ``Model-7B``.
    """
    name, begin = ref.rpartition("/")[2].lower(), base.rpartition("/")[2].lower()
    if not begin or not name.startswith(begin):
        return False
    return _SUFFIX.fullmatch(name[len(begin) :]) is not None


def quantized_from(tags: Iterable[str]) -> tuple[str, ...]:
    """The models that a repository is a quantized copy of, by its tags on the Hub."""
    begin = "base_model:quantized:"
    return tuple(tag.removeprefix(begin) for tag in tags if tag.startswith(begin))


def ranked(
    variants: Iterable[Variant], *, publisher: str, limit: int, most_of_a_method: int = 5
) -> tuple[Variant, ...]:
    """The ``limit`` best: those on this machine, then the model's own publisher's, then by downloads.

    Of one method at most ``most_of_a_method``, so that a popular format does not hide the others.
    """

    def key(variant: Variant) -> tuple[bool, bool, int, str]:
        foreign = variant.publisher.lower() != publisher.lower() or not publisher
        return variant.source == "hub", foreign, -(variant.downloads or 0), variant.ref

    counted: Counter[str] = Counter()
    chosen: list[Variant] = []
    for variant in sorted(variants, key=key):
        method = variant.method or variant.quant_method
        if len(chosen) < limit and counted[method] < most_of_a_method:
            counted[method] += 1
            chosen.append(variant)
    return tuple(chosen)


def _listed(config: Mapping[str, Any]) -> list[Any]:
    names = config.get("architectures")
    return names if isinstance(names, list) else []


def card_bases(card: str) -> tuple[str, ...]:
    """The Hub ids under ``base_model`` in a model card's head: one, or a YAML list of them."""
    lines = card.splitlines()
    if not lines or lines[0].strip() != "---":
        return ()
    found: list[str] = []
    inside = False
    for line in lines[1:500]:
        if line.strip() == "---":
            break
        key, colon, value = line.partition(":")
        if colon and key == "base_model":
            inside = True
            found += value.strip().strip("[]").split(",")
        elif inside and line.lstrip().startswith("-"):
            found.append(line.lstrip().removeprefix("-"))
        elif line.strip() and not line.startswith(" "):
            inside = False
    names = (name.strip().strip("\"'") for name in found)
    return tuple(name for name in names if name.count("/") == 1)
