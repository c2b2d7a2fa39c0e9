"""llama.cpp's K-quants: a block of 256 consecutive weights in a row, whose scales are quantised themselves.

    format   bytes of a block                            bits per weight   weight
    Q4_K     d, e, 12 of scales, 128 of codes      144   4.5               d s q − e m,     q = 0 … 15
    Q5_K     d, e, 12 of scales, 32 of fifth bits  176   5.5               d s q − e m,     q = 0 … 31
             128 of codes
    Q6_K     128 of codes, 64 of upper bits        210   6.5625            d s (q − 32),    q = 0 … 63
             16 of scales, d

d and e are float16. In Q4_K and Q5_K, 32 weights share a scale s and an offset m, both of 6 bits; in Q6_K, 16 weights
share a scale of 8 bits with a sign. (See ggml-common.h and ggml-quants.c in llama.cpp. The results are bit-identical to
those of the `gguf` package.) Here, these formats are only read.
"""

import numpy as np

SHIFTS = np.array([0, 4], np.uint8)[:, None]  # of the low and the high half of a byte
PAIRS = np.array([0, 2, 4, 6], np.uint8)[:, None]  # of the four pairs of bits in a byte


def q4_k(blocks):
    """Unpack blocks of Q4_K.

    Each run of 32 bytes contains the codes of 64 weights: first the low halves, then the high halves.

    Parameters
    ----------
    blocks : array (n, 144) uint8

    Returns
    -------
    codes : array (n, 8, 32) uint8
    scales : array (n, 8, 1) float32
    offsets : array (n, 8, 1) float32
    """
    head, codes = np.split(blocks, [16], axis=1)
    codes = codes.reshape(-1, 4, 1, 32) >> SHIFTS & 15  # (n, 4, 2, 32)
    return codes.reshape(-1, 8, 32), *scales_and_offsets(head)


def q5_k(blocks):
    """Unpack blocks of Q5_K, (n, 176) uint8; see `q4_k`. Bit i of each upper byte belongs to the weights of scale i."""
    head, upper, codes = np.split(blocks, [16, 48], axis=1)
    codes = (codes.reshape(-1, 4, 1, 32) >> SHIFTS & 15).reshape(-1, 8, 32)
    fifth = upper[:, None] >> np.arange(8, dtype=np.uint8)[:, None] & 1  # (n, 8, 32)
    return codes | fifth << 4, *scales_and_offsets(head)


def q6_k(blocks):
    """Unpack blocks of Q6_K, (n, 210) uint8, to codes (n, 16, 16) int8, scales (n, 16, 1), and no offsets.

    The 256 weights are two halves. In each, 64 bytes contain the lower four bits of 128 codes: first the low halves,
    then the high halves; and 32 bytes contain their upper bits, in four pairs.
    """
    lower, upper, scales, d = np.split(blocks, [128, 192, 208], axis=1)
    lower = (lower.reshape(-1, 2, 1, 64) >> SHIFTS & 15).reshape(-1, 2, 4, 32)
    upper = upper.reshape(-1, 2, 1, 32) >> PAIRS & 3  # (n, 2, 4, 32)
    codes = (lower | upper << 4).view(np.int8) - np.int8(32)
    scales = float16(d) * scales.view(np.int8).astype(np.float32)  # (n, 16)
    return codes.reshape(-1, 16, 16), scales[..., None], None


def scales_and_offsets(head):
    """The scales d s and the offsets −e m of Q4_K and Q5_K from the first 16 bytes of each block, both (n, 8, 1).

    The first four s are the lower six bits of bytes 0 to 3, and the first four m those of bytes 4 to 7. Of the other
    four, bytes 8 to 11 contain the lower four bits (of s in the low half, of m in the high one), and the two bits that
    are left in bytes 0 to 7 are the upper ones.
    """
    d, e = float16(head[:, :2]), float16(head[:, 2:4])
    first, second, last = np.split(head[:, 4:], 3, axis=1)  # (n, 4) each
    s = np.concatenate([first & 63, last & 15 | first >> 6 << 4], axis=1).astype(np.float32)
    m = np.concatenate([second & 63, last >> 4 | second >> 6 << 4], axis=1).astype(np.float32)
    return (d * s)[..., None], -(e * m)[..., None]


def float16(columns):
    """Two bytes of each block, (n, 2), as float32, (n, 1)."""
    return np.ascontiguousarray(columns).view("<f2").astype(np.float32)
