"""Read GGUF, llama.cpp's file format (docs/gguf.md of ggml).

Files are read without the `gguf` package, which takes 2.8 s and 300 MB of memory for SmolLM2's 98 MB file.
"""

import math
import mmap

import numpy as np

from ..checked import quoted, whole_number
from ..compress.ggml import LAYOUTS, BlockWeight
from ..data.texts import existing_file

UINT32, TEXT, ARRAY, UINT64 = 4, 8, 9, 10  # types of fields; NUMBERS contains the numeric types
NUMBERS = {i: np.dtype(t) for i, t in enumerate("u1 i1 <u2 <i2 <u4 <i4 <f4 ? - - <u8 <i8 <f8".split()) if t != "-"}
TYPES = {  # type of a tensor -> weights per block, bytes per block, function (bytes of rows) -> float32 or BlockWeight
    0: (1, 4, lambda rows: rows.view("<f4")),
    1: (1, 2, lambda rows: rows.view("<f2").astype(np.float32)),
    30: (1, 2, lambda rows: (rows.view("<u2").astype("<u4") << 16).view("<f4")),
}
for number, name in {2: "q4_0", 3: "q4_1", 8: "q8_0", 12: "q4_k", 13: "q5_k", 14: "q6_k"}.items():
    TYPES[number] = (*LAYOUTS[name][:2], lambda rows, name=name: BlockWeight(rows, name))


def read_gguf(path, finite=True):
    """Read a GGUF file into two dicts, (fields, tensors). The file is mapped into memory, not copied.

    A field is an int, float, bool, str, list of str or array of numbers. A tensor is a BlockWeight or a float32 array,
    (out, in) for a layer. Raises ValueError if an item is damaged or unsupported. With `finite`, it also raises
    ValueError for infs and NaNs in a tensor.
    """
    with open(existing_file(path), "rb") as file:
        reader = Reader()
        try:
            reader.content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            return read_content(reader, finite)
        except ImportError:
            raise ValueError(f"{path}: {reader.thing}: its type requires the gguf package: pip install gguf") from None
        except (ValueError, NotImplementedError) as error:
            raise ValueError(f"{path}: {reader.thing}: {error}") from None


class Reader:
    """A file's content, the read position (initially byte 8), and the current item's name, for error messages."""

    content, position, thing = b"", 8, "header"

    def advance(self, size):
        """Advance the position by `size` bytes, and return the old position."""
        start, self.position = self.position, self.position + size
        if self.position > len(self.content):
            raise ValueError(f"ends at byte {self.position:,}, but the file has {len(self.content):,} bytes")
        return start

    def numbers(self, kind, count=1):
        """The next `count` values of the given type, as a new array."""
        if kind not in NUMBERS:
            raise ValueError(f"got type {kind}, expected a type from 0 to 12; nested arrays are not supported")
        return np.frombuffer(self.content, NUMBERS[kind], count, self.advance(count * NUMBERS[kind].itemsize)).copy()

    def texts(self, count=1):
        """The next `count` strings, each stored as its length followed by its UTF-8 bytes."""
        texts, content, end = [], self.content, self.position
        while len(texts) < count and end < len(content):
            start = end + 8
            end = start + int.from_bytes(content[end:start], "little")
            texts.append(str(content[start:end], "utf-8"))
        self.advance(end - self.position if len(texts) == count else len(content))
        return texts

    def value(self, kind=UINT32):
        """The next value of the given type."""
        if kind == ARRAY:
            kind, count = self.value(), self.value(UINT64)
            return self.texts(count) if kind == TEXT else self.numbers(kind, count)
        return self.texts()[0] if kind == TEXT else self.numbers(kind).item()


@np.errstate(all="ignore")  # damaged scales may overflow
def read_content(reader, finite=True):
    """Read the fields, then the tensors' shapes and offsets, then the tensors; see `read_gguf`."""
    if reader.content[:8] not in (b"GGUF\2\0\0\0", b"GGUF\3\0\0\0"):
        raise ValueError(f"got {reader.content[:8]}, expected b'GGUF' and version 2 or 3 in little-endian order")
    n_tensors, n_fields = (whole_number("count", reader.value(UINT64), least=0, most=2**16) for _ in range(2))
    fields, places, tensors = {}, {}, {}
    for kind, named, n in (("field", fields, n_fields), ("tensor", places, n_tensors)):
        for i in range(n):
            reader.thing = f"{kind} {i + 1} of {n}"
            name = reader.texts()[0]
            reader.thing = f"{kind} {quoted(name)}"
            if name in named:
                raise ValueError("appears twice")
            if kind == "field":
                named[name] = reader.value(reader.value())
            else:
                shape = reader.numbers(UINT64, whole_number("axes", reader.value(), most=4))[::-1].tolist()
                named[name] = (shape, reader.value(), reader.value(UINT64))
    reader.thing, alignment = "field 'general.alignment'", fields.get("general.alignment", 32)
    if not (isinstance(alignment, int) and alignment > 0 and alignment.bit_count() == 1):
        raise ValueError(f"got {quoted(alignment)}, expected a power of two")
    first = end = -(-reader.position // alignment) * alignment
    for name, (shape, kind, offset) in sorted(places.items(), key=lambda item: item[1][2]):
        reader.thing, reader.position = f"tensor {quoted(name)}", first + offset
        if offset % alignment or reader.position < end:
            raise ValueError(f"begins at byte {reader.position:,}, expected a multiple of {alignment} ≥ {end:,}")
        block, block_bytes, decode = TYPES.get(kind) or foreign_type(kind)
        if min(shape) < 1 or shape[-1] % block:
            raise ValueError(f"got the shape {tuple(shape)}, expected a row length that is a multiple of {block}")
        start, end = reader.advance(math.prod(shape) // block * block_bytes), reader.position
        weight = decode(np.frombuffer(reader.content, np.uint8)[start:end].reshape(math.prod(shape[:-1]), -1))
        if finite and not (weight.is_finite() if isinstance(weight, BlockWeight) else np.isfinite(weight).all()):
            raise ValueError("has values that are not finite")
        tensors[name] = weight if weight.shape == tuple(shape) else np.asarray(weight).reshape(shape)
    return fields, tensors


def foreign_type(kind):
    """Return an entry for a type that `TYPES` does not contain; the `gguf` package dequantises tensors of this type."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants

    kind = GGMLQuantizationType(kind)  # raises ValueError for an unknown type
    return *GGML_QUANT_SIZES[kind], lambda rows: quants.dequantize(rows, kind)
