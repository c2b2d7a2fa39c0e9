"""3. Initialisation (3 points).

Training must start from the unchanged base model, and its first step must change `A` or `B`. Draw `A` uniformly between
−1/√in and 1/√in with `rng.uniform`, and choose the initial `B` yourself.
"""

import numpy as np

HINTS = {
    "A": "A is drawn uniformly from an interval around 0 whose width depends on the number of inputs.",
    "B": "At the start, ΔW = s B A must be zero for any A.",
}
FORMULA = "A ~ U(−1/√in, +1/√in) of shape (r, in);  B = 0 of shape (out, r)"


def lora_init(n_out, n_in, r, rng):
    """n_out, n_in, r ints, rng an np.random.Generator -> A (r, in), B (out, r)."""
    bound = 1 / np.sqrt(n_in)
    return rng.uniform(-bound, bound, (r, n_in)), np.zeros((n_out, r))


def draw(rng, size):
    seed = int(rng.integers(2**31))
    return {"n_out": 40 * size.n_out, "n_in": 30 * size.n_in, "r": size.r, "rng": np.random.default_rng(seed)}


def properties(i, outputs):
    found = {}
    for name, problem_of in (("A", problem_of_A), ("B", problem_of_B)):
        array, dtype = np.asarray(outputs[name], dtype=np.float64), np.asarray(outputs[name]).dtype
        finite = np.isfinite(array).all()
        found[name] = problem_of(array, i) if finite else "it contains NaN or infinity"
        if found[name] is None and dtype.kind != "f":
            found[name] = f"it has dtype {dtype}, expected float64, because it will be trained"
    return found


def problem_of_A(A, i):
    if A.shape != (i.r, i.n_in):
        return f"it has shape {A.shape}, expected (r, in) = {(i.r, i.n_in)}"
    bound, largest, deviation = 1 / np.sqrt(i.n_in), float(np.abs(A).max()), float(A.std())
    if largest == 0.0:
        return "it is zero: if both factors are zero, so are both gradients, and training changes nothing"
    if deviation < 1e-12 * largest:
        return "all its entries are equal: its rows would always remain equal"
    if np.linalg.matrix_rank(A) < i.r:
        return "its rows are linearly dependent"
    if abs(A.mean()) > 0.2 * largest:
        return f"its mean is {A.mean():.2g}, expected about 0: the interval is symmetric about 0"
    if deviation < 0.45 * largest:  # 0.58 for a uniform distribution
        return f"it looks like a normal distribution with standard deviation {deviation:.2g}, expected U(±1/√in)"
    if deviation > 0.9 * largest:
        return "all its entries have the same magnitude, expected U(±1/√in)"
    if not 0.9 * bound < largest <= bound * (1 + 1e-6):
        others = {"U(±1)": 1.0, "±1/in": 1 / i.n_in, "±1/√r": i.r**-0.5, "±1/√out": i.n_out**-0.5, "±1/r": 1 / i.r}
        looks = [f": it looks like {name}" for name, other in others.items() if 0.9 * other < largest <= other]
        said = f"its largest entry is {largest:.3g}, expected just below 1/√in = {bound:.3g}"
        return said + "".join(looks[:1])
    if abs(deviation * np.sqrt(3) / bound - 1) > 0.15:  # bound / √3 for U(±bound)
        return f"its standard deviation is {deviation:.3g}, expected {bound / 3**0.5:.3g} for U(±1/√in)"
    if i.given["rng"].bit_generator.state == i.rng.bit_generator.state:
        return "rng was not used, so the draw is not reproducible"
    return None


def problem_of_B(B, i):
    if B.shape != (i.n_out, i.r):
        return f"it has shape {B.shape}, expected (out, r) = {(i.n_out, i.r)}"
    return "it is not zero: the adapted model would not start from the base" if np.any(B) else None
