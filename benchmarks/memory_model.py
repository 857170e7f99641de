"""quantui's memory model against loads of vLLM that were measured, beside the rules of other tools.

    python benchmarks/memory_model.py FILE [--markdown] [--each]

FILE is JSON: ``models`` (facts of config.json by key) and ``cases`` (what was started, what the log told, in GiB),
or the form of tests/data/measured_loads.json. A model that the latter knows is counted from its full config there.

The rivals are what these tools document: bits x parameters (accelerate estimate-memory divides the whole model, its
embeddings too), gpustack's 1.2 x weights + 2 GiB, vllm-cli's size x 1.2. None knows the KV cache: what is
left of the budget is taken for it.

Three constants were read off measured loads: the sort of the sampler, and the two of workspaces and libraries. For
*left out* they are read off the other families' loads before a family is predicted.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import timeit
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantui.domain.architecture.model_shape import ModelShape, model_shape
from quantui.domain.fitting import activations, gpu_budget, remembered_room
from quantui.domain.fitting.fit import Device, Fit, FitRequest, LoraSlots, fit
from quantui.domain.fitting.vllm_versions import VllmBehaviour, behaviour
from quantui.domain.methods import method
from quantui.domain.weights.weight_census import weight_census

if TYPE_CHECKING:
    from collections.abc import Callable

    from quantui.domain.methods import Method

GIB = 1024**3
KNOWN = Path(__file__).parents[1] / "tests" / "data" / "measured_loads.json"
METHODS = {
    "awq": "awq",
    "gptq": "gptq",
    "gptq/awq-int4": "awq",
    "bitsandbytes": "bitsandbytes",
    "fp8": "fp8_dynamic",
    "fbgemm-fp8": "fbgemm_fp8",
    "w8a8-int8": "int8_w8a8",
    "mxfp4": "mxfp4",
}
BITS = {"none": 16, "awq": 4, "gptq": 4, "bitsandbytes": 4, "mxfp4": 4, "w4a16": 4}
CAPABILITIES = {
    "T4": (7, 5), "V100": (7, 0), "A100": (8, 0), "A10": (8, 6), "3090": (8, 6), "3060": (8, 6), "A6000": (8, 6),
    "L4": (8, 9), "4090": (8, 9), "4060": (8, 9), "H100": (9, 0), "H200": (9, 0), "B200": (10, 0), "5090": (12, 0),
}  # fmt: skip
FAMILIES = (
    "llama",
    "qwen",
    "mistral",
    "deepseek",
    "opt",
    "gemma",
    "phi",
    "granite",
    "glm",
    "gpt-oss",
)


@dataclass(frozen=True)
class Load:
    """One measured load and what it was asked as."""

    case: dict[str, Any]
    family: str
    shape: ModelShape
    census: tuple[Any, ...] | None
    method: str
    device: Device
    request: FitRequest
    parameters: float

    def predict(self) -> Fit:
        """quantui's answer."""
        devices = [self.device] * self.request.world
        return fit(
            self.shape, self.census, method(self.method), devices, self.request, suggest=False
        )

    @property
    def tokens_gib(self) -> float | None:
        """The measured cache, GiB of one GPU."""
        measured = self.case.get("kv_cache_gib")
        return None if measured is None else float(measured)

    @property
    def compares_cache(self) -> bool:
        """Whether utilization and card are known, so that a cache can be predicted at all."""
        known = self.case.get("gpu_memory_utilization") and self.device.total_bytes
        return bool(known) and not self.case.get("note") and bool(self.cache)

    @property
    def cache(self) -> float | None:
        """Bytes of the measured cache: vLLM's own GiB, or its tokens times a token's bytes; negative is no cache."""
        if self.tokens_gib is not None and not self.case.get("kv_cache_gib_is_max_rank"):
            return max(0.0, self.tokens_gib) * GIB
        tokens = self.case.get("kv_tokens")
        return None if tokens is None else float(tokens) * self.predict().kv_bytes_per_token


