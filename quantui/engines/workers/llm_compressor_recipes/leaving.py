"""Which layers stay in 16 bit: those the recipe names, and those that are never worth quantizing."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from quantui_wire import WorkerError, notice
from streaming_merge import checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

ALWAYS = (
    r"re:(.*\.)?(gate|router|shared_expert_gate|gate\.linear|router\.\w+)$",
    r"re:(.*\.)?(vision_tower|vision_model|vision_embed_tokens|visual|audio_tower|audio_model|sam_model)(\.|$)",
    r"re:(.*\.)?(multi_modal_projector|mm_projector|connector|embed_vision|embed_audio)(\.|$)",
)
"""Routers of experts, whose choice must not move, and all that is not the language model.

llm-compressor's own examples leave them out (its examples/quantizing_moe and
examples/multimodal_vision); they are a hundredth of the weights."""


def resolve(ignore: Sequence[str], names: Iterable[str]) -> list[str]:
    """Those of ``names`` that stay: by full name, by its last parts, by a module above, or ``re:PATTERN``.

    The written config lists them by full name: readers of compressed-tensors know no other kind but
    patterns. A notice tells of entries that name nothing.
    """
    all_names = list(names)
    found: dict[str, None] = {}
    unused = []
    for entry in (*ignore, *ALWAYS):
        matched = [name for name in all_names if _names(entry, name)]
        found.update(dict.fromkeys(matched))
        if not matched and entry not in ALWAYS and entry != "lm_head":
            unused.append(entry)
    if unused:
        notice(
            f"Nothing in this model is named {', '.join(unused)}: it cannot be left in 16 bit.",
            level="warning",
        )
    return [name for name in all_names if name in found]


def refuse_bad_patterns(ignore: Sequence[str]) -> None:
    """Refuse an entry that is no regular expression.

    Raises:
        WorkerError: ``quantize.bad-pattern``.
    """
    for entry in ignore:
        try:
            re.compile(entry.removeprefix("re:") if entry.startswith("re:") else "")
        except re.error as error:
            raise WorkerError(
                "quantize.bad-pattern",
                f"{entry!r} is no regular expression.",
                str(error),
                "Correct the pattern, or name the module.",
                exit_code=2,
            ) from error


def _names(entry: str, name: str) -> bool:
    if entry.startswith("re:"):
        return re.match(entry.removeprefix("re:"), name) is not None
    return f".{entry}." in f".{name}."


def name_in_config(folder: Path) -> None:
    """Let the written config's ``ignore`` name every matrix that lies in ``folder`` in 16 bit.

    The library lists torch's Linear layers alone. A reader makes layers of other things too: vLLM of
    routers, and transformers of a head that is tied to the embedding and not stored at all.
    """
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    quantization = config["quantization_config"]
    stored = [
        tensor
        for file in checkpoint.weight_files(folder)[0]
        for tensor in checkpoint.read_shard(file).tensors
    ]
    names = {tensor.name for tensor in stored}
    wide = [
        tensor.name.removesuffix(".weight")
        for tensor in stored
        if tensor.name.endswith(".weight")
        and len(tensor.shape) == 2
        and tensor.dtype in checkpoint.MERGEABLE
        and not _names("embed_tokens", tensor.name)
    ]
    head = [] if any("lm_head." in name for name in names) else ["lm_head"]
    listed = [*(quantization.get("ignore") or ()), *head, *wide]
    quantization["ignore"] = list(dict.fromkeys(listed))
    path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def refuse_nothing(left: Sequence[str], names: Sequence[str], architecture: str) -> None:
    """Refuse a model of which nothing would be quantized.

    Raises:
        WorkerError: ``quantize.unsupported-architecture``, ``quantize.nothing-left``.
    """
    # The head alone is no model: GPT-2 has transposed layers of its own kind (Conv1D).
    if not [name for name in names if name.rpartition(".")[2] != "lm_head"]:
        raise WorkerError(
            "quantize.unsupported-architecture",
            f"{architecture} has no layers that llm-compressor can quantize.",
            "It quantizes torch's Linear; models like GPT-2 have Conv1D instead.",
            "Choose another producer (gptqmodel), or another way to hold the weights.",
            exit_code=3,
        )
    if len(left) == len(names):
        raise WorkerError(
            "quantize.nothing-left",
            "Every linear layer is to stay in 16 bit.",
            "The ignore list names them all.",
            "Take entries off the ignore list.",
            exit_code=2,
        )
