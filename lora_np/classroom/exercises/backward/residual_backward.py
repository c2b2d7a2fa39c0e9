"""1. Warm-up: a residual connection (2 points).

`y = x + f(x)`, where the branch `f` may be anything, such as attention or an MLP. The branch's backward pass is given:
`branch_backward(d)` maps the gradient of the branch's output to that of its input. Return the gradient of `x`.

**Predict:** if all weights of the branch are zero, the branch passes nothing back. What is `dx` then? What is left of
the gradient after twenty such blocks, with and without residual paths? This is why deep models have residual paths.
"""

HINTS = {"dx": "x reaches y along two paths. What comes back along the one that leaves x unchanged?"}
FORMULA = "dx = dy + branch_backward(dy)"


def residual_backward(dy, branch_backward):
    """dy (N, T, C), branch_backward, a function from (N, T, C) to (N, T, C) -> dx (N, T, C)."""
    # x reaches y along two paths, directly and through the branch, so a gradient comes back along both. If all weights
    # of the branches are zero, dx is dy, even after twenty blocks; without residual paths it would be 0.
    return dy + branch_backward(dy)


def draw(rng, size):
    """Draw the backward pass of a branch that resembles a linear layer followed by tanh."""
    W, slope = rng.normal(size=(size.C, size.C)), rng.uniform(0.1, 1.0, (size.B, size.T, size.C))
    return {"dy": rng.normal(size=slope.shape), "branch_backward": lambda d: (d * slope) @ W}


MISTAKES = {
    "the residual path contributes 1 instead of dy": lambda i: 1 + i.branch_backward(i.dy),
    "the branch's gradient is treated as a slope and multiplied by dy": lambda i: i.dy * (i.right["dx"] - i.dy + 1),
    "dy has gone through the branch twice": ("branch_backward(dy)", "branch_backward(branch_backward(dy))"),
    "branch_backward gets ones instead of dy": ("branch_backward(dy)", "dy * branch_backward(np.ones_like(dy))"),
}
