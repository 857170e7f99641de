"""What a checkpoint or an adapter is: facts read from its files, before any weight is loaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

Source = Literal["folder", "hub-cache", "hub"]
"""Where the files are: a folder of the user's, a snapshot in the Hub cache, or still on the Hub."""

DTYPE_BITS: dict[str, int] = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}
"""Bits of one element for every dtype of the safetensors format (safetensors/src/tensor.rs)."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor as its shard's header describes it; ``dtype`` is the safetensors name."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    shard: str

    @property
    def elements(self) -> int:
        """How many values it holds."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes in the file; sub-byte dtypes are packed without padding between elements."""
        return (self.elements * DTYPE_BITS[self.dtype] + 7) // 8


@dataclass(frozen=True, slots=True)
class WeightFile:
    """One weight file; ``sha256`` is of its whole content, None when nobody has computed it."""

    name: str
    size_bytes: int
    sha256: str | None = None


@dataclass(frozen=True)
class ModelSpec:
    """A base checkpoint.

    ``ref`` is what the user wrote; ``path`` the folder with the files (None: not downloaded);
    ``revision`` the commit for Hub sources. ``fingerprint`` identifies the content: it changes with
    any byte of weights, config, tokenizer or chat template, and not with the README. A spec with
    ``complete=False`` has ``missing_files`` still to download, ``download_bytes`` in all; a sketch
    (from config.json alone, or from headers without the data behind them) is never complete, and
    its ``tensors`` are None without headers.
    ``gated`` is the Hub's word on who may download: False, ``auto`` or ``manual``; None when it was not asked.
    """

    ref: str
    source: Source
    path: str | None
    revision: str | None
    architectures: tuple[str, ...]
    model_type: str | None
    dtype: str | None
    config: Mapping[str, Any]
    weight_files: tuple[WeightFile, ...]
    weight_bytes: int | None
    parameters: int | None
    tensors: tuple[TensorInfo, ...] | None
    quantization: str | None
    context_length: int | None
    has_tokenizer: bool
    has_chat_template: bool
    custom_code: bool
    license: str | None
    fingerprint: str
    complete: bool = True
    missing_files: tuple[str, ...] = ()
    download_bytes: int = 0
    notes: tuple[str, ...] = ()
    gated: bool | str | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """One sign for or against training in 4 bit; ``source`` names the file or field it is in."""

    source: str
    says_4bit: bool
    strength: Literal["strong", "weak"]
    text: str


@dataclass(frozen=True, slots=True)
class FourBitVerdict:
    """Was the adapter trained on a 4-bit base? ``answer`` None means that nothing tells.

    ``overridden`` is set when the user's word decided; the evidence is kept beside it. True in a
    condition only when the answer is yes: an unknown counts as no there, and is told by ``answer``.
    """

    answer: bool | None
    evidence: tuple[Evidence, ...] = ()
    overridden: bool = False

    def __bool__(self) -> bool:
        return self.answer is True

    @property
    def conflicting(self) -> bool:
        """True when some evidence says yes and some says no."""
        return len({item.says_4bit for item in self.evidence}) == 2


@dataclass(frozen=True)
class AdapterSpec:
    """A PEFT adapter. ``target_modules`` is a tuple of names, or the regex PEFT matches in full.

    ``tensors`` is None when the weights are pickled. ``base_ref`` is what the adapter says it was
    trained on: untrusted, and often a path on another machine. Other fields are as in
    :class:`ModelSpec`.
    """

    ref: str
    source: Source
    path: str | None
    revision: str | None
    peft_type: str
    task_type: str | None
    base_ref: str | None
    base_revision: str | None
    rank: int | None
    alpha: float | None
    use_rslora: bool
    use_dora: bool
    target_modules: tuple[str, ...] | str | None
    modules_to_save: tuple[str, ...]
    config: Mapping[str, Any]
    tensors: tuple[TensorInfo, ...] | None
    weight_bytes: int
    fingerprint: str
    four_bit: FourBitVerdict
    weight_files: tuple[WeightFile, ...] = ()
    complete: bool = True
    missing_files: tuple[str, ...] = ()
    download_bytes: int = 0
    has_tokenizer: bool = False
    has_chat_template: bool = False
    license: str | None = None
    notes: tuple[str, ...] = field(default=())
