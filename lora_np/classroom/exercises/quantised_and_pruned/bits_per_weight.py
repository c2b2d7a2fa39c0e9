"""How many bits a weight takes.

Now NF4: each weight is a code of 4 bits, and `block_size` weights share a scale. How many **bits per weight** is that,
with the scales, for a matrix of `n_out` × `n_in`? Give two numbers:

- `single`: every block's scale is stored in float32.
- `double`: double quantisation. The scales are stored as codes of 8 bits. Every 256 of them have one step, in float32;
  a last group with fewer than 256 has a step as well. And the whole matrix has one mean, in float32.

The matrices are small enough for all of that to show: count what is really stored. **Predict first:** which takes more,
blocks of 64 without double quantisation, or blocks of 16 with it? And which of the two brings `W` back better?
"""

POINTS = 2
OUTPUTS = ("single", "double")
HINTS = {
    "single": "One block: how many bits do its codes have, how many its scale, and how many weights share them?",
    "double": "Write down the four things that are stored, how many numbers each has, and the bits of a number.",
}
FORMULA = """single = 4 + 32 / block_size
n = n_out · n_in / block_size scales:  double = 4 + (8 n + 32 ⌈n / 256⌉ + 32) / (n_out · n_in)"""


def bits_per_weight(n_out, n_in, block_size):
    """Three whole numbers; block_size divides n_out · n_in -> single, double, two numbers of bits."""
    weights = n_out * n_in
    scales = weights // block_size
    single = (4 * weights + 32 * scales) / weights  # that is 4 + 32 / block_size

    steps = -(-scales // 256)  # rounded up: a short group is a group
    double = (4 * weights + 8 * scales + 32 * steps + 32) / weights  # weights' codes, scales' codes, steps, the mean
    return single, double
    # Blocks of 64 in float32: 4.5. Blocks of 16 in 8 bits: 4 + 8/16 + 32/(16 · 256) = 4.508, just as much. The shorter
    # ones bring W back better, because each has a ruler that fits: the lesson's figure has 0.081 there beside 0.092.


def draw(rng, size):
    """The scales are whole groups, one more, and any number."""
    block_size = 16 * size.n_out
    scales = [768 * size.D, 513 + 768 * size.N, 33 * size.n_in][size.number]
    return {"n_out": 3 * block_size, "n_in": scales // 3, "block_size": block_size}


MISTAKES = {
    "single": [("a scale in float32 has 32 bits, which are 4 bytes", lambda i: 4 + 4 / i.block_size)],
    "double": [
        (
            "this is right for a very large matrix: here the step of the short last group and the mean show",
            lambda i: 4 + (8 + 32 / 256) / i.block_size,
        ),
        ("the steps, one for each group of 256 scales, and the mean are missing", lambda i: 4 + 8 / i.block_size),
    ],
}
