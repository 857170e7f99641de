"""Does an adapter belong to a base? Its tensors' shapes against those of the base, before any work.

Only what is certain is refused. PEFT and transformers rename modules while loading (fused experts,
multimodal prefixes), so whatever their mapping must decide passes with a note.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantui.domain.architecture.config_view import text_config
from quantui.domain.errors import ExitCode, QuantuiError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from quantui.domain.models import AdapterSpec, ModelSpec, TensorInfo

UNMERGEABLE_TYPES = frozenset(
    {
        "PROMPT_TUNING",
        "MULTITASK_PROMPT_TUNING",
        "P_TUNING",
        "PREFIX_TUNING",
        "ADAPTION_PROMPT",
        "CPT",
        "CARTRIDGE",
        "XLORA",
        "POLY",
    }
)
"""PEFT types that add tokens, or choose between adapters, at run time: nothing to fold in."""

_FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
_PREFIXES = ("base_model.model.", "base_model.")
_LORA = re.compile(
    r"^(?P<module>.+)\.(?:lora_(?P<half>[AB])(?:\.[^.]+)?\.weight"
    r"|lora_embedding_(?P<table>[AB])(?:\.[^.]+)?)$"
)
_LAYER = re.compile(r"(?:^|\.)(?P<list>layers|h|blocks|block|layer)\.(?P<index>\d+)\.(?P<rest>.+)$")
_EXPERTS = re.compile(r"(^|\.)(experts|block_sparse_moe|moe)(\.|$)")
_TOWER = re.compile(r"vis|image|audio")
_READS_HIDDEN = (".q_proj", ".k_proj", ".v_proj", ".gate_proj", ".up_proj")
_FUSED = {
    "q_proj": ("qkv_proj", "Wqkv", "query_key_value", "c_attn", "W_pack"),
    "k_proj": ("qkv_proj", "Wqkv", "query_key_value", "c_attn", "W_pack"),
    "v_proj": ("qkv_proj", "Wqkv", "query_key_value", "c_attn", "W_pack"),
    "gate_proj": ("gate_up_proj",),
    "up_proj": ("gate_up_proj",),
}


@dataclass(frozen=True, slots=True)
class AdapterFit:
    """What was compared: modules found with fitting shapes, and notes on what was left to PEFT."""

    matched: int
    undecided: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Target:
    """One LoRA pair: the module and the base weight's shape (rows, columns) that it implies."""

    module: str
    tensor: str
    rows: int
    columns: int
    embedding: bool


def base_of(adapter: AdapterSpec) -> str:
    """The base that the adapter names. Raises ``adapter.no-base`` when it names none."""
    if adapter.base_ref is None:
        raise QuantuiError(
            "adapter.no-base",
            f"{adapter.ref} does not say which model it was trained on.",
            "base_model_name_or_path is empty in its adapter_config.json.",
            "Give the base model yourself.",
        )
    return adapter.base_ref


def check_adapter_fits(model: ModelSpec, adapter: AdapterSpec) -> AdapterFit:
    """Compare the adapter's tensors with the base's; a mismatch that is certain is refused.

    Raises QuantuiError ``adapter.unmergeable`` (prompt and prefix types), ``adapter.damaged`` (an A
    without its B, ranks that differ) and ``adapter.other-base``, which names one tensor with the
    shape expected and the shape found.
    """
    if adapter.peft_type in UNMERGEABLE_TYPES:
        raise QuantuiError(
            "adapter.unmergeable",
            f"{adapter.ref} is of the type {adapter.peft_type}, which cannot be merged.",
            "It adds virtual tokens or run-time choices, not a change of weights. vLLM serves LoRA "
            "adapters only.",
            "Train a LoRA adapter instead, or run this one with PEFT and transformers.",
            ExitCode.DOES_NOT_FIT,
        )
    if adapter.peft_type != "LORA":
        return AdapterFit(0, notes=(f"{adapter.peft_type}: PEFT decides whether it fits",))
    if adapter.tensors is None or model.tensors is None:
        return AdapterFit(0, notes=("pickled weights: the shapes are not known before loading",))
    targets = _targets(adapter)
    base = _Base(model)
    matched = 0
    undecided: list[str] = []
    notes: list[str] = []
    for target in targets:
        found = base.find(target.module)
        if found is None:
            base.refuse_absent_layer(model, adapter, target)
            undecided.append(target.module)
            continue
        note = _compare(model, adapter, target, found)
        if note is None:
            matched += 1
        elif note not in notes:
            notes.append(note)
    if undecided and not matched and not notes:
        _refuse_unknown(model, adapter, base, undecided)
    if undecided:
        notes.append(
            f"{len(undecided)} modules are named differently in the base, "
            f"{undecided[0]!r} first: PEFT's mapping decides"
        )
    return AdapterFit(matched, tuple(undecided), tuple(notes))


class _Base:
    """The base's tensors, found by a module's full name or by its unambiguous end."""

    def __init__(self, model: ModelSpec) -> None:
        assert model.tensors is not None
        self.by_name = {tensor.name: tensor for tensor in model.tensors}
        self.tied = bool(model.config.get("tie_word_embeddings"))
        self._by_end: dict[str, list[TensorInfo]] = defaultdict(list)
        self.layers: dict[str, set[int]] = defaultdict(set)
        for tensor in model.tensors:
            self._by_end[_end(tensor.name.removesuffix(".weight"))].append(tensor)
            if layer := _LAYER.search(tensor.name):
                self.layers[layer["rest"].rsplit(".", 1)[0]].add(int(layer["index"]))

    def find(self, module: str) -> TensorInfo | None:
        """The weight of ``module``; None when no name, or more than one, can be its."""
        exact = self.by_name.get(f"{module}.weight")
        if exact is not None:
            return exact
        candidates = [t for t in self._by_end[_end(module)] if t.name.endswith(".weight")]
        if len(candidates) == 1:
            return candidates[0]
        if module.endswith("lm_head") and not candidates:
            tables = self._by_end["embed_tokens"]
            return tables[0] if len(tables) == 1 else None
        return None

    def refuse_absent_layer(self, model: ModelSpec, adapter: AdapterSpec, target: _Target) -> None:
        """Refuse a layer beyond the last, when the same module exists in the base's layers."""
        layer = _LAYER.search(target.module)
        if layer is None or not (known := self.layers.get(layer["rest"])):
            return
        index = int(layer["index"])
        if index > max(known):
            raise _other_base(
                model,
                adapter,
                f"{target.tensor} is for layer {index}; the base's last layer with "
                f"{layer['rest']} is {max(known)}.",
            )


