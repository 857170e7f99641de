"""Which decoder layers a pipeline stage holds."""

from __future__ import annotations


def layers_of_stage(layers: int, stage: int, stages: int) -> range:
    """The indices on ``stage`` of ``stages``: evenly, what is left over on the stages before the last, from behind.

    vllm/distributed/utils.py, get_pp_indices (0.32), without VLLM_PP_LAYER_PARTITION.
    """
    sizes = [layers // stages] * stages
    for back in range(2, layers % stages + 2):
        sizes[-back] += 1
    first = sum(sizes[:stage])
    return range(first, first + sizes[stage])
