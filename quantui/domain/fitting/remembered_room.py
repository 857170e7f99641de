"""The room of a request, remembered: a wizard asks again at every key, with another context or more users."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantui.domain.fitting.fit_room import Room

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quantui.domain.architecture.model_shape import ModelShape
    from quantui.domain.fitting.fit_facts import Calibration, Device, FitRequest
    from quantui.domain.methods import Method
    from quantui.domain.weights.weight_groups import WeightGroup

_REMEMBERED = 128
_rooms: dict[tuple[object, ...], tuple[object, object, Room]] = {}


def room_for(
    shape: ModelShape,
    census: tuple[WeightGroup, ...] | None,
    method: Method,
    devices: Sequence[Device],
    request: FitRequest,
    calibration: Calibration | None,
    stored_bytes: int | None,
) -> Room:
    """The room for ``request``, whatever its context and users.

    Shape and census are known again by their identity; comparing them would cost more than counting does.
    """
    key = (
        id(shape),
        id(census),
        method.name,
        tuple(devices[: request.world]),
        calibration,
        stored_bytes,
        request.tensor_parallel,
        request.pipeline_parallel,
        request.max_num_seqs,
        request.max_num_batched_tokens,
        request.utilization,
        request.kv_dtype,
        request.dtype,
        request.eager,
        request.block_size,
        request.lora_slots,
        request.vllm_version,
        request.kv_cache_bytes,
    )
    known = _rooms.get(key)
    if known is not None and known[0] is shape and known[1] is census:
        return known[2]
    room = Room.of(shape, census, method, devices, request, calibration, stored_bytes)
    if len(_rooms) >= _REMEMBERED:
        _rooms.clear()
    _rooms[key] = (shape, census, room)
    return room


def forget() -> None:
    """Count anew from now on."""
    _rooms.clear()