def _end(module: str) -> str:
    # From the layer list on, names are the same under every prefix (model., language_model.model.,
    # transformer.); outside the layers the last part has to do.
    layer = _LAYER.search(module)
    if layer is None:
        return module.rsplit(".", 1)[-1]
    tower = "tower." if _TOWER.search(module[: layer.start()]) else ""
    return f"{tower}{layer['list']}.{layer['index']}.{layer['rest']}"


def _targets(adapter: AdapterSpec) -> list[_Target]:
    halves: dict[tuple[str, bool], dict[str, TensorInfo]] = defaultdict(dict)
    for tensor in adapter.tensors or ():
        found = _LORA.match(_strip(tensor.name))
        if found is not None and len(tensor.shape) == 2:
            embedding = found["table"] is not None
            halves[found["module"], embedding][found["half"] or found["table"]] = tensor
    targets = []
    for (module, embedding), pair in halves.items():
        if _EXPERTS.search(module):
            continue
        if set(pair) != {"A", "B"}:
            half = next(iter(pair.values()))
            raise _damaged(adapter, f"{half.name} has no counterpart: A and B belong together.")
        a, b = pair["A"].shape, pair["B"].shape
        if a[0] != b[1]:
            raise _damaged(
                adapter,
                f"The ranks of {module} differ: A is {_shape(a)} and B is {_shape(b)}.",
            )
        # An embedding's pair is (rank, vocabulary) and (hidden, rank), for a table of
        # (vocabulary, hidden): PEFT transposes the product.
        rows, columns = (a[1], b[0]) if embedding else (b[0], a[1])
        targets.append(_Target(module, pair["A"].name, rows, columns, embedding))
    return targets


def _compare(
    model: ModelSpec, adapter: AdapterSpec, target: _Target, base: TensorInfo
) -> str | None:
    """None when the shapes fit, a note when they cannot be told apart; refuses what cannot fit."""
    if base.dtype not in _FLOATS or len(base.shape) != 2:
        hidden = text_config(model.config).get("hidden_size")
        if (
            isinstance(hidden, int)
            and target.columns != hidden
            and target.module.endswith(_READS_HIDDEN)
            and not _TOWER.search(target.module)
        ):
            raise _other_base(
                model,
                adapter,
                f"{target.tensor} reads {target.columns} values; the base's hidden_size is "
                f"{hidden}.",
            )
        return f"{base.name} is packed or not a matrix ({base.dtype}): its shape is not compared"
    wanted, found = (target.rows, target.columns), base.shape
    if found == wanted:
        return None
    if found == wanted[::-1] and (adapter.config.get("fan_in_fan_out") or _is_transposed(model)):
        return None
    vocabulary = target.embedding or target.module.endswith(("lm_head", "embed_tokens"))
    if vocabulary and found[1] == wanted[1]:
        return (
            f"the adapter's vocabulary of {wanted[0]} is not the base's {found[0]}: "
            "the embedding has been resized"
        )
    raise _other_base(
        model,
        adapter,
        f"{target.tensor} is for a weight of shape {_shape(wanted)}; {base.name} of the base has "
        f"{_shape(found)}.",
    )


def _is_transposed(model: ModelSpec) -> bool:
    # transformers' Conv1D keeps weights as (in, out); PEFT sets fan_in_fan_out for it by itself.
    return model.model_type in {"gpt2", "openai-gpt", "imagegpt", "decision_transformer", "ctrl"}


def _refuse_unknown(
    model: ModelSpec, adapter: AdapterSpec, base: _Base, undecided: list[str]
) -> None:
    names = {module.rsplit(".", 1)[-1] for module in undecided}
    parts = {part for name in base.by_name for part in name.split(".")}
    if names & parts or any(parts.intersection(_FUSED.get(name, ())) for name in names):
        return
    if model.quantization is not None or any(_EXPERTS.search(name) for name in base.by_name):
        return
    raise _other_base(
        model,
        adapter,
        f"None of its {len(undecided)} modules ({_listed(names)}) exists in the base.",
    )


def _other_base(model: ModelSpec, adapter: AdapterSpec, why: str) -> QuantuiError:
    own = f" It was trained on {adapter.base_ref}." if adapter.base_ref else ""
    return QuantuiError(
        "adapter.other-base",
        f"{adapter.ref} was not made for {model.ref}.",
        why,
        f"Give the base it was trained on.{own}",
    )


def _damaged(adapter: AdapterSpec, why: str) -> QuantuiError:
    return QuantuiError(
        "adapter.damaged",
        f"The weights of {adapter.ref} are damaged or incomplete.",
        why,
        "Save or download the adapter again.",
    )


def _strip(name: str) -> str:
    for prefix in _PREFIXES:
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return name


def _shape(shape: tuple[int, ...]) -> str:
    return "[" + ", ".join(map(str, shape)) + "]"


def _listed(names: Iterable[str]) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:5]) + (" ..." if len(ordered) > 5 else "")
