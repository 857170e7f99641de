"""Worker: say which stored tensors make up each parameter of a model, as transformers loads it.

Job: ``base`` (folder), ``out`` (JSON file to write), and optionally ``modules`` (module paths as an
adapter names them, without ``base_model.model.``) and ``trust_remote_code`` (false).

It builds the model without memory for weights and reads the headers of the checkpoint alone. The file:

- ``architecture``, ``transformers`` (version);
- ``parameters``: model parameter -> ``shape`` and ``pieces``, or ``unmapped`` with the reason. A piece
  says ``target[start : start + shape] = source[source_start : source_start + shape]``; ``shape`` leaves
  out the leading axes of size 1 that only target or only source has, so that a stacked expert has
  ``start`` ``[e, row, 0]`` and ``shape`` ``[rows, columns]``. ``transposed``: the source region is the
  target region with its last two axes exchanged, and so is its shape. The pieces cover the parameter;
- ``shared``: parameter that is not stored -> the one of ``parameters`` it is the same tensor as;
- ``unused``: stored tensors that no parameter is made of;
- ``input_embedding``, ``output_embedding`` (module paths or null) and ``tied``: whether they are one
  tensor after loading; with ``tied_by_values`` both are stored, and they are one where their values
  are equal;
- ``renamed``: each of ``modules`` -> its path in the model, null where the model has no such module;
- ``modules``: each module that holds a parameter -> ``class`` and ``is_transposed`` (stacked experts
  stored input axis first, as the class says and PEFT reads it).
"""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import time
from pathlib import Path
from typing import Any

import model_description  # noqa: F401 - found before quantui_wire takes this folder off sys.path
import quantui_wire as wire

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# There is nothing to read: transformers needs no threads that read ahead.
os.environ["HF_DEACTIVATE_ASYNC_LOAD"] = "1"


def main(job: dict[str, Any]) -> dict[str, Any]:
    """Describe the model and write the file; the result event says what it took."""
    began = time.monotonic()
    missing = [name for name in ("torch", "transformers") if not importlib.util.find_spec(name)]
    if missing:
        raise wire.WorkerError(
            "engine.lacks-packages",
            f"This engine lacks {', '.join(missing)}.",
            "How a checkpoint becomes a model is asked of them.",
            f"Install {' '.join(missing)} into the engine, or choose another engine.",
        )
    description = describe(
        Path(job["base"]), job.get("modules") or (), bool(job.get("trust_remote_code"))
    )
    out = Path(job["out"])
    out.write_text(json.dumps(description) + "\n", encoding="utf-8")
    return {
        "path": str(out),
        "seconds": round(time.monotonic() - began, 2),
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def describe(base: Path, modules: Any, trust_remote_code: bool) -> dict[str, Any]:  # noqa: ANN401
    """What the file says of the checkpoint in ``base``."""
    from model_description import building, loading
    from streaming_merge import checkpoint

    source = checkpoint.read_checkpoint(base)
    stored = {name: tensor.shape for name, tensor in source.tensors.items()}
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    model = building.build(base, source.config, trust_remote_code=trust_remote_code)
    sizes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    embeddings = embedding_names(model)
    asked_ties = dict(model.all_tied_weights_keys)
    loaded = loading.load(model, stored)
    shared = loading.shared(model, loaded)
    missing = loading.really_missing(model, loaded, shared)
    if missing:
        raise checkpoint.damaged(base, f"{len(missing)} weights are missing: {missing[:3]}")
    parameters = loading.pieces(loaded, sizes)
    used = {p["source"] for entry in parameters.values() for p in entry.get("pieces", ())}
    weights = {f"{name}.weight" for name in embeddings if name}
    one_tensor = {shared.get(name, name) for name in weights}
    by_values = frozenset(weights) in loading.stored_twice(asked_ties, loaded)
    return {
        "architecture": type(model).__name__,
        "transformers": transformers.__version__,
        "tied": len(weights) == 2 and (len(one_tensor) == 1 or by_values),
        **({"tied_by_values": True} if by_values else {}),
        "input_embedding": embeddings[0],
        "output_embedding": embeddings[1],
        "parameters": parameters,
        "shared": shared,
        "unused": sorted(set(stored) - used),
        "renamed": loading.renamed(model, modules),
        "modules": {
            name: {
                "class": type(module).__name__,
                "is_transposed": bool(getattr(module, "is_transposed", False)),
            }
            for name, module in model.named_modules()
            if any(True for _ in module.parameters(recurse=False))
        },
    }


def embedding_names(model: Any) -> tuple[str | None, str | None]:  # noqa: ANN401
    """Paths of the modules that are the model's input and output embedding; None where it has none."""

    def path(module: object) -> str | None:
        return next((name for name, own in model.named_modules() if own is module), None)

    try:
        embedding = model.get_input_embeddings()
    except NotImplementedError:
        embedding = None
    head = model.get_output_embeddings()
    return (
        path(embedding) if embedding is not None else None,
        path(head) if head is not None else None,
    )


if __name__ == "__main__":
    wire.run(main)
