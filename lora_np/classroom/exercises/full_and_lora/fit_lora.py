"""The project: LoRA on one layer.

Now the second sitting. One linear layer, small enough to see everything. Its `W` (out, in) is frozen. There is a better
weight, W + ΔW, but nobody tells us ΔW: we are given inputs `x` (N, in) and what the better weight makes of them,
`target` (N, out). **Find ΔW = B A by LoRA**, with s = 1: minimise

    y = x Wᵀ + x Aᵀ Bᵀ        L = Σ (y − target)² / (2 N)        the sum runs over all rows and outputs

by gradient descent: `steps` steps with the learning rate `lr`, both factors in each, and both gradients taken before
either factor moves. Start as in exercises 07, and draw from `rng`. For comparison, full fine-tuning of the layer:

    for _ in range(steps):
        dy = (x @ W.T - target) / len(x)  # (N, out)
        W = W - lr * dy.T @ x

**Derive first** what LoRA changes in these lines. **Then: how low can L get?** What the frozen layer lacks is
`E = target − x Wᵀ` (N, out); what an adapter can add to its outputs is a matrix of rank at most r. Which lesson says
what is left at least, and how do you compute it from `E`? The check asks you to come within 5 % of that. It also looks
at the way there: it calls your function for 0, 1, 5 and 6 steps.

**Predict:** which of the two gradients is zero in the first step? What happens if both factors start at zero? And if
only `B` is trained, and `A` stays as it was drawn: about what share of ΔW can be learnt, for r = 2 and in = 8?
"""

import numpy as np

POINTS = 6
OUTPUTS = ("A", "B")
HINTS = {
    "the start": "Shapes and start are those of exercises 07. With 0 steps, they are what your function returns.",
    "the steps of A": "Compare dA with centred differences of the loss. Which B does it belong to?",
    "the steps of B": "Compare dB with centred differences of the loss. Which dy has a mean over N rows?",
    "within 5 %": "Print the loss: does it fall, and does it still fall at the end?",
}
FORMULA = """y = x Wᵀ + u Bᵀ,  u = x Aᵀ,  dy = (y − target) / N
dB = dyᵀ u,  dA = (dy B)ᵀ x
A ← A − lr dA,  B ← B − lr dB,  from A ~ U(−1/√in, +1/√in) and B = 0"""


def fit_lora(x, target, W, r, steps, lr, rng):
    """x (N, in), target (N, out), W (out, in), r and steps whole numbers, lr a number, rng an np.random.Generator
    -> A (r, in), B (out, r), trained."""
    n_out, n_in = W.shape
    A = rng.uniform(-1, 1, (r, n_in)) / np.sqrt(n_in)
    B = np.zeros((n_out, r))
    frozen = x @ W.T  # (N, out): W never changes, so this is computed once
    for _ in range(steps):
        u = x @ A.T  # (N, r)
        dy = (frozen + u @ B.T - target) / len(x)  # (N, out): the slope of (y − target)² / 2, and a mean over N rows
        dB = dy.T @ u  # (out, r)
        dA = (dy @ B).T @ x  # (r, in); zero in the first step, as B is
        A = A - lr * dA  # both gradients are those at the same point, so neither factor moves before both are computed
        B = B - lr * dB
    # How low: E minus a matrix of rank r has, at best, the energy σ²_{r+1} + σ²_{r+2} + … of E (Eckart–Young, lesson
    # 02). Divided by 2N that is the lowest L. It can be reached: some ΔW of rank r gives just E cut to rank r.
    # With both factors at zero nothing ever moves. With A as drawn, B sees r random directions of the inputs: by chance
    # they hold r / in of ΔW's energy, a quarter for 2 of 8.
    return A, B


def draw(rng, size):
    """A planted ΔW: r strong directions, and weak ones beside them that no adapter of rank r can have as well."""
    N, n_in, n_out, r = 20 * size.N, 2 * size.n_in, 2 * size.n_out, size.r
    n = min(n_in, n_out)
    U, V = (np.linalg.qr(rng.normal(size=(of, n)))[0] for of in (n_out, n_in))
    delta = U * np.append(np.linspace(3.0, 2.0, r), np.full(n - r, 0.4)) @ V.T
    x, W = rng.normal(size=(N, n_in)), rng.normal(size=(n_out, n_in))
    drawn = {"x": x, "target": x @ (W + delta).T, "W": W, "r": r, "steps": 250 + 25 * size.number}
    return drawn | {"lr": float(rng.uniform(0.08, 0.12)), "rng": np.random.default_rng(rng.integers(2**31))}