def main() -> None:
    """Read the file, print the tables."""
    parser = argparse.ArgumentParser(description="quantui's memory model against measured loads")
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--each", action="store_true", help="a line for every load")
    args = parser.parse_args()
    loads = read(json.loads(args.file.read_text(encoding="utf-8")))
    if args.each:
        for load in loads:
            print(one_line(load))
        print()
    sections = (
        ("Weights: median and largest error, %", weights_table(loads)),
        ("KV cache: median error, % of the measured cache", cache_table(loads)),
        ("KV cache, constants from the other families", left_out_table(loads)),
        ("Verdicts", verdict_table(loads)),
        ("Time of one answer", speed_table(loads)),
    )
    for title, rows in sections:
        print(f"## {title}\n" if args.markdown else title)
        print_table(rows, markdown=args.markdown)
        print()


def read(document: dict[str, Any]) -> list[Load]:
    """The loads of either form of file."""
    known = json.loads(KNOWN.read_text(encoding="utf-8"))
    notes = {each["id"]: each for each in known["loads"]}
    configs = {**known["configs"], **document.get("configs", {})}
    loads = []
    for case in document.get("loads", document.get("cases", [])):
        mine = notes.get(case["id"], {})
        same = mine.get("source_url") == case["source_url"]
        merged = {**case, **(mine if same else {})}
        key = merged.get("config") or merged["model_key"]
        facts = document.get("models", {}).get(key, {})
        loads.append(_load(merged, key, configs.get(key) or _config(key, facts), facts))
    return loads


def _load(case: dict[str, Any], key: str, config: dict[str, Any], facts: dict[str, Any]) -> Load:
    chosen = case.get("method") or METHODS.get(case["quantization"], "none")
    stored = case.get("quantization_config")
    config = {**config, "quantization_config": stored} if stored else config
    shape, census = model_shape(config), weight_census(config)
    gpu = case.get("gpu") or ""
    capability = next((value for name, value in CAPABILITIES.items() if name in gpu), (8, 0))
    total = case.get("gpu_total_gib") or (79.2 if "80GB" in gpu else None)
    size = int(total * GIB) if total else None
    rank = case.get("lora_rank") or (16 if case.get("lora") else 0)
    text = case["vllm_version"].split(" ")[0].removesuffix(".x")
    request = FitRequest(
        context=case.get("max_model_len"),
        tensor_parallel=case["tensor_parallel_size"],
        pipeline_parallel=case["pipeline_parallel_size"],
        max_num_seqs=case.get("max_num_seqs"),
        max_num_batched_tokens=case.get("max_num_batched_tokens"),
        utilization=case.get("gpu_memory_utilization"),
        kv_dtype=case.get("kv_cache_dtype") or "auto",
        eager=bool(case.get("enforce_eager")),
        block_size=case.get("block_size"),
        lora_slots=LoraSlots(1, rank) if rank else None,
        vllm_version=text,
    )
    device = Device(False, size, size, gpu or "unknown", capability)
    parameters = float(facts.get("params") or 0) or float(
        sum(group.elements for group in census or ())
    )
    family = next((name for name in FAMILIES if key.startswith(name)), key.partition("-")[0])
    return Load(case, family, shape, census, chosen, device, request, parameters)


def _config(key: str, facts: dict[str, Any]) -> dict[str, Any]:
    """A config from the facts a file gives of a model that is not known: a dense or MoE decoder of its family."""
    kind = {"qwen3": "qwen3", "qwen2": "qwen2", "mistral": "mistral", "gemma": "gemma2"}
    name = next((value for start, value in kind.items() if key.startswith(start)), "llama")
    known = {field: value for field, value in facts.items() if value is not None}
    return {
        "model_type": name,
        "architectures": ["LlamaForCausalLM"],
        "torch_dtype": "bfloat16",
        **known,
    }


def naive_weights(load: Load) -> float:
    """Bits x parameters over the GPUs."""
    stored = load.case["quantization"]
    bits = BITS.get(METHODS.get(stored, stored), 8)
    return load.parameters * bits / 8 / load.request.world


def rivals(load: Load) -> dict[str, tuple[float, float]]:
    """By tool: bytes of weights on one GPU, and all it says is needed besides the cache."""
    naive = naive_weights(load)
    return {
        "bits x params": (naive, naive),
        "gpustack": (naive, 1.2 * naive + 2 * GIB / load.request.world),
        "size x 1.2": (naive, 1.2 * naive),
    }


def budget(load: Load) -> float:
    """What vLLM may take of one GPU."""
    return float(load.request.utilization or 0) * (load.device.total_bytes or 0)


