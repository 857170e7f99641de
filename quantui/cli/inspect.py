"""`quantui inspect`: what a model or an adapter is, read from its headers and configs alone."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantui.cli.output import print_json, print_rows
from quantui.cli.shape_rows import shape_json, shape_rows
from quantui.cli.variant_rows import variant_rows, variants_json
from quantui.domain.checkpoint_words import quantization_text
from quantui.domain.errors import QuantuiError
from quantui.domain.formatting import format_bytes
from quantui.domain.models import AdapterSpec, FourBitVerdict, ModelSpec

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from quantui.domain.models import TensorInfo
    from quantui.runtime.variants import VariantSearch


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("ref", metavar="REF", help="a folder, or a Hub id (owner/name)")
    parser.add_argument("--revision", help="branch, tag or commit on the Hub")
    parser.add_argument("--offline", action="store_true", help="use only what is on this machine")
    parser.add_argument(
        "--allow-pickle", action="store_true", help="accept pickled weights (they are not loaded)"
    )
    parser.add_argument(
        "--sketch",
        action="store_true",
        help="config.json is enough: weights may be missing, or be headers only",
    )
    parser.add_argument(
        "--variants",
        action="store_true",
        help="search the Hub and this machine for quantized copies",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    """Show the model or adapter; returns the exit code."""
    spec = _resolve(args)
    found = _variants(spec, offline=True if args.offline else None) if args.variants else None
    if args.json:
        more = variants_json(found) if found else {}
        told = {"merge_proof": _proof(spec) or None, "quantized": _made(spec) or None}
        print_json({**to_json(spec), **told, **more})
        return 0
    rows = _model_rows(spec) if isinstance(spec, ModelSpec) else _adapter_rows(spec)
    print_rows([*rows, *(variant_rows(found) if found else ())])
    return 0


def _variants(spec: ModelSpec | AdapterSpec, *, offline: bool | None) -> VariantSearch:
    from quantui.runtime.variants import VariantSearch, search_variants

    if isinstance(spec, AdapterSpec):
        return VariantSearch((), ("An adapter has none: ask of its base model.",))
    return search_variants(spec, offline=offline)


def to_json(spec: ModelSpec | AdapterSpec) -> dict[str, Any]:
    """The facts as JSON carries them; tensors are summed up by dtype."""
    values = dict(vars(spec))
    tensors = values.pop("tensors")
    values["kind"] = "model" if isinstance(spec, ModelSpec) else "adapter"
    values["tensor_count"] = None if tensors is None else len(tensors)
    values["bytes_by_dtype"] = None if tensors is None else _by_dtype(tensors)
    values["weight_files"] = [
        {"name": file.name, "size_bytes": file.size_bytes, "sha256": file.sha256}
        for file in spec.weight_files
    ]
    if isinstance(spec, ModelSpec):
        values |= shape_json(spec)
    if isinstance(spec, AdapterSpec):
        values["four_bit"] = {
            "answer": spec.four_bit.answer,
            "overridden": spec.four_bit.overridden,
            "conflicting": spec.four_bit.conflicting,
            "evidence": [
                {
                    "source": item.source,
                    "says_4bit": item.says_4bit,
                    "strength": item.strength,
                    "text": item.text,
                }
                for item in spec.four_bit.evidence
            ],
        }
    return values


def _proof(spec: ModelSpec | AdapterSpec) -> dict[str, Any]:
    """What the folder says of the merge that made it."""
    from quantui.runtime.made_records import read_proof

    return {} if spec.path is None else read_proof(Path(spec.path))


def _made(spec: ModelSpec | AdapterSpec) -> dict[str, Any]:
    """What the folder says of how it was quantized."""
    from quantui.runtime.made_records import read_made

    return {} if spec.path is None else read_made(Path(spec.path))


def _quantize_rows(made: dict[str, Any]) -> list[tuple[str, str]]:
    from quantui.domain.quantize_report import quantize_rows

    return [row for row in quantize_rows(made) if row[0] != "size"]


def _merge_rows(proof: dict[str, Any]) -> list[tuple[str, str]]:
    from quantui.domain.merge_report import merge_rows
    from quantui.runtime.made_records import delta_norms

    return merge_rows(proof, delta_norms(proof))


def _resolve(args: argparse.Namespace) -> ModelSpec | AdapterSpec:
    from quantui.runtime.models import resolve_adapter, resolve_model

    offline = True if args.offline else None
    try:
        return resolve_model(
            args.ref,
            args.revision,
            offline=offline,
            allow_pickle=args.allow_pickle,
            sketch=args.sketch,
        )
    except QuantuiError as error:
        if error.code != "model.is-an-adapter":
            raise
    return resolve_adapter(args.ref, args.revision, offline=offline, allow_pickle=args.allow_pickle)


def _model_rows(spec: ModelSpec) -> list[tuple[str, str]]:
    return [
        ("model", spec.ref),
        *_place_rows(spec),
        ("architecture", ", ".join(spec.architectures) or "unknown"),
        ("type", spec.model_type or "unknown"),
        *shape_rows(spec),
        ("weights", _weights(spec)),
        ("dtype", spec.dtype or "unknown"),
        ("quantization", quantization_text(spec)),
        ("context", "unknown" if spec.context_length is None else f"{spec.context_length} tokens"),
        ("tokenizer", "yes" if spec.has_tokenizer else "missing"),
        ("chat template", "yes" if spec.has_chat_template else "none"),
        ("custom code", "yes: needs trust_remote_code" if spec.custom_code else "none"),
        ("license", spec.license or "unknown"),
        *_access_rows(spec),
        ("fingerprint", spec.fingerprint),
        *_merge_rows(_proof(spec)),
        *_quantize_rows(_made(spec)),
        *_note_rows(spec.notes),
    ]


def _adapter_rows(spec: AdapterSpec) -> list[tuple[str, str]]:
    targets = spec.target_modules
    shown = targets if isinstance(targets, str) else ", ".join(targets or ())
    extras = [name for name, used in (("rslora", spec.use_rslora), ("dora", spec.use_dora)) if used]
    return [
        ("adapter", spec.ref),
        *_place_rows(spec),
        ("type", " ".join([spec.peft_type, *extras]) + f", {spec.task_type or 'no task type'}"),
        ("base", spec.base_ref or "not named"),
        ("base revision", spec.base_revision or "not named"),
        ("rank, alpha", f"{_known(spec.rank)}, {_known(spec.alpha)}"),
        ("targets", shown or "not named"),
        ("saved modules", ", ".join(spec.modules_to_save) or "none"),
        ("weights", _weights(spec)),
        ("tokenizer", "yes" if spec.has_tokenizer else "the base's"),
        ("license", spec.license or "unknown"),
        ("fingerprint", spec.fingerprint),
        *_note_rows(spec.notes),
        *_four_bit_rows(spec.four_bit),
    ]


def _place_rows(spec: ModelSpec | AdapterSpec) -> list[tuple[str, str]]:
    places = {"folder": "folder", "hub-cache": "Hub cache", "hub": "Hub, not downloaded"}
    rows = [("source", places[spec.source])]
    if spec.path is not None:
        rows.append(("path", spec.path))
    if spec.revision is not None:
        rows.append(("commit", spec.revision))
    if spec.source == "folder" and not spec.complete:
        rows.append(("complete", "no: a sketch"))
    elif not spec.complete:
        files = len(spec.missing_files)
        rows.append(("to download", f"{format_bytes(spec.download_bytes)} in {files} files"))
    return rows


def _access_rows(spec: ModelSpec) -> list[tuple[str, str]]:
    """Whether the Hub asks for something before a download; nothing where it was not asked."""
    if spec.gated is None:
        return []
    kinds = {
        "auto": "gated: accept its terms on the Hub",
        "manual": "gated: ask its owner on the Hub",
    }
    return [("access", kinds.get(str(spec.gated), "gated") if spec.gated else "open")]


def _four_bit_rows(verdict: FourBitVerdict) -> list[tuple[str, str]]:
    answer = {True: "yes", False: "no", None: "unknown"}[verdict.answer]
    if verdict.overridden:
        answer += " (your word)"
    elif verdict.conflicting:
        answer += " (the evidence is contradictory)"
    rows = [("4-bit training", answer)]
    for item in verdict.evidence:
        says = "yes" if item.says_4bit else "no"
        rows.append(("", f"{item.strength} {says}: {item.source}: {item.text}"))
    if not verdict.evidence:
        rows.append(("", "no evidence in its files, its base's config or its card"))
    return rows


def _weights(spec: ModelSpec | AdapterSpec) -> str:
    files = len(spec.weight_files)
    if spec.weight_bytes is None:
        return "not here"
    if isinstance(spec, ModelSpec) and spec.tensors is None and not spec.complete:
        return f"{format_bytes(spec.weight_bytes)}, {files} files of them here"
    text = f"{format_bytes(spec.weight_bytes)} in {files} file{'s' if files != 1 else ''}"
    if spec.tensors is None:
        return text + ", pickled"
    kinds = ", ".join(_by_dtype(spec.tensors))
    return f"{text}, {len(spec.tensors)} tensors ({kinds})"


def _note_rows(notes: tuple[str, ...]) -> list[tuple[str, str]]:
    return [("note", note) for note in notes]


def _by_dtype(tensors: Iterable[TensorInfo]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for tensor in tensors:
        total[tensor.dtype] += tensor.nbytes
    return dict(total.most_common())


def _known(value: float | None) -> str:
    return "unknown" if value is None else f"{value:g}"
