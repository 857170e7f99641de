"""Which of a checkpoint's files are the weights, and which of the rest are worth having."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantui.domain.checkpoint_facts import is_content

if TYPE_CHECKING:
    from collections.abc import Iterable

INDEX = "model.safetensors.index.json"
PICKLE_INDEX = "pytorch_model.bin.index.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_PICKLE = "adapter_model.bin"

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_TRAINER_STATE = re.compile(
    r"(optimizer|scheduler|scaler|rng_state.*|training_args|random_states.*|.*_optim_states"
    r"|zero_to_fp32|trainer_state)\.[a-z]+$"
)
_DOCUMENTS = ("README.md", "LICENSE", "LICENSE.txt", "LICENSE.md", "NOTICE", "NOTICE.txt")
_TRAINING_FILES = re.compile(
    r"(.*\.ya?ml|(training_|sft_)?args\.json|training_(args\.bin|params\.json|config\.json)"
    r"|hyperparam(eter)?s\.json|README\.md)"
)


@dataclass(frozen=True, slots=True)
class WeightChoice:
    """``kind``: ``safetensors``, ``pickle``, ``gguf``, ``adapter`` or ``none``; the files' names.

    An ``index`` must be read for the names of the shards.
    """

    kind: str
    names: tuple[str, ...] = ()
    index: str | None = None


def choose_model_weights(names: Iterable[str]) -> WeightChoice:
    """The weights that transformers and vLLM load when a folder holds several kinds.

    ``model.safetensors`` comes before an index, an index before loose shards, and Mistral's
    ``consolidated`` copies only count when they are alone.
    """
    top = sorted(name for name in names if "/" not in name)
    tensors = [n for n in top if n.endswith(".safetensors") and not n.startswith("adapter_")]
    if "model.safetensors" in tensors:
        return WeightChoice("safetensors", ("model.safetensors",))
    if INDEX in top:
        return WeightChoice("safetensors", (), INDEX)
    own = [name for name in tensors if not name.startswith("consolidated")]
    if own or tensors:
        return WeightChoice("safetensors", tuple(own or tensors))
    pickles = [n for n in top if n.endswith(_PICKLES) and not _TRAINER_STATE.match(n)]
    pickles = [n for n in pickles if n != ADAPTER_PICKLE]
    if pickles:
        standard = [name for name in pickles if name.startswith("pytorch_model")]
        return WeightChoice("pickle", tuple(standard or pickles))
    ggufs = tuple(name for name in top if name.endswith(".gguf"))
    if ggufs:
        return WeightChoice("gguf", ggufs)
    return WeightChoice("adapter" if "adapter_config.json" in top else "none")


def choose_adapter_weights(names: Iterable[str]) -> WeightChoice:
    """The weights PEFT loads: ``adapter_model.safetensors`` before ``adapter_model.bin``."""
    known = set(names)
    if ADAPTER_WEIGHTS in known:
        return WeightChoice("safetensors", (ADAPTER_WEIGHTS,))
    if ADAPTER_PICKLE in known:
        return WeightChoice("pickle", (ADAPTER_PICKLE,))
    return WeightChoice("none")


def wanted_files(names: Iterable[str], weights: Iterable[str], *, adapter: bool) -> tuple[str, ...]:
    """The files a download fetches: weights, what takes part in the model, card and licence.

    Other copies of the weights (pickles, GGUF, ONNX, ``original/``) stay on the Hub. For adapters
    the files of the training come along: they tell whether it was done in 4 bit.
    """
    chosen = set(weights)
    return tuple(
        name
        for name in sorted(names)
        if name in chosen
        or ((is_content(name) or name in _DOCUMENTS) and _is_near(name))
        or (adapter and _TRAINING_FILES.fullmatch(name) is not None and "/" not in name)
    )


def content_files(names: Iterable[str], weights: Iterable[str]) -> tuple[str, ...]:
    """The files whose bytes make up the fingerprint."""
    chosen = set(weights)
    return tuple(n for n in sorted(names) if n in chosen or (is_content(n) and _is_near(n)))


def is_training_file(name: str) -> bool:
    """Whether a file beside an adapter may tell how it was trained."""
    return "/" not in name and _TRAINING_FILES.fullmatch(name) is not None


def _is_near(name: str) -> bool:
    folder, _, base = name.rpartition("/")
    return bool(base) and folder in {"", "additional_chat_templates"}
