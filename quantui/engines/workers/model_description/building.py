"""The model without its weights: the class that the config names, on torch's meta device."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from quantui_wire import WorkerError

if TYPE_CHECKING:
    from pathlib import Path


def build(folder: Path, config: dict[str, Any], *, trust_remote_code: bool) -> Any:  # noqa: ANN401 - transformers has no stubs
    """The model of ``folder`` and its ``config``, as ``from_pretrained`` makes it before it reads weights.

    Raises:
        WorkerError: ``model.bad-config``, ``merge.unknown-architecture``.
    """
    import torch
    import transformers

    name = (config.get("architectures") or ["none"])[0]
    loader = getattr(transformers, str(name), None)
    remote = trust_remote_code and "auto_map" in config
    if remote:
        loader = transformers.AutoModelForCausalLM
    if loader is None or not hasattr(loader, "from_pretrained"):
        raise WorkerError(
            "merge.unknown-architecture",
            f"transformers {transformers.__version__} does not know {name}.",
            "It is newer than this engine, or its code lies beside its weights.",
            "Update the engine, or allow the model's own code (trust_remote_code) if you trust it.",
            exit_code=2,
        )
    try:
        with ExitStack() as contexts:
            for context in transformers.PreTrainedModel.get_init_context(
                torch.float32, False, False, None
            ):
                contexts.enter_context(context)
            if not remote:
                read = loader.config_class.from_pretrained(folder, local_files_only=True)
                return loader(read)
            auto = transformers.AutoConfig
            read = auto.from_pretrained(folder, trust_remote_code=True, local_files_only=True)
            return loader.from_config(read, trust_remote_code=True)
    # A config of another version, or a model's own code, can raise anything.
    except Exception as error:
        raise WorkerError(
            "model.bad-config",
            f"transformers {transformers.__version__} cannot make a {name} of "
            f"{folder / 'config.json'}.",
            f"{type(error).__name__}: {error}"[:500],
            "Check that the config is unedited and that the engine is new enough for the model.",
            exit_code=2,
        ) from error