def also(i):
    """A few steps, and the start of a layer that is large enough to see what A is drawn from."""
    start = {"x": np.zeros((2, 300)), "target": np.zeros((2, 60)), "W": np.zeros((60, 300)), "r": 30, "steps": 0}
    starts = {"start": start, "start again": start, "other start": start | {"rng": np.random.default_rng(1)}}
    return {steps: {"steps": steps} for steps in (0, 1, 5, 6)} | starts


def properties(i, outputs):
    for name, axes, shape in (("A", "(r, in)", (i.r, i.x.shape[1])), ("B", "(out, r)", (len(i.W), i.r))):
        for of in (np.shape(outputs[name]), np.shape(i.also[0][name])):
            if of != shape:
                problem = f"{name} has shape {of}, expected {axes} = {shape}"
                return dict.fromkeys(HINTS, "there is nothing to look at") | {"the start": problem}
    if np.array_equal(i.also["start"]["A"], i.also["start again"]["A"]):
        problem, (of_A, of_B) = problem_of_start(i), (problem_of_steps(i, at) for at in (0, 1))
    else:
        problem = "A is another one for the same rng: it does not come from it"
        of_A = of_B = "they cannot be seen, because each call begins elsewhere"
    return dict(zip(HINTS, (problem, of_A, of_B, problem_of_loss(i, *factors(outputs)))))


def factors(outputs):
    return [np.asarray(outputs[name], dtype=np.float64) for name in OUTPUTS]


def problem_of_start(i):
    (A, B), (other, _), (_, B_small) = (factors(i.also[name]) for name in ("start", "other start", 0))
    bound = 1 / np.sqrt(300)
    if B.any() or B_small.any():
        return "with 0 steps B is not zero: the layer does not start as the base"
    if not A.any():
        return "A is zero as B is: then neither has a gradient, and nothing ever moves"
    if np.array_equal(A, other):
        return "A is the same for another rng: it does not come from it"
    if not 0.95 * bound < np.abs(A).max() <= bound * (1 + 1e-6) or not 0.95 < A.std() * np.sqrt(3) / bound < 1.05:
        return f"A is not uniform in ±1/√in: for in = 300 it goes from {A.min():.3f} to {A.max():.3f}, not ±{bound:.3f}"
    return None


def gradients(i, W, A, B):
    dy = (i.x @ (W + B @ A).T - i.target) / len(i.x)
    return (dy @ B).T @ i.x, dy.T @ (i.x @ A.T)


def problem_of_steps(i, at):
    """What is wrong with the way of a factor, A (at = 0) or B (1), from one step to the next, or None."""
    for n in (0, 5):
        before, after = factors(i.also[n]), factors(i.also[n + 1])
        right, move = gradients(i, i.W, *before)[at], (before[at] - after[at]) / i.lr
        slope, size = np.abs(right).max(), np.abs(before[at]).max() / i.lr
        if n and slope <= 1e-4 * size:
            return f"after {n} steps its gradient is 0: there is nowhere to go"
        near = 1e-3 * slope + 1e-6 * size  # in float32, too
        if not np.allclose(move, right, rtol=0, atol=near):
            with_new = [before[0], after[1]] if at == 0 else [after[0], before[1]]
            looks_like = {
                "it does not move": 0 * right,
                "it goes uphill": -right,
                "its gradient lacks the 1/N: the loss is a mean over the rows": len(i.x) * right,
                "its gradient is divided by the number of outputs as well": right / len(i.W),
                "its gradient is twice as large as it should be: the loss has a ½": 2 * right,
                "its gradient is taken after the other factor has moved": gradients(i, i.W, *with_new)[at],
                "x Wᵀ is missing in y": gradients(i, 0 * i.W, *before)[at],
            }
            found = [said for said, value in looks_like.items() if np.allclose(move, value, rtol=0, atol=near)]
            return f"in step {n + 1} {[*found, 'it moves by something else than lr times its gradient'][0]}"
    return None


def problem_of_loss(i, A, B):
    E = i.target - i.x @ i.W.T
    energy = np.linalg.svd(E, compute_uv=False) ** 2 / (2 * len(E))
    loss, base, best = np.sum((i.x @ A.T @ B.T - E) ** 2) / (2 * len(E)), energy.sum(), energy[i.r :].sum()
    if not np.isfinite(loss):
        return "the training diverges, to NaN or infinity"
    told = f"the loss is {loss:.4g}; without an adapter it is {base:.4g}, and {best:.4g} is possible at this rank"
    return None if loss <= 1.05 * best else told
