"""The notebook cells for the second session's experiment; they are not graded automatically."""

PROBLEM = """## 7. Your experiment

Everyone who fine-tunes with LoRA must choose r. But **which rank should you choose, and what does the choice depend
on?** You now have the tools to find out. `planted(k, seed)` generates a problem whose true ΔW has rank k (k equal
singular values, and ‖ΔW‖ = 6 for each k). There are only 48 training rows and 500 test rows, and each entry of `target`
has some noise, like every measurement.

**Before anything runs**, write down your guess: if the planted rank is 2, which r has the lowest *training* loss, and
which has the lowest *test* loss? How does full fine-tuning compare? Then compute a baseline: what is the mean loss of
the *true* weight W + ΔW if each of the 16 outputs has noise of standard deviation 0.7?
"""

GIVEN = '''N_OUT, N_IN, NOISE = 16, 24, 0.7


def planted(k, seed):
    """A problem whose ΔW has rank k: W (out, in), (x, target) to train on, and (x, target) to test on."""
    rng = np.random.default_rng(seed)
    W = rng.normal(size=(N_OUT, N_IN))
    U, V = (np.linalg.qr(rng.normal(size=(n, k)))[0] for n in (N_OUT, N_IN))  # (out, k), (in, k), orthonormal columns
    better = W + 6 / np.sqrt(k) * U @ V.T  # (out, in)

    def rows(N):
        x = rng.normal(size=(N, N_IN))
        return x, x @ better.T + NOISE * rng.normal(size=(N, N_OUT))

    return W, rows(48), rows(500)


def fit_full(x, target, W, steps, lr):
    """Full fine-tuning of the layer -> the tuned weight (out, in)."""
    for _ in range(steps):
        W = W - lr * ((x @ W.T - target) / len(x)).T @ x
    return W


def loss(x, target, W):
    return np.sum((x @ W.T - target) ** 2) / (2 * len(x))
'''

TASK = """Write the experiment. For planted ranks of 2 and 16 (16 is full rank here), train LoRA with at least four
ranks and full fine-tuning, each with at least three seeds, for 200 steps with `lr = 0.1`. Print one table for each
planted rank. The rows are: no adapter, each rank, full. The columns are: the number of trained weights, the training
loss and the test loss; give the mean and standard deviation of each loss over the seeds. A reader should understand the
table without your code.
"""

SOLUTION = r'''STEPS, LR, SEEDS, RANKS = 200, 0.1, (0, 1, 2), (1, 2, 4, 16)


def tuned_weights(k, seed):
    """Train with each method: name -> (number of trained weights, training loss, test loss)."""
    W, train, test = planted(k, seed)
    weights = {"no adapter": (0, W)}
    for r in RANKS:
        A, B = fit_lora(*train, W, r, STEPS, LR, np.random.default_rng(seed))
        weights[f"LoRA, r = {r}"] = (A.size + B.size, W + B @ A)
    weights["full"] = (W.size, fit_full(*train, W, STEPS, LR))
    return {name: (size, loss(*train, weight), loss(*test, weight)) for name, (size, weight) in weights.items()}


# The true weight's only error is the noise, whose mean square is 0.7² in each of 16 outputs; L is half of their sum.
print(f"Loss, mean ± standard deviation over {len(SEEDS)} seeds; the true weight has {N_OUT * NOISE**2 / 2:.1f}")
for k in (2, 16):
    found = [tuned_weights(k, seed) for seed in SEEDS]
    print(f"\nplanted rank {k:<4}weights trained    training loss        test loss")
    for name in found[0]:
        sizes, *losses = np.array([of_seed[name] for of_seed in found]).T  # (seeds,) each
        columns = "".join(f"{of.mean():>11.2f} ± {of.std():.2f}" for of in losses)
        print(f"{name:<16}{sizes[0]:>16.0f}{columns}")
'''

PARTS = (("markdown", PROBLEM), ("code", GIVEN), ("markdown", TASK), ("solution", SOLUTION))
