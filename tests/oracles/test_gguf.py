"""lora_np.compress.ggml and lora_np.formats.gguf against the `gguf` package, bit for bit."""

import numpy as np
import pytest

from lora_np.compress import FORMATS, BlockWeight

gguf = pytest.importorskip("gguf")
pytestmark = pytest.mark.oracle
equal = np.testing.assert_array_equal
TYPES = {name: gguf.GGMLQuantizationType[name.upper()] for name in ("q8_0", "q4_0", "q4_1")}


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


@pytest.mark.parametrize("format", TYPES)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_random_bytes(format):
    """Whatever the bytes are, scales of infinity and NaN among them."""
    size = gguf.GGML_QUANT_SIZES[TYPES[format]][1]
    blocks = np.random.default_rng(1).integers(0, 256, (5000, 3 * size), dtype=np.uint8)
    dense = gguf.quants.dequantize(blocks, TYPES[format])
    equal(BlockWeight(blocks, format).dequantise().view(np.uint32), dense.view(np.uint32))
