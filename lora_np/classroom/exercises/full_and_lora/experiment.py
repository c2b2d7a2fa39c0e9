"""The experiment of the second sitting: cells that no program grades."""

PARTS = (
    (
        "markdown",
        """## {n}. Your experiment

Everyone who fine-tunes must choose r. So: **which rank should you take, and what does that depend on?** You have what
you need to find out. `planted(k, seed)` makes a problem whose true ΔW has rank k (k equal singular values, and ‖ΔW‖ = 6
for each k). There are only 48 rows to train on, 500 others to test on, and each number of `target` has some noise,
as all measurements have.

**Before anything runs**, write down your guess: if the planted rank is 2, which r has the lowest *training* loss, and
which the lowest *test* loss? And full fine-tuning? Then work out a yardstick: what is the loss of the *true* weight W +
ΔW, on average, if each of the 16 outputs has a noise of standard deviation 0.7?
""",
    ),
    (
        "given",
        '''N_OUT, N_IN, NOISE = 16, 24, 0.7


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
''',
    ),
    (
        "markdown",
        """Write the experiment. For a planted rank of 2 and one of 16 (here that is full rank), train LoRA of at least
four ranks and full fine-tuning, each from at least three seeds, with 200 steps of `lr = 0.1`. Print one table for each
planted rank. Its rows: no adapter, each rank, full. Its columns: how many numbers were trained; training loss and test
loss, each as a mean over the seeds with its standard deviation. A reader should understand it without your code.
""",
    ),
    (
        "solution",
        r'''STEPS, LR, SEEDS, RANKS = 200, 0.1, (0, 1, 2), (1, 2, 4, 16)


def tuned_weights(k, seed):
    """Each method's weight after training, with its losses: name -> (numbers trained, training loss, test loss)."""
    W, train, test = planted(k, seed)
    weights = {"no adapter": (0, W)}
    for r in RANKS:
        A, B = fit_lora(*train, W, r, STEPS, LR, np.random.default_rng(seed))
        weights[f"LoRA, r = {r}"] = (A.size + B.size, W + B @ A)
    weights["full"] = (W.size, fit_full(*train, W, STEPS, LR))
    return {name: (size, loss(*train, weight), loss(*test, weight)) for name, (size, weight) in weights.items()}


# The true weight is off by the noise alone, whose mean square is 0.7² in each of 16 outputs; L is half of their sum.
print(f"Loss, mean ± standard deviation over {len(SEEDS)} seeds; the true weight has {N_OUT * NOISE**2 / 2:.1f}")
for k in (2, 16):
    found = [tuned_weights(k, seed) for seed in SEEDS]
    print(f"\nplanted rank {k:<4}numbers trained    training loss        test loss")
    for name in found[0]:
        sizes, *losses = np.array([of_seed[name] for of_seed in found]).T  # (seeds,) each
        columns = "".join(f"{of.mean():>11.2f} ± {of.std():.2f}" for of in losses)
        print(f"{name:<16}{sizes[0]:>16.0f}{columns}")
''',
    ),
)
