"""The safetensors format (https://github.com/huggingface/safetensors): a JSON header, then the tensors' bytes."""

import json
import math
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from torch import Tensor

from utils.inputs import first_problem, open_plain, without_repetition

_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
    "BOOL": torch.bool,
}  # fmt: skip
_MOST_HEADER = 10**8  # bytes, the format's own limit
_Natural = Annotated[int, Field(ge=0)]


class _Entry(BaseModel):
    """What the header says of a tensor."""

    model_config = ConfigDict(strict=True)

    dtype: Literal["F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL"]
    shape: list[_Natural] = Field(max_length=64)
    data_offsets: list[_Natural] = Field(min_length=2, max_length=2)


_HEADER = TypeAdapter(dict[str, _Entry])


def is_safetensors(start: bytes) -> bool:
    """Whether a file that starts so is of this format: eight bytes of length, then a JSON object."""
    return start[8:9] == b"{"


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, on the CPU.

    Raises
    ------
    OSError
        The file cannot be opened.
    ValueError
        It is damaged, or holds tensors of another type than PyTorch has.
    """
    with open_plain(path) as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _MOST_HEADER:
            raise ValueError(f"its header claims {length:,} bytes")
        header, values = file.read(length), file.read()
    if len(header) < length:
        raise ValueError("it is cut off within its header")
    try:
        entries = json.loads(header, object_pairs_hook=without_repetition)
        if isinstance(entries, dict):
            entries.pop("__metadata__", None)
        entries = _HEADER.validate_python(entries)
    except ValidationError as error:
        raise ValueError(f"its header is damaged: {first_problem(error)}") from None
    except RecursionError:
        raise ValueError("its header is damaged: it is nested too deeply") from None
    at, tensors = 0, {}
    for name, entry in sorted(entries.items(), key=lambda item: item[1].data_offsets):
        begin, end = entry.data_offsets
        dtype = _DTYPES[entry.dtype]
        if begin != at or end - begin != math.prod(entry.shape) * dtype.itemsize or end > len(values):
            raise ValueError(f"the place of {name} does not go with its shape, its neighbours or the file's size")
        # A copy: bytes cannot be written to, and may begin where no number of this type can.
        own = bytearray(values[begin:end])
        flat = torch.frombuffer(own, dtype=dtype) if own else torch.empty(0, dtype=dtype)
        tensors[name], at = flat.view(entry.shape), end
    if at != len(values):
        raise ValueError(f"{len(values) - at:,} bytes at its end belong to no tensor")
    return tensors
