"""`quantui methods`: the catalogue, or all that is known of one method with where it is known from."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from quantui.cli.output import console, print_json, print_rows
from quantui.domain.methods import Statement, method, methods
from quantui.domain.producing.producers import makings_of
from quantui.domain.support.method_findings import dotted

if TYPE_CHECKING:
    import argparse

    from quantui.domain.methods import Method
    from quantui.domain.producing.producers import Making

_VERSIONS = {
    "min_compute_capability", "max_compute_capability", "weight_only_below", "plugin_since", "since", "until",
    "deprecated_since",
}  # fmt: skip
_HIDDEN = {"name", "sources", "older_arguments", "older_min_compute_capability", "source"}
_STATUS = {
    "current": "yes",
    "retired": "going",
    "other-runtime": "no",
    "training": "no",
    "research": "no",
}
_LEGEND = (
    "bits: weights/activations. GPU: compute capability; below `native` the weights",
    "are only stored so. made: while loading, or beforehand and stored; * quantui",
    "makes the stored one (`quantui quantize`).",
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("name", nargs="?", help="show all that is known of this one")
    parser.add_argument(
        "--all", action="store_true", help="with what vLLM has dropped or does not serve"
    )
    parser.add_argument("--json", action="store_true", help="as JSON, with every source")


def run(args: argparse.Namespace) -> int:
    """List the methods, or show one."""
    if args.name:
        chosen = method(args.name)
        if args.json:
            print_json(as_json(chosen))
        else:
            print_rows([*_facts(chosen)])
        return 0
    listed = [one for one in methods().values() if args.all or one.status in ("current", "plugin")]
    if args.json:
        print_json([as_json(one) for one in listed])
    else:
        _print_table(listed)
    return 0


def as_json(entry: Method) -> dict[str, Any]:
    """Every field; versions and compute capabilities as texts, ``sources`` by field."""
    result = {field.name: _plain(field.name, getattr(entry, field.name)) for field in fields(entry)}
    result["sources"] = dict(entry.sources)
    result["quantui_makes"] = [_making(one) for one in makings_of(entry.name)]
    return result


def _making(one: Making) -> dict[str, Any]:
    """How one producer makes it; of each list the first is the default."""
    return {
        "method": one.method,
        "producer": one.producer,
        "writes": {str(bits): name for bits, name in one.writes.items()},
        "bits": list(one.bits),
        "group_sizes": list(one.groups),
        "symmetric": list(one.symmetric),
        "formats": list(one.formats),
        "mixed_bits": list(one.mixed_bits),
        "rounding": list(one.rounding),
        "data": one.data,
        "source": one.source,
    }


def _making_in_words(one: Making) -> str:
    parts = [f"{' or '.join(map(str, one.bits))} bit"]
    if one.groups:
        sizes = ["a row" if size == -1 else str(size) for size in one.groups]
        parts.append(f"groups of {', '.join(sizes)}")
    parts += ["on texts"] if one.data == "data" else []
    writes = " or ".join(dict.fromkeys(one.writes.values()))
    return f"{one.producer}: {', '.join(parts)}; writes {writes}  [{one.source}]"


def _plain(name: str, value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, Statement):
        return {"text": value.text, "source": value.source}
    if name in _VERSIONS and value is not None:
        return dotted(value)
    if name in ("older_arguments", "cautions_below"):
        return {dotted(version): text for version, text in value}
    if name == "older_min_compute_capability":
        return {dotted(version): dotted(older) for version, older in value}
    return list(value) if isinstance(value, tuple) else value


def _facts(entry: Method) -> list[tuple[str, str]]:
    rows = [("method", entry.name), ("source", entry.source)]
    for field in fields(entry):
        value = _plain(field.name, getattr(entry, field.name))
        if field.name in _HIDDEN or value in (None, "", [], {}, False):
            continue
        text = _words(value)
        known_from = dict(entry.sources).get(field.name)
        rows.append((_label(field.name), f"{text}  [{known_from}]" if known_from else text))
    made = makings_of(entry.name)
    rows += [("quantui makes", _making_in_words(one)) for one in made]
    return rows if made else [*rows, ("quantui makes", "no")]


def _words(value: Any) -> str:  # noqa: ANN401
    if isinstance(value, dict) and "text" in value:
        return f"{value['text']}  [{value['source']}]"
    if isinstance(value, dict):
        return "; ".join(f"below {version}: {text}" for version, text in value.items())
    if isinstance(value, list):
        return "; ".join(map(str, value))
    return "yes" if value is True else str(value)


def _label(name: str) -> str:
    short = {
        "bytes_per_linear_weight": "bytes/weight",
        "bytes_formula": "formula",
        "min_compute_capability": "from",
        "max_compute_capability": "up to",
        "weight_only_below": "weight-only <",
        "vllm_names": "vLLM's names",
        "tensor_parallel_prequantized": "stored tp > 1",
    }
    return short.get(name, name.replace("_", " "))


def _print_table(listed: list[Method]) -> None:
    from rich.table import Table

    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    for column in ("method", "bits", "B/weight", "GPU", "native", "CPU", "made", "vLLM"):
        table.add_column(column, no_wrap=True)
    for one in listed:
        made = "both" if one.in_flight and one.stored else "loading" if one.in_flight else "stored"
        table.add_row(
            one.name,
            f"{one.weight_bits:g}/{one.activation_bits}",
            f"{one.bytes_per_linear_weight:.4f}",
            _gpu(one),
            dotted(one.weight_only_below or ()),
            "yes" if one.cpu else "",
            made + ("*" if one.stored and makings_of(one.name) else "") if one.served else "",
            _STATUS.get(one.status, one.status) if one.until is None else f"<{dotted(one.until)}",
        )
    out = console()
    out.print(table)
    for line in _LEGEND:
        out.print(line)
    out.print("`quantui methods NAME` shows the rest, with sources.")


def _gpu(one: Method) -> str:
    """The compute capabilities it runs on."""
    least, most = dotted(one.min_compute_capability), one.max_compute_capability
    if most is None:
        return f"{least}+"
    return least if most == one.min_compute_capability else f"{least}-{dotted(most)}"