def groups(loads: list[Load]) -> list[tuple[str, list[Load]]]:
    """The loads by family, then all of them."""
    families = dict.fromkeys(load.family for load in loads)
    parts = [(name, [load for load in loads if load.family == name]) for name in families]
    return [*[(name, part) for name, part in parts if part], ("all", loads)]


def weights_table(loads: list[Load]) -> list[list[str]]:
    """Median and largest error of the weights, by family."""
    rows = [["family", "loads", "quantui", "largest", "bits x params", "largest"]]
    usable = [load for load in loads if load.case.get("weights_gib") and not _unknown_layers(load)]
    for name, part in groups(usable):
        ours, naive = [], []
        for load in part:
            measured = load.case["weights_gib"] * GIB
            found = load.predict()
            ours.append(abs((found.weights.bytes + found.lora.bytes) / measured - 1) * 100)
            naive.append(abs(naive_weights(load) / measured - 1) * 100)
        rows.append([name, str(len(part)), *_two(ours), *_two(naive)])
    return rows


def _unknown_layers(load: Load) -> bool:
    return "headers" in load.case.get("note", "")


def cache_table(loads: list[Load]) -> list[list[str]]:
    """Median error of the cache, and how many are within the larger of 5 % and 0.3 GiB."""
    rows = [["family", "loads", "quantui", "within", "bits x params", "gpustack", "size x 1.2"]]
    usable = [load for load in loads if load.compares_cache]
    for name, part in groups(usable):
        ours = [_off(load, float(load.predict().kv_cache.bytes)) for load in part]
        row = [name, str(len(part)), _median(ours), _within(part, ours)]
        for tool in ("bits x params", "gpustack", "size x 1.2"):
            left = [_off(load, budget(load) - rivals(load)[tool][1]) for load in part]
            row.append(_median(left))
        rows.append(row)
    return rows


def _off(load: Load, predicted: float) -> float:
    """Error of a cache, percent of the measured one; positive: too much."""
    return (max(0.0, predicted) / (load.cache or 1) - 1) * 100


def _within(part: list[Load], errors: list[float]) -> str:
    good = sum(
        abs(error) / 100 * (load.cache or 0) <= max(0.05 * (load.cache or 0), 0.3 * GIB)
        for load, error in zip(part, errors, strict=True)
    )
    return f"{good}/{len(part)}"


def left_out_table(loads: list[Load]) -> list[list[str]]:
    """Each family predicted with constants read off the other families' loads."""
    rows = [["family left out", "loads", "sort B", "other GiB", "median", "within"]]
    usable = [load for load in loads if load.compares_cache]
    together: list[tuple[Load, float]] = []
    for name, part in groups(usable)[:-1]:
        others = [load for load in loads if load.family != name]
        sort, base, each = sort_bytes(others), *workspaces(others)
        with_constants(sort, base, each)
        errors = [_off(load, float(load.predict().kv_cache.bytes)) for load in part]
        with_constants(*_OWN)
        together += zip(part, errors, strict=True)
        fitted = (f"{sort:.1f}", f"{base:.3f} + {each:.4f} x card")
        rows.append([name, str(len(part)), *fitted, _median(errors), _within(part, errors)])
    part, errors = [load for load, _ in together], [error for _, error in together]
    rows.append(["all", str(len(part)), "", "", _median(errors), _within(part, errors)])
    return rows


def sort_bytes(loads: list[Load]) -> float:
    """The sampler's sort as these loads show it: their peaks less the hidden states, a logit."""
    found = []
    for load in loads:
        peak, sequences = load.case.get("activation_peak_gib"), load.case.get("max_num_seqs")
        shape = load.shape
        if not peak or not sequences or sequences < 64 or load.request.world > 1:
            continue
        if _rules(load).sampler != "sort" or shape.has_vision or not shape.vocabulary:
            continue
        tokens = load.predict().max_num_batched_tokens
        states = (tokens + 2 * sequences) * (shape.hidden_size or 0) * 2
        found.append((peak * GIB - states) / (sequences * shape.vocabulary) - 2)
    return statistics.median(found) if found else _OWN[0]


