"""And by chance?

Two trainings have φ(8, 8) = 0.25. Is that much? It depends on n. Give the φ(i, j) that two **random** subspaces of an
n-dimensional space have on average.

**Derive it in three steps.** A random direction of length 1 has n coordinates, and none is privileged: how large is the
square of each on average? How much of its squared length is within i given orthonormal directions? (Choose the axes so
that these are the first i.) `V_j` has j such random columns: so how large is the energy of `U_iᵀ V_j`, and what is φ?

**Predict** for n = 256: φ(8, 8), φ(1, 8), φ(1, 256). And for which n is 0.25 nothing but chance?
"""

POINTS = 2
OUTPUTS = ("phi",)
HINTS = {"phi": "How much of a random direction's squared length is within i given ones? There are j such."}
FORMULA = "on average φ = (i j / n) / min(i, j) = max(i, j) / n"


def chance_similarity(n, i, j):
    """n, i, j whole numbers, i and j from 1 to n -> phi, a number from 0 to 1."""
    # n squares add up to 1 and are alike on average: 1/n each. Within i directions: i/n. From j columns: i j / n.
    energy = i * j / n
    return energy / min(i, j)  # that is max(i, j) / n
    # 8/256 = 0.03, and 0.03 again; 1, because every direction is within all 256. φ(8, 8) = 0.25 is chance for n = 32.


def draw(rng, size):
    i, j = sorted((size.n_out, size.n_in), reverse=size.number == 1)
    return {"n": 8 * size.V, "i": i, "j": j}


MISTAKES = {"phi": [("it is i/n times j/n: the factor 1/n is there twice", lambda d: d.i * d.j / d.n**2)]}

AFTER = """A judge of your own, for this task and the one before:

    rng = np.random.default_rng(0)
    random = [np.linalg.qr(rng.normal(size=(40, k)))[0] for k in (3, 5)]
    print(subspace_similarity(*random, 3, 5), chance_similarity(40, 3, 5))

Put it in a loop and take the mean. How much does a single pair scatter?
"""
