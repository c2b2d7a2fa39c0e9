"""3. Similarity by chance (2 points).

Two training runs have φ(8, 8) = 0.25. Whether that is a lot depends on the number of dimensions, n. Return the mean of
φ(i, j) for two **random** subspaces of an n-dimensional space.

**Derive it in three steps.** A random unit vector has n coordinates with the same distribution: what is the mean square
of each? On average, how much of a random unit vector's squared length is in the span of i given orthonormal
directions? (Choose the axes so that these directions are the first i axes.) Each of the j columns of `V_j` is a random
unit vector: so what is the mean of ‖U_iᵀ V_j‖², and what is φ?

**Predict** for n = 256: φ(8, 8), φ(1, 8), φ(1, 256). For which n is the mean of φ(8, 8) exactly 0.25?
"""

HINTS = {"phi": "How much of a random unit vector's squared length is along i given directions? V_j has j of them."}
FORMULA = "mean φ = (i j / n) / min(i, j) = max(i, j) / n"


def chance_similarity(n, i, j):
    """n, i, j ints, i and j from 1 to n -> phi, a float from 0 to 1."""
    # The n squares add up to 1 and have the same mean, 1/n. On average, those along i directions add up to i/n, and j
    # columns give i j / n.
    energy = i * j / n
    return energy / min(i, j)  # that is max(i, j) / n
    # φ(8, 8) and φ(1, 8) are 8/256 = 0.03; φ(1, 256) is 1, because 256 directions span the whole space. φ(8, 8) = 0.25
    # is the mean for n = 32.


def draw(rng, size):
    i, j = sorted((size.n_out, size.n_in), reverse=size.number == 1)
    return {"n": 8 * size.V, "i": i, "j": j}


MISTAKES = {
    "it is i/n times j/n: the factor 1/n occurs twice": lambda d: d.i * d.j / d.n**2,
    "this is the smaller one of i/n and j/n": lambda d: min(d.i, d.j) / d.n,
    "this is i/n, even if j is larger": lambda d: d.i / d.n,
    "this is j/n, even if i is larger": lambda d: d.j / d.n,
    "this is 1/n, the mean square of one coordinate": lambda d: 1 / d.n,
}

AFTER = """You can check this exercise and the previous one yourself:

    rng = np.random.default_rng(0)
    random = [np.linalg.qr(rng.normal(size=(40, k)))[0] for k in (3, 5)]
    print(subspace_similarity(*random, 3, 5), chance_similarity(40, 3, 5))

Put this in a loop and take the mean. How much do individual pairs scatter around it?"""