def workspaces(loads: list[Load]) -> tuple[float, float]:
    """Base and slope by the card's size of what is neither weights nor activations, one GPU, GiB."""
    points = [
        (load.case["gpu_total_gib"], load.case["non_torch_gib"])
        for load in loads
        if load.case.get("non_torch_gib")
        and load.case.get("gpu_total_gib")
        and load.request.world == 1
        and _rules(load).version >= (0, 6, 5)
    ]
    if len({card for card, _ in points}) < 2:
        return _OWN[1], _OWN[2]
    line = statistics.linear_regression(*zip(*points, strict=True))
    return line.intercept, line.slope


def _rules(load: Load) -> VllmBehaviour:
    return behaviour(load.request.vllm_version, load.device.compute_capability or (8, 0))


_OWN = (activations.SORT_BYTES, gpu_budget.OTHER_BASE_GIB, gpu_budget.OTHER_PER_GIB)


def with_constants(sort: float, base: float, each: float) -> None:
    """Predict with these from now on."""
    activations.SORT_BYTES = sort
    gpu_budget.OTHER_BASE_GIB, gpu_budget.OTHER_PER_GIB = base, each
    remembered_room.forget()


def verdict_table(loads: list[Load]) -> list[list[str]]:
    """What was said of loads that started and of those that did not."""
    usable = [
        load
        for load in loads
        if load.device.total_bytes and load.request.utilization and not load.case.get("note")
    ]
    tools = ("bits x params", "gpustack", "size x 1.2")
    verdicts = ("fits", "tight", "does not fit")
    rows = [["what happened", "loads", *verdicts, *tools]]
    for happened, wanted in (("started", {"ok"}), ("did not", {"refused", "oom"})):
        part = [load for load in usable if load.case["outcome"] in wanted]
        said = [load.predict().verdict for load in part]
        row = [happened, str(len(part)), *(str(said.count(one)) for one in verdicts)]
        for tool in tools:
            fits = sum(rivals(load)[tool][1] <= budget(load) for load in part)
            row.append(f"{fits} fit")
        rows.append(row)
    return rows


def speed_table(loads: list[Load]) -> list[list[str]]:
    """Microseconds of CPU time a call, the census made: asked again, and for a context that is not known yet."""
    rows = [["load", "asked again", "counted anew"]]
    for load in (loads[0], next((one for one in loads if one.shape.is_moe), loads[-1])):
        chosen, devices = method(load.method), [load.device] * load.request.world

        def ask(load: Load = load, chosen: Method = chosen, devices: list[Device] = devices) -> Fit:
            return fit(load.shape, load.census, chosen, devices, load.request, suggest=False)

        def anew(again: Callable[[], Fit] = ask) -> Fit:
            remembered_room.forget()
            return again()

        times = [
            min(timeit.repeat(call, number=500, repeat=7, timer=time.process_time)) / 500 * 1e6
            for call in (ask, anew)
        ]
        rows.append([load.case["model"][:40], *(f"{each:.0f}" for each in times)])
    return rows


def one_line(load: Load) -> str:
    """A load in one line: measured, predicted."""
    found, case = load.predict(), load.case
    weights = (found.weights.bytes + found.lora.bytes) / GIB
    cache = "" if load.cache is None else f"{load.cache / GIB:.2f}"
    return (
        f"{case['id']:>3} {case['model'][-34:]:34} {case['vllm_version'][:9]:9} {case.get('gpu') or '?':14.14} "
        f"weights {case.get('weights_gib') or 0:7.3f} {weights:7.3f}  peak {case.get('activation_peak_gib') or 0:5.2f} "
        f"{found.transient.bytes / GIB:5.2f}  cache {cache:>6} {found.kv_cache.bytes / GIB:6.2f}  "
        f"{case['outcome']:7} {found.verdict}"
    )


def _two(errors: list[float]) -> tuple[str, str]:
    return f"{statistics.median(errors):.1f}", f"{max(errors):.1f}"


def _median(errors: list[float]) -> str:
    return f"{statistics.median(map(abs, errors)):.1f}" if errors else "-"


def print_table(rows: list[list[str]], *, markdown: bool) -> None:
    """Columns under each other, or a Markdown table."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for number, row in enumerate(rows):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        print(f"| {' | '.join(cells)} |" if markdown else "  ".join(cells).rstrip())
        if markdown and number == 0:
            print(f"|{'|'.join('-' * (width + 2) for width in widths)}|")


if __name__ == "__main__":
    main()
