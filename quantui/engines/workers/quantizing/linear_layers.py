"""Which layers of a loaded model a producer quantizes, for those that quantize torch's Linear alone."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from quantui_wire import WorkerError, notice

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

NEVER = (
    r"re:(.*\.)?(gate|router|shared_expert_gate|gate\.linear|router\.\w+)$",
    r"re:(.*\.)?(vision_tower|vision_model|vision_embed_tokens|visual|audio_tower|audio_model|sam_model)(\.|$)",
    r"re:(.*\.)?(multi_modal_projector|mm_projector|connector|embed_vision|embed_audio)(\.|$)",
)
"""Routers of experts, whose choice must not move, and all that is not the language model."""

MOST = 0.5
"""The least share of the matrices' values, heads and embeddings apart, that must lie in Linear layers."""


def quantizable(model: Any) -> dict[str, Any]:  # noqa: ANN401 - transformers has no stubs
    """Linear layers by name, in the model's order; Conv1D (GPT-2) is one too."""
    import torch
    from transformers.pytorch_utils import Conv1D

    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, (torch.nn.Linear, Conv1D))
    }


def left(ignore: Sequence[str], names: Iterable[str], producer: str) -> list[str]:
    """Those of ``names`` that stay in 16 bit: named whole, by their last parts, by a module above, or by
    ``re:PATTERN``. The head always stays: its 4-bit copy is what readers of these formats do not know.

    Raises:
        WorkerError: ``quantize.bad-pattern``, ``quantize.nothing-left``.
    """
    every = list(names)
    found: set[str] = set()
    unused = []
    for entry in dict.fromkeys((*ignore, *HEADS, *NEVER)):
        matched = [name for name in every if _names(entry, name)]
        found.update(matched)
        if not matched and entry not in (*HEADS, *NEVER):
            unused.append(entry)
    if unused:
        notice(
            f"Nothing in this model is named {', '.join(unused)}: it cannot be left in 16 bit.",
            level="warning",
        )
    if every and len(found) == len(every) and any(not _is_head(name) for name in every):
        raise WorkerError(
            "quantize.nothing-left",
            f"{producer} is to leave every linear layer in 16 bit.",
            "The ignore list names them all.",
            "Take entries off the ignore list.",
            exit_code=2,
        )
    return [name for name in every if name in found]


HEADS = ("lm_head", "score", "classifier")


def refuse_unquantizable(model: Any, producer: str) -> None:  # noqa: ANN401
    """Refuse a model most of whose weights lie in no Linear layer, such as experts fused into one tensor.

    Raises:
        WorkerError: ``quantize.unsupported-architecture``.
    """
    import torch

    linear = {
        id(module.weight)
        for name, module in quantizable(model).items()
        if not _is_head(name) and type(module) is torch.nn.Linear
    }
    apart = {
        id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)
    }
    matrices = [
        (name, tensor)
        for name, tensor in model.named_parameters()
        if tensor.dim() > 1 and id(tensor) not in apart and not _is_head(name.rpartition(".")[0])
    ]
    total = sum(tensor.numel() for _, tensor in matrices)
    within = sum(tensor.numel() for _, tensor in matrices if id(tensor) in linear)
    if total and within >= MOST * total:
        return
    other = max(
        ((name, tensor) for name, tensor in matrices if id(tensor) not in linear),
        key=lambda one: one[1].numel(),
        default=("none", None),
    )[0]
    raise WorkerError(
        "quantize.unsupported-architecture",
        f"{producer} cannot quantize most of {type(model).__name__}.",
        f"It quantizes torch's Linear layers, and they hold {within / total if total else 0:.0%} of the "
        f"matrices here; {other} is none, for one.",
        "Choose another method or producer: llm-compressor takes experts apart (w4a16, gptq), and "
        "gptqmodel knows GPT-2's Conv1D.",
        exit_code=3,
    )


def _is_head(name: str) -> bool:
    return name.rpartition(".")[2] in HEADS


def _names(entry: str, name: str) -> bool:
    if not entry.startswith("re:"):
        return f".{entry}." in f".{name}."
    try:
        return re.match(entry.removeprefix("re:"), name) is not None
    except re.error as error:
        raise WorkerError(
            "quantize.bad-pattern",
            f"{entry!r} is no regular expression.",
            str(error),
            "Correct the pattern, or name the module.",
            exit_code=2,
        ) from error
