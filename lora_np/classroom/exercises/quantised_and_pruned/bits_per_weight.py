"""2. How many bits does a weight take? (2 points).

In NF4, each weight is stored as a 4-bit code, and `block_size` weights share a scale. How many **bits per weight** is
that, including the scales, for an `n_out` × `n_in` matrix? Compute two numbers:

- `single`: each block's scale is stored in float32.
- `double`: double quantisation. The scales are stored as 8-bit codes. Each group of 256 scales shares one step size,
  stored in float32; the last group may be shorter. In addition, the mean of the matrix's scales is stored in float32.

The matrices are so small that every item matters: count what is actually stored. **Predict first:** which takes more
bits, blocks of 64 without double quantisation, or blocks of 16 with it? Which of these two settings has the smaller
quantisation error?
"""

HINTS = {
    "single": "In one block, how many bits do the codes and the scale take, and how many weights share them?",
    "double": "List the four stored items. How many numbers does each contain, and how many bits does a number take?",
}
FORMULA = """single = 4 + 32 / block_size
n = n_out · n_in / block_size scales:  double = 4 + (8 n + 32 ⌈n / 256⌉ + 32) / (n_out · n_in)"""


def bits_per_weight(n_out, n_in, block_size):
    """n_out, n_in, block_size ints; block_size divides n_out · n_in -> single, double, two floats."""
    weights = n_out * n_in
    scales = weights // block_size
    single = (4 * weights + 32 * scales) / weights  # that is 4 + 32 / block_size

    steps = -(-scales // 256)  # rounded up: a short group has a step, too
    double = (4 * weights + 8 * scales + 32 * steps + 32) / weights  # codes of weights and scales, steps, mean
    return single, double
    # Blocks of 64 with scales in float32 take 4.5 bits. Blocks of 16 with scales in 8 bits take 4 + 8/16 + 32/(16 ·
    # 256) = 4.508, about the same. The shorter blocks have the smaller error, because each scale fits its weights
    # better: the lesson's figure shows an error of 0.081, compared with 0.092 for blocks of 64.


def draw(rng, size):
    """Draw shapes for which the number of scales is a multiple of 256, one more than a multiple, or neither."""
    block_size = 16 * size.n_out
    scales = [768 * size.D, 513 + 768 * size.N, 33 * size.n_in][size.number]
    return {"n_out": 3 * block_size, "n_in": scales // 3, "block_size": block_size}


LARGE_ONLY = "this is correct only for a very large matrix: the mean and the step of the short last group are missing"
MISTAKES = {
    LARGE_ONLY: lambda i: 4 + (8 + 32 / 256) / i.block_size,
    "the mean and the steps, one for each group of 256 scales, are missing": lambda i: 4 + 8 / i.block_size,
}
