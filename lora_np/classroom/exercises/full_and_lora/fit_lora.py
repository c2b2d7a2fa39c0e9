"""6. The project: LoRA on one layer (6 points).

The second session begins with one linear layer, small enough to inspect completely. The layer's weight `W` (out, in) is
frozen. There is a better weight, W + ΔW, but ΔW is unknown: you have only inputs `x` (N, in) and the better weight's
outputs for them, `target` (N, out). **Find ΔW = B A with LoRA** (s = 1): minimise

    y = x Wᵀ + x Aᵀ Bᵀ        L = Σ (y − target)² / (2 N)        the sum runs over all rows and outputs

by gradient descent: take `steps` steps with learning rate `lr`. In each step, compute both gradients before you update
either factor. Initialise `A` and `B` as in exercise set 07, with random numbers from `rng`. For comparison, this is
full fine-tuning of the layer:

    for _ in range(steps):
        dy = (x @ W.T - target) / len(x)  # (N, out)
        W = W - lr * dy.T @ x

**Derive first** what LoRA changes in these lines. **Then: how low can L get?** The frozen layer's error is `E = target
− x Wᵀ` (N, out); an adapter can add a matrix of rank at most r to its outputs. Which lesson shows how small the
remaining error can be, and how do you compute it from `E`? Your loss may exceed the lowest possible one by at most 5 %.
The check also looks at single steps: it calls your function with `steps` = 0, 1, 5 and 6.

**Predict:** which of the two gradients is zero in the first step? What happens if both factors start at zero? If only
`B` is trained, while `A` keeps its initial value, roughly what share of ΔW's energy can be learnt, for r = 2 and
in = 8?
"""

import numpy as np

OUTPUTS = ("A", "B")
HINTS = {
    "the start": "Shapes and initial values are those of exercise set 07. With 0 steps, return the initial A and B.",
    "the steps of A": "Compare dA with central differences of the loss. At which B must it be computed?",
    "the steps of B": "Compare dB with central differences of the loss. Does dy include the 1/N of the mean?",
    "within 5 %": "Print the loss: does it fall, and does it still fall at the end?",
}
FORMULA = """y = x Wᵀ + u Bᵀ,  u = x Aᵀ,  dy = (y − target) / N
dB = dyᵀ u,  dA = (dy B)ᵀ x
A ← A − lr dA,  B ← B − lr dB,  from A ~ U(−1/√in, +1/√in) and B = 0"""


def fit_lora(x, target, W, r, steps, lr, rng):
    """x (N, in), target (N, out), W (out, in), r and steps ints, lr a float, rng an np.random.Generator
    -> the trained A (r, in) and B (out, r)."""
    n_out, n_in = W.shape
    A = rng.uniform(-1, 1, (r, n_in)) / np.sqrt(n_in)
    B = np.zeros((n_out, r))
    frozen = x @ W.T  # (N, out): W never changes, so this is computed only once
    for _ in range(steps):
        u = x @ A.T  # (N, r)
        dy = (frozen + u @ B.T - target) / len(x)  # (N, out): the slope of (y − target)² / 2, averaged over N rows
        dB = dy.T @ u  # (out, r)
        dA = (dy @ B).T @ x  # (r, in); zero in the first step, because B is zero
        A = A - lr * dA  # both gradients are taken at the same point, so both are computed before either factor moves
        B = B - lr * dB
    # How low: E minus a matrix of rank r has at least the energy σ²_{r+1} + σ²_{r+2} + … of E (Eckart–Young, lesson
    # 02). Divided by 2N, that is the lowest L. It can be reached: some ΔW of rank r adds exactly E truncated to rank r.
    # If both factors start at zero, nothing ever moves. With a fixed random A, B sees r random directions of the
    # inputs: on average they hold r / in of ΔW's energy, a quarter for r = 2 and in = 8.
    return A, B


def draw(rng, size):
    """Plant a ΔW with r strong directions, which fill an adapter of rank r, and several weak ones."""
    N, n_in, n_out, r = 20 * size.N, 2 * size.n_in, 2 * size.n_out, size.r
    n = min(n_in, n_out)
    U, V = (np.linalg.qr(rng.normal(size=(of, n)))[0] for of in (n_out, n_in))
    delta = U * np.append(np.linspace(3.0, 2.0, r), np.full(n - r, 0.4)) @ V.T
    x, W = rng.normal(size=(N, n_in)), rng.normal(size=(n_out, n_in))
    drawn = {"x": x, "target": x @ (W + delta).T, "W": W, "r": r, "steps": 250 + 25 * size.number}
    return drawn | {"lr": float(rng.uniform(0.08, 0.12)), "rng": np.random.default_rng(rng.integers(2**31))}


