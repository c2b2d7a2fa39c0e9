"""Where the saving ends.

If the rank is too high, `B` and `A` are larger than `W`. Give the largest rank `r` at which the two of them together
have **fewer** numbers than `W`.

**Derive it:** write the condition as an inequality and solve it for `r`. **Then try it in your head** for 1000 × 1000,
where the lesson found that r = 500 saves nothing, and for a very long matrix, 2 × 1000. Which side decides if one is
much longer than the other? (`/` gives fractions, and rounds them if the numbers are large; `//` does not.)
"""

POINTS = 3
OUTPUTS = ("r",)
HINTS = {"r": "Write the condition as an inequality in r. Does it still hold when both sides are equal?"}
FORMULA = "the largest whole r with r (out + in) < out · in, that is (out · in − 1) // (out + in)"


def largest_saving_rank(n_out, n_in):
    """The sizes of W, two whole numbers -> r, a whole number."""
    # r (out + in) < out · in, and because all are whole numbers: r (out + in) ≤ out · in − 1
    return (n_out * n_in - 1) // (n_out + n_in)
    # 1000 × 1000: 499. And 2 × 1000: 1. If one side is much longer, it drops out, and the bound is the shorter side.


def draw(rng, size):
    """In the first draw a whole rank brings both counts to the same number; in the others none does, and one side is
    much longer than the other."""
    if size.number == 0:
        p, q, times = (int(n) for n in (*rng.permutation([2, 3, 5, 7])[:2], rng.integers(2, 6)))
        return {"n_out": times * p * (p + q), "n_in": times * q * (p + q)}  # both at the rank times · p · q
    short = 20 * int(rng.integers(1, 5)) + int(rng.choice([-2, 2]))
    sides = short, (2 + size.number) * short + 1  # both counts are equal about halfway between two whole ranks
    return dict(zip(("n_out", "n_in"), sides if size.number == 1 else sides[::-1]))


MISTAKES = {
    "r": [
        ("at this rank B and A can have just as many numbers as W", lambda i: i.n_out * i.n_in // (i.n_out + i.n_in)),
        ("this is the largest rank of W: there the factors are larger than W", lambda i: min(i.n_out, i.n_in)),
        ("it is half the shorter side, which is right at most for a square W", lambda i: min(i.n_out, i.n_in) // 2),
    ]
}
