"""Warm-up: a residual sum.

`y = x + f(x)`, where the branch `f` may be anything: attention, an MLP. Its backward pass is given:
`branch_backward(d)` takes a gradient with respect to the branch's output, and returns the gradient with respect to its
input. Give the gradient of `x`.

**Predict:** a branch whose weights are all zero passes nothing back. What is `dx` then? And what would be left of the
gradient after twenty such blocks, with the sum and without it? That is why deep models have the sum.
"""

POINTS = 2
OUTPUTS = ("dx",)
HINTS = {"dx": "x reaches y by two ways. What comes back along the one that leaves it as it is?"}
FORMULA = "dx = dy + branch_backward(dy)"


def residual_backward(dy, branch_backward):
    """dy (N, T, C), branch_backward: (N, T, C) -> (N, T, C) -> dx (N, T, C)."""
    # x reached y by two ways, as it is and through the branch, so something comes back along both. Through twenty
    # branches of zeros dy arrives as it is; without the sums nothing would arrive.
    return dy + branch_backward(dy)


def draw(rng, size):
    """The branch is a linear layer and a tanh."""
    W, slope = rng.normal(size=(size.C, size.C)), rng.uniform(0.1, 1.0, (size.B, size.T, size.C))
    return {"dy": rng.normal(size=slope.shape), "branch_backward": lambda d: (d * slope) @ W}


MISTAKES = {
    "dx": [
        ("the way around has 1 in place of dy", lambda i: 1 + i.branch_backward(i.dy)),
        (
            "what the branch passes back is taken for a slope, and multiplied by dy",
            lambda i: i.dy * (i.right["dx"] - i.dy + 1),
        ),
        ("dy has gone through the branch twice", lambda i: i.dy + i.branch_backward(i.branch_backward(i.dy))),
    ]
}
