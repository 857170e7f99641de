"""Adapters that bring an output head of their own: classifiers trained on a language model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from streaming_merge.adapter_files import AdapterFile
    from streaming_merge.checkpoint import Checkpoint
    from streaming_merge.drafting import Draft
    from streaming_merge.placement import Places

CLASSES = {"SEQ_CLS": "ForSequenceClassification", "TOKEN_CLS": "ForTokenClassification"}
"""PEFT's task types whose models have a head that a language model lacks, and how transformers ends the
names of their classes."""

_LANGUAGE_MODEL = "ForCausalLM"


def is_added_head(adapter: AdapterFile, name: str, places: Places, base: Mapping[str, Any]) -> bool:
    """Whether the adapter's whole tensor ``name`` is of a head that the base does not have."""
    module = name.rpartition(".")[0]
    return (
        adapter.config.get("task_type") in CLASSES
        and _architecture(base).endswith(_LANGUAGE_MODEL)
        and "." not in module
        and places.shape(name) is None
    )


def add_head(draft: Draft, adapter: AdapterFile, tensors: Sequence[str], base: Checkpoint) -> None:
    """Make a language model the classifier that was trained: its class, its labels, no other head.

    ``tensors`` are the head's, by their names in the adapter's file. The labels' names are in no file
    of an adapter: they are numbered, as transformers does by itself.
    """
    rows = max(adapter.tensors[name].shape[0] for name in tensors)
    labels = [f"LABEL_{number}" for number in range(rows)]
    architecture = _architecture(base.config).removesuffix(_LANGUAGE_MODEL)
    architecture += CLASSES[str(adapter.config["task_type"])]
    draft.config |= {
        "architectures": [architecture],
        "id2label": {str(number): label for number, label in enumerate(labels)},
        "label2id": {label: number for number, label in enumerate(labels)},
    }
    draft.dropped |= {"lm_head.weight", "lm_head.bias"} & set(base.tensors)
    draft.notices.append(
        f"The adapter brings a head of {rows} classes: the result is a {architecture}."
    )


def _architecture(base: Mapping[str, Any]) -> str:
    return str((base.get("architectures") or [""])[0])
