"""Attempts at exercise set 09: `# ==`, the exercise, and right; or wrong, and words of the diagnosis."""
# == stable_rank: right, by two norms
def stable_rank(M):
    return (np.linalg.norm(M) / np.linalg.norm(M, ord=2)) ** 2

# == stable_rank: wrong, it is the square root of the correct value
def stable_rank(M):
    return np.linalg.norm(M) / np.linalg.norm(M, 2)

# == subspace_similarity: right, by projections
def subspace_similarity(U, V, i, j):
    P, Q = (X @ X.T for X in (U[:, :i], V[:, :j]))
    return np.trace(P @ Q) / min(i, j)

# == subspace_similarity: wrong, phi has np.linalg.norm((U[:, :i].T @ V[:, :j])) without the exponent 2
def subspace_similarity(U, V, i, j):
    return np.linalg.norm(U[:, :i].T @ V[:, :j]) / min(i, j)

# == chance_similarity: right, in one fraction
def chance_similarity(n, i, j):
    return max(i, j) / n

# == chance_similarity: wrong, phi lacks the divisor min(i, j)
def chance_similarity(n, i, j):
    return i * j / n

# == amplification: right, by einsum over the singular vectors
def amplification(W, update, r):
    U, sigma, Vt = np.linalg.svd(update)
    between = np.einsum("oa,oi,bi->ab", U[:, :r], W, Vt[:r])
    return (sigma**2).sum() ** 0.5 / (between**2).sum() ** 0.5

# == amplification: wrong, factor has W in place of (U[:, :r].T @ W @ Vt[:r].T)
def amplification(W, update, r):
    return np.linalg.norm(update) / np.linalg.norm(W)

# == count_intruders: right, by loops
def count_intruders(W, W_tuned, k, epsilon):
    X = np.linalg.svd(W, full_matrices=False)[0]
    Y = np.linalg.svd(W_tuned, full_matrices=False)[0]
    best = [max(abs(float(x @ y)) for x in X.T) for y in Y.T[:k]]
    return np.array(best), len([b for b in best if b < epsilon])

# == count_intruders: wrong, an intermediate result lacks full_matrices=False in svd
def count_intruders(W, W_tuned, k, epsilon):
    X, Y = np.linalg.svd(W)[0], np.linalg.svd(W_tuned)[0]
    similarities = np.abs(X.T @ Y[:, :k]).max(axis=0)
    return similarities, np.sum(similarities < epsilon)

# == adapter_directions: right, from an (in, in) matrix's eigenvectors
def adapter_directions(B, A, k):
    gram = A.T @ (B.T @ B) @ A
    return np.linalg.eigh(gram)[1][:, ::-1][:, :k]

# == adapter_directions: wrong, V takes np.linalg.svd(small)[2][-k:], not np.linalg.svd(small)[2][:k]
def adapter_directions(B, A, k):
    values, V = np.linalg.eigh(A.T @ (B.T @ B) @ A)
    real = V[:, values > 1e-9 * values.max()][:, ::-1]
    return real[:, -k:]

# == chance_similarity: right, as a fraction
def chance_similarity(n, i, j):
    from fractions import Fraction
    return Fraction(max(i, j), n)

# == adapter_directions: wrong, it forms B A or another array of that size
def adapter_directions(B, A, k):
    return np.linalg.svd(B @ A)[2][:k].T

# == count_intruders: wrong, it is 2 for all inputs
def count_intruders(W, W_tuned, k, epsilon):
    return np.zeros(k), 2
