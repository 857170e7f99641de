"""Was an adapter trained in 4 bit (QLoRA)? Signs are gathered elsewhere and weighed here.

It matters because such an adapter has learnt to correct the errors of a quantized base, and because
its ``base_model_name_or_path`` may name a 4-bit copy, into which nothing should be merged.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from quantui.domain.models import Evidence, FourBitVerdict

MAX_QUOTE = 120
"""Characters of a file that are quoted as evidence."""


@dataclass(frozen=True)
class TrainingMaterial:
    """What was found about a training.

    ``texts`` are files by name (YAML, JSON, the model card); ``binaries`` pickles, read as bytes
    and never unpickled; ``base_config`` is the config.json of the base it was trained on.
    """

    name: str
    adapter_config: Mapping[str, Any] = field(default_factory=dict)
    base_config: Mapping[str, Any] | None = None
    texts: Mapping[str, str] = field(default_factory=dict)
    binaries: Mapping[str, bytes] = field(default_factory=dict)
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Setting:
    """A training setting; ``yes`` and ``no`` match its value in full, lower case."""

    key: str
    yes: str
    no: str
    no_strength: Literal["strong", "weak"] = "strong"


_SETTINGS = (
    # bitsandbytes through transformers, TRL, axolotl, unsloth.
    _Setting("load_in_4bit", "true|yes|1", "false|no|0"),
    _Setting("load_in_8bit", "(?!)", "true|yes|1"),
    _Setting("use_4bit", "true|yes|1", "false|no|0"),
    # axolotl; "lora" alone may still go with load_in_4bit.
    _Setting("adapter", "qlora", "lora", "weak"),
    # LLaMA-Factory.
    _Setting("quantization_bit", "4", "8|null|none|~", "strong"),
    # ms-swift.
    _Setting("quant_bits", "4", "8"),
    # torchtune's QLoRA recipes.
    _Setting("quantize_base", "true", "false"),
    # H2O LLM Studio.
    _Setting("backbone_dtype", "int4", "int8|float16|bfloat16|float32"),
    # AutoTrain.
    _Setting("quantization", "int4|4bit|nf4", "int8"),
    # LitGPT.
    _Setting("quantize", r"bnb\.(nf4|fp4)(-dq)?", r"bnb\.int8(-training)?"),
    # NVIDIA NeMo.
    _Setting("peft_scheme", "qlora", "lora", "weak"),
)
_BY_KEY = {setting.key: setting for setting in _SETTINGS}
_LINE = re.compile(
    r"^[ \t>]*(?:[-*][ \t]+)?[\"'`_]?(?P<key>[A-Za-z_0-9]+)[\"'`]?[ \t]*:[ \t]*"
    r"(?P<value>[^#\n,]*)",
    re.MULTILINE,
)
_CODE_4BIT = re.compile(r"load_in_4bit\s*=\s*True|bnb_4bit_quant_type\s*=", re.IGNORECASE)
_WORDS_4BIT = re.compile(r"\bQLoRA\b|\b4[- ]?bit\b|\bnf4\b", re.IGNORECASE)
_NAME_4BIT = re.compile(
    r"(bnb|[-_.])4[-_]?bit|[-_]int4\b|[-_.]nf4|[-_.](gptq|awq)\b", re.IGNORECASE
)
_NAME_8BIT = re.compile(r"8[-_]?bit|int8", re.IGNORECASE)
_CARD_BASE = re.compile(
    r"^(?:base_model:[ \t]*(?:\n[ \t]*-[ \t]*)?|.{0,10}Finetuned from model[ *:]*)"
    r"(?P<name>[^\s\]\)]+)",
    re.MULTILINE,
)
_PICKLED_BIT_4 = re.compile(rb"quantization_bit\x94?(?:h.|\x8c.)?K\x04", re.DOTALL)
_FOUR_BIT_SUFFIX = re.compile(
    r"(-unsloth)?-bnb-4bit$|[-_]4bit$|-GPTQ-Int4$|-(GPTQ|AWQ)(-INT4)?$", re.IGNORECASE
)
_UPSTREAM = (
    # Owners whose checkpoint names the mirrors keep unchanged.
    (re.compile(r"Qwen|QwQ"), "Qwen"),
    (re.compile(r"(Meta-)?Llama-3"), "meta-llama"),
    (re.compile(r"gemma-"), "google"),
    (re.compile(r"DeepSeek-"), "deepseek-ai"),
)


def judge(material: TrainingMaterial, override: bool | None = None) -> FourBitVerdict:
    """Weigh the signs: strong ones outrank weak ones, and a contradiction leaves it unknown.

    ``override`` is the user's word: it becomes the answer, the evidence stays beside it.
    """
    evidence = tuple(dict.fromkeys(_signs(material)))
    if override is not None:
        return FourBitVerdict(override, evidence, overridden=True)
    for strength in ("strong", "weak"):
        says = {item.says_4bit for item in evidence if item.strength == strength}
        if says:
            return FourBitVerdict(says.pop() if len(says) == 1 else None, evidence)
    return FourBitVerdict(None, evidence)


def sixteen_bit_candidates(name: str) -> tuple[str, ...]:
    """Hub ids that a 4-bit checkpoint of this name was probably made from, the likeliest first.

    A rule about names, not a fact: mirrors such as unsloth keep the 16-bit checkpoint under the
    same name without the suffix, and the upstream owner often has it under that name too.
    """
    owner, slash, repository = name.rpartition("/")
    base = _FOUR_BIT_SUFFIX.sub("", repository)
    if base == repository or not base or not slash or "/" in owner or not owner.strip(".~"):
        return ()
    upstream = [known for pattern, known in _UPSTREAM if pattern.match(base)]
    return tuple(dict.fromkeys(f"{who}/{base}" for who in (owner, *upstream)))


def sixteen_bit_base(name: str) -> str | None:
    """The first of :func:`sixteen_bit_candidates`; None when the name is not of a 4-bit copy."""
    candidates = sixteen_bit_candidates(name)
    return candidates[0] if candidates else None


def names_4bit(name: str) -> bool:
    """Whether a checkpoint's name says that it is stored in 4 bit."""
    return bool(_NAME_4BIT.search(name)) and not _NAME_8BIT.search(name)