def also(i):
    """Also run 0, 1, 5 and 6 steps, and initialise a layer that is large enough to reveal the distribution of A."""
    start = {"x": np.zeros((2, 300)), "target": np.zeros((2, 60)), "W": np.zeros((60, 300)), "r": 30, "steps": 0}
    starts = {"start": start, "start again": start, "other start": start | {"rng": np.random.default_rng(1)}}
    return {steps: {"steps": steps} for steps in (0, 1, 5, 6)} | starts


def properties(i, outputs):
    for name, axes, shape in (("A", "(r, in)", (i.r, i.x.shape[1])), ("B", "(out, r)", (len(i.W), i.r))):
        for of in (np.shape(outputs[name]), np.shape(i.also[0][name])):
            if of != shape:
                problem = f"{name} has shape {of}, expected {axes} = {shape}"
                return dict.fromkeys(HINTS, "it cannot be checked") | {"the start": problem}
    if np.array_equal(i.also["start"]["A"], i.also["start again"]["A"]):
        problem, (of_A, of_B) = problem_of_start(i), (problem_of_steps(i, at) for at in (0, 1))
    else:
        problem = "A differs between two calls with the same rng: it is not drawn from rng"
        of_A = of_B = "they cannot be checked, because each call starts from a different A"
    return dict(zip(HINTS, (problem, of_A, of_B, problem_of_loss(i, *factors(outputs)))))


def factors(outputs):
    return [np.asarray(outputs[name], dtype=np.float64) for name in OUTPUTS]


def problem_of_start(i):
    (A, B), (other, _), (_, B_small) = (factors(i.also[name]) for name in ("start", "other start", 0))
    bound = 1 / np.sqrt(300)
    if B.any() or B_small.any():
        return "with 0 steps B is not zero: training must start from the base's outputs"
    if not A.any():
        return "A and B are both zero: then both gradients are zero, and nothing ever moves"
    if np.array_equal(A, other):
        return "A is the same for another rng: it is not drawn from rng"
    if not 0.95 * bound < np.abs(A).max() <= bound * (1 + 1e-6) or not 0.95 < A.std() * np.sqrt(3) / bound < 1.05:
        return f"A is not uniform in ±1/√in: for in = 300 it is in {A.min():.3f} … {A.max():.3f}, expected ±{bound:.3f}"
    return None


def gradients(i, W, A, B, factors=None):
    dy = (i.x @ (W + B @ A).T - i.target) / len(i.x)
    A, B = factors or (A, B)
    return (dy @ B).T @ i.x, dy.T @ (i.x @ A.T)


def problem_of_steps(i, at):
    """Describe what is wrong with the updates of A (`at` = 0) or B (`at` = 1); return None if they are correct."""
    for n in (0, 5):
        before, after = factors(i.also[n]), factors(i.also[n + 1])
        right, move = gradients(i, i.W, *before)[at], (before[at] - after[at]) / i.lr
        slope, size = np.abs(right).max(), np.abs(before[at]).max() / i.lr
        if n and slope <= 1e-4 * size:
            return f"after {n} steps its gradient is 0: it cannot move any further"
        near = 1e-3 * slope + 1e-6 * size  # float32 must pass, too
        if not np.allclose(move, right, rtol=0, atol=near):
            with_new = [before[0], after[1]] if at == 0 else [after[0], before[1]]
            looks_like = {
                "it does not move": 0 * right,
                "it goes uphill": -right,
                "its gradient lacks the 1/N: the loss is a mean over the rows": len(i.x) * right,
                "its gradient is divided by the number of outputs as well": right / len(i.W),
                "its gradient is twice the correct one: the loss has a factor ½": 2 * right,
                "its gradient is computed after the other factor has moved": gradients(i, i.W, *with_new)[at],
                "its gradient contains a factor that has already moved": gradients(i, i.W, *before, with_new)[at],
                "dy is still that of step 1, without B A": gradients(i, i.W - before[1] @ before[0], *before)[at],
                "x Wᵀ is missing from y": gradients(i, 0 * i.W, *before)[at],
            }
            found = [said for said, value in looks_like.items() if np.allclose(move, value, rtol=0, atol=near)]
            return f"in step {n + 1} {[*found, 'it does not move by −lr times its gradient'][0]}"
    return None


def problem_of_loss(i, A, B):
    E = i.target - i.x @ i.W.T
    energy = np.linalg.svd(E, compute_uv=False) ** 2 / (2 * len(E))
    loss, base, best = np.sum((i.x @ A.T @ B.T - E) ** 2) / (2 * len(E)), energy.sum(), energy[i.r :].sum()
    if not np.isfinite(loss):
        return "training diverges to NaN or infinity"
    told = f"the loss is {loss:.4g}; it is {base:.4g} without an adapter, and {best:.4g} at best for this rank"
    return None if loss <= 1.05 * best else told
