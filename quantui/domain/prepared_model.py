"""What the Python calls give: a checkpoint's folder that carries the arguments vLLM needs for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from quantui.domain.memory import MemoryEstimate


class PreparedModel(str):
    """The folder of a checkpoint, as a string, with the arguments vLLM is to be given beside it.

    >>> vllm.LLM(model=prepared, **prepared.engine_args)  # doctest: +SKIP

    ``engine_args``: keyword arguments of ``vllm.LLM`` (``quantization``, ``max_model_len`` in tokens,
    ``kv_cache_memory_bytes`` on the CPU, else ``gpu_memory_utilization`` as a fraction of the card, ...);
    what stays at vLLM's default is left out. ``adapter_merged``: whether an adapter is in the weights.
    ``source``: what it was made from, Hub ids with their commits. ``estimate``: memory, in bytes, with
    the source of every figure. It can be pickled and copied.
    """

    engine_args: dict[str, object]
    adapter_merged: bool
    source: str
    estimate: MemoryEstimate

    def __new__(
        cls,
        path: str,
        *,
        engine_args: dict[str, object],
        adapter_merged: bool,
        source: str,
        estimate: MemoryEstimate,
    ) -> Self:
        """``path`` becomes the string; the rest its attributes."""
        prepared = super().__new__(cls, path)
        prepared.engine_args = engine_args
        prepared.adapter_merged = adapter_merged
        prepared.source = source
        prepared.estimate = estimate
        return prepared

    def __getnewargs_ex__(self) -> tuple[tuple[str], dict[str, object]]:
        return (str(self),), dict(vars(self))

    def __repr__(self) -> str:
        return (
            f"PreparedModel({str(self)!r}, engine_args={self.engine_args!r}, "
            f"adapter_merged={self.adapter_merged!r}, source={self.source!r})"
        )