def _signs(material: TrainingMaterial) -> Iterator[Evidence]:
    yield from _adapter_config_signs(material.adapter_config)
    if material.base_config is not None:
        yield from _quantization_signs(material.base_config, "the base's config.json")
    for name, text in sorted(material.texts.items()):
        yield from _card_signs(name, text) if name.endswith(".md") else _file_signs(name, text)
    for name, content in sorted(material.binaries.items()):
        yield from _binary_signs(name, content)
    for tag in material.tags:
        yield from _tag_signs(tag)
    if re.search(r"qlora|4[-_]?bit", material.name, re.IGNORECASE):
        yield Evidence("name", True, "weak", _quote(material.name))


def _adapter_config_signs(config: Mapping[str, Any]) -> Iterator[Evidence]:
    source = "adapter_config.json"
    base = config.get("base_model_name_or_path")
    if isinstance(base, str) and names_4bit(base):
        yield Evidence(source, True, "strong", _quote(f"base_model_name_or_path: {base}"))
    yield from _quantization_signs(config, source)
    loftq = config.get("loftq_config")
    if isinstance(loftq, Mapping) and "loftq_bits" in loftq:
        bits = loftq["loftq_bits"]
        yield Evidence(source, bits == 4, "strong", _quote(f"loftq_bits: {bits}"))
    elif config.get("init_lora_weights") == "loftq":
        yield Evidence(source, True, "weak", "init_lora_weights: loftq")
    if config.get("use_qalora") is True:
        yield Evidence(source, True, "strong", "use_qalora: true")


