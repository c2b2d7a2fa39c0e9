"""2. The largest rank that saves memory (3 points).

If the rank is too high, `B` and `A` have more entries than `W`. Compute the largest rank `r` for which `B` and `A`
together have **fewer** entries than `W`.

**Derive it:** write the condition as an inequality and solve it for `r`. **Then try it in your head** for 1000 × 1000,
where the lesson found that r = 500 saves nothing, and for a very wide matrix, 2 × 1000. Which side determines the
result if one is much longer than the other? (`/` gives floats, which are rounded if the numbers are large; `//` is
exact.)
"""

HINTS = {"r": "Write the condition as an inequality in r. Does it hold if both sides are equal?"}
FORMULA = "the largest integer r with r (out + in) < out · in, that is (out · in − 1) // (out + in)"


def largest_saving_rank(n_out, n_in):
    """n_out, n_in ints -> r, an int."""
    # r (out + in) < out · in; because both sides are integers, this means r (out + in) ≤ out · in − 1
    return (n_out * n_in - 1) // (n_out + n_in)
    # The result is 499 for 1000 × 1000, and 1 for 2 × 1000. If one side is much longer than the other, the longer side
    # nearly cancels, and the bound is close to the shorter side.


def draw(rng, size):
    """In the first draw, the factors have exactly as many entries as W at some integer rank; in the others, they never
    do, and one side is much longer than the other."""
    if size.number == 0:
        p, q, times = (int(n) for n in (*rng.permutation([2, 3, 5, 7])[:2], rng.integers(2, 6)))
        return {"n_out": times * p * (p + q), "n_in": times * q * (p + q)}  # break-even at rank times · p · q
    short = 20 * int(rng.integers(1, 5)) + int(rng.choice([-2, 2]))
    # break-even about halfway between two integer ranks
    sides = short, (2 + size.number) * short + int(rng.choice([-1, 1]))
    return dict(zip(("n_out", "n_in"), sides if size.number == 1 else sides[::-1]))


MISTAKES = {
    "at this rank B and A may have exactly as many entries as W": lambda i: i.n_out * i.n_in // (i.n_out + i.n_in),
    "this is the largest possible rank of W, at which the factors are larger than W": lambda i: min(i.n_out, i.n_in),
    "it is half the shorter side, but W need not be square": lambda i: min(i.n_out, i.n_in) // 2,
    "it is half the shorter side minus 1, but W need not be square": lambda i: min(i.n_out, i.n_in) // 2 - 1,
}
