"""One entry of the feature cache: named tensors as one block of bytes, and back, exact to the bit.

The block is the length of a JSON header, the header (names, types, shapes), and the data of the tensors. Each
tensor begins at a multiple of 64 bytes, so that it can be used where it lies.
"""

import json
import struct
from collections.abc import Mapping

import torch
from torch import Tensor

ALIGNMENT = 64
_LENGTH = struct.Struct("<I")


def encode(features: Mapping[str, Tensor]) -> list[memoryview]:
    """Lay tensors out as parts of one block, without a copy where they are contiguous.

    Args:
        features: On the CPU, of any type and shape.

    Returns:
        The parts, one after another the block.
    """
    facts = [[name, str(one.dtype).removeprefix("torch."), list(one.shape)] for name, one in features.items()]
    text = json.dumps(facts).encode()
    head = _LENGTH.pack(len(text)) + text
    parts = [memoryview(head + bytes(_padding(len(head))))]
    for tensor in features.values():
        data = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data
        parts += [data, memoryview(bytes(_padding(len(data))))]
    return [part for part in parts if len(part)]


def decode(block: Tensor) -> dict[str, Tensor]:
    """Find the tensors in a block; they share its memory.

    Args:
        block: As `encode` laid it out. Shape (bytes,), uint8.
    """
    (length,) = _LENGTH.unpack(block[: _LENGTH.size].numpy().tobytes())
    begin = _LENGTH.size + length
    facts = json.loads(block[_LENGTH.size : begin].numpy().tobytes())
    features = {}
    for name, kind, shape in facts:
        begin += _padding(begin)
        dtype: torch.dtype = getattr(torch, kind)
        count = 1
        for size in shape:
            count *= size
        end = begin + count * dtype.itemsize
        features[name] = block[begin:end].view(dtype).reshape(shape)
        begin = end
    return features


def _padding(length: int) -> int:
    """Bytes up to the next multiple of the alignment."""
    return -length % ALIGNMENT