def _quantization_signs(config: Mapping[str, Any], source: str) -> Iterator[Evidence]:
    stored = config.get("quantization_config")
    if not isinstance(stored, Mapping):
        return
    if stored.get("load_in_4bit") or stored.get("_load_in_4bit"):
        yield Evidence(source, True, "strong", "quantization_config.load_in_4bit: true")
    elif stored.get("load_in_8bit") or stored.get("_load_in_8bit"):
        yield Evidence(source, False, "strong", "quantization_config.load_in_8bit: true")
    elif isinstance(bits := stored.get("bits"), int):
        method = stored.get("quant_method", "unknown method")
        text = f"quantization_config.bits: {bits} ({method})"
        yield Evidence(source, bits == 4, "strong", _quote(text))


def _file_signs(name: str, text: str) -> Iterator[Evidence]:
    if name.endswith(".json"):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return
        yield from _json_signs(name, value)
        return
    for found in _LINE.finditer(text):
        yield from _setting_signs(name, found["key"], found["value"])


def _json_signs(name: str, value: object) -> Iterator[Evidence]:
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            for key, inner in item.items():
                if isinstance(inner, dict | list):
                    pending.append(inner)
                else:
                    yield from _setting_signs(name, key, json.dumps(inner))
        elif isinstance(item, list):
            pending.extend(inner for inner in item if isinstance(inner, dict | list))


def _card_signs(name: str, text: str) -> Iterator[Evidence]:
    bases = [found["name"] for found in _CARD_BASE.finditer(text) if names_4bit(found["name"])]
    signs = [Evidence(name, True, "strong", _quote(f"base model: {base}")) for base in bases]
    for found in _LINE.finditer(text):
        signs.extend(_setting_signs(name, found["key"], found["value"]))
    yield from signs
    if signs:
        return
    # What a card says about loading the model is no proof of how it was trained.
    for pattern in (_CODE_4BIT, _WORDS_4BIT):
        if words := pattern.search(text):
            begin = text.rfind("\n", 0, words.start()) + 1
            line = text[begin:].split("\n", 1)[0]
            yield Evidence(name, True, "weak", _quote(line))


def _setting_signs(name: str, key: str, value: str) -> Iterator[Evidence]:
    setting = _BY_KEY.get(key)
    if setting is None:
        return
    plain = value.strip().strip("\"'`").strip().lower()
    quote = _quote(f"{key}: {value}")
    if re.fullmatch(setting.yes, plain):
        yield Evidence(name, True, "strong", quote)
    elif re.fullmatch(setting.no, plain):
        yield Evidence(name, False, setting.no_strength, quote)


def _binary_signs(name: str, content: bytes) -> Iterator[Evidence]:
    if _PICKLED_BIT_4.search(content):
        yield Evidence(name, True, "weak", "holds quantization_bit followed by 4 (not unpickled)")
    elif b"load_in_4bit\x94\x88" in content or b"load_in_4bit\x88" in content:
        yield Evidence(name, True, "weak", "holds load_in_4bit followed by true (not unpickled)")
    if b"paged_adamw" in content:
        text = "names a paged optimizer, which QLoRA recipes use (not unpickled)"
        yield Evidence(name, True, "weak", text)


def _tag_signs(tag: str) -> Iterator[Evidence]:
    source = "tags"
    if tag.startswith("base_model:"):
        if names_4bit(tag):
            yield Evidence(source, True, "strong", _quote(tag))
    elif tag.lower() in {"qlora", "4-bit", "4bit", "bitsandbytes", "nf4"}:
        yield Evidence(source, True, "weak", _quote(tag))
    elif tag.lower() in {"8-bit", "8bit"}:
        yield Evidence(source, False, "weak", _quote(tag))


def _quote(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MAX_QUOTE else line[: MAX_QUOTE - 1] + "…"
