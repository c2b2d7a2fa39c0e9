"""Attempts at exercise set 07. Each begins with `# ==`, the item, and what it is: right; or wrong, and after it words
of the diagnosis that it has to get."""

# == stable_rank: right, by two norms
def stable_rank(M):
    return (np.linalg.norm(M) / np.linalg.norm(M, ord=2)) ** 2


# == stable_rank: right, from the eigenvalues of M Mᵀ
def stable_rank(M):
    gram = M @ M.T
    return np.trace(gram) / np.linalg.eigvalsh(gram).max()


# == stable_rank: right, by power iteration
def stable_rank(M):
    v = np.ones(M.shape[1])
    for _ in range(3000):
        v = M.T @ (M @ v)
        v /= np.sqrt(v @ v)
    return (M * M).sum() / np.sum((M @ v) ** 2)


# == stable_rank: wrong, the singular values are not squared
def stable_rank(M):
    sigma = np.linalg.svd(M)[1]
    return sigma.sum() / sigma[0]


# == stable_rank: wrong, has not been squared
def stable_rank(M):
    return np.linalg.norm(M) / np.linalg.norm(M, 2)


# == stable_rank: wrong, every singular value above 0 counts as one
def stable_rank(M):
    return np.linalg.matrix_rank(M)


# == stable_rank: wrong, the largest column sum stands where σ₁ belongs
def stable_rank(M):
    return np.sum(M**2) / np.linalg.norm(M, 1) ** 2


# == stable_rank: wrong, the effective rank
def stable_rank(M):
    sigma = np.linalg.svd(M, compute_uv=False)
    p = sigma / sigma.sum()
    return np.exp(-np.sum(p * np.log(p)))


# == stable_rank: wrong, the right value times σ₁
def stable_rank(M):
    sigma = np.linalg.svd(M, compute_uv=False)
    return (sigma**2).sum() / sigma[0]


# == stable_rank: wrong, the largest entry of M
def stable_rank(M):
    return (M**2).sum() / (M**2).max()


# == subspace_similarity: right, as a double loop over pairs
def subspace_similarity(U, V, i, j):
    total = 0.0
    for a in range(i):
        for b in range(j):
            total += float(np.dot(U[:, a], V[:, b])) ** 2
    return total / (i if i < j else j)


# == subspace_similarity: right, the mean squared cosine of the angles
def subspace_similarity(U, V, i, j):
    cos = np.linalg.svd(U[:, :i].T @ V[:, :j], compute_uv=False)
    return np.mean(cos**2)


# == subspace_similarity: right, by projections
def subspace_similarity(U, V, i, j):
    P, Q = (X @ X.T for X in (U[:, :i], V[:, :j]))
    return np.trace(P @ Q) / min(i, j)


# == subspace_similarity: right, from the table of all of them
def subspace_similarity(U, V, i, j):
    sums = np.einsum("np,nq->pq", U, V) ** 2
    return sums.cumsum(axis=0).cumsum(axis=1)[i - 1, j - 1] / np.minimum(i, j)


# == subspace_similarity: wrong, the norm is not squared
def subspace_similarity(U, V, i, j):
    return np.linalg.norm(U[:, :i].T @ V[:, :j]) / min(i, j)


# == subspace_similarity: wrong, divided by the larger
def subspace_similarity(U, V, i, j):
    return np.linalg.norm(U[:, :i].T @ V[:, :j]) ** 2 / max(i, j)


# == subspace_similarity: wrong, as a mean over all pairs
def subspace_similarity(U, V, i, j):
    return np.mean((U[:, :i].T @ V[:, :j]) ** 2)


# == subspace_similarity: wrong, all columns are taken
def subspace_similarity(U, V, i, j):
    return np.sum((U.T @ V) ** 2) / min(i, j)


# == subspace_similarity: wrong, only columns of the same number
def subspace_similarity(U, V, i, j):
    k = min(i, j)
    return sum((U[:, a] @ V[:, a]) ** 2 for a in range(k)) / k


# == subspace_similarity: wrong, i and j are exchanged
def subspace_similarity(U, V, i, j):
    return np.linalg.norm(U[:, :j].T @ V[:, :i]) ** 2 / min(i, j)


# == subspace_similarity: wrong, are not squared
def subspace_similarity(U, V, i, j):
    return np.linalg.svd(U[:, :i].T @ V[:, :j])[1].sum() / min(i, j)


# == subspace_similarity: wrong, times min(i, j)
def subspace_similarity(U, V, i, j):
    return np.linalg.norm(U[:, :i].T @ V[:, :j]) ** 2


# == subspace_similarity: wrong, it raises ValueError
def subspace_similarity(U, V, i, j):
    return np.linalg.norm(U[:i].T @ V[:j]) ** 2 / min(i, j)


# == chance_similarity: right, in one fraction
def chance_similarity(n, i, j):
    return max(i, j) / n


# == chance_similarity: right, by the expected product of two projections
def chance_similarity(n, i, j):
    projection = np.diag(np.arange(n) < i).astype(float)
    mean_of_other = j / n * np.eye(n)
    return np.trace(projection @ mean_of_other) / np.trace(np.eye(min(i, j)))


# == chance_similarity: wrong, the smaller of i and j
def chance_similarity(n, i, j):
    return min(i, j) / n


# == chance_similarity: wrong, not yet divided
def chance_similarity(n, i, j):
    return i * j / n


# == chance_similarity: wrong, each of the two brings a factor 1/n
def chance_similarity(n, i, j):
    return i / n * j / n


# == chance_similarity: wrong, for one direction on each side
def chance_similarity(n, i, j):
    return 1 / n


# == chance_similarity: wrong, the smaller of i and j
def chance_similarity(n, i, j):
    return i * j / (n * max(i, j))


# == chance_similarity: wrong, it is not 0
def chance_similarity(n, i, j):
    return 0.0


# == amplification: right, by einsum over the singular vectors
def amplification(W, update, r):
    U, sigma, Vt = np.linalg.svd(update)
    between = np.einsum("oa,oi,bi->ab", U[:, :r], W, Vt[:r])
    return (sigma**2).sum() ** 0.5 / (between**2).sum() ** 0.5


# == amplification: right, by projections of W
def amplification(W, update, r):
    P = np.zeros((len(W), len(W)))
    Q = np.zeros((W.shape[1], W.shape[1]))
    left = np.linalg.eigh(update @ update.T)[1][:, ::-1]
    right = np.linalg.eigh(update.T @ update)[1][:, ::-1]
    for k in range(r):
        P += np.outer(left[:, k], left[:, k])
        Q += np.outer(right[:, k], right[:, k])
    return np.sqrt(np.sum(update**2) / np.sum((P @ W @ Q) ** 2))


# == amplification: wrong, the fraction is upside down
def amplification(W, update, r):
    U, _, Vt = np.linalg.svd(update, full_matrices=False)
    return np.linalg.norm(U[:, :r].T @ W @ Vt[:r].T) / np.linalg.norm(update)


# == amplification: wrong, W's own directions are taken
def amplification(W, update, r):
    U, _, Vt = np.linalg.svd(W, full_matrices=False)
    return np.linalg.norm(update) / np.linalg.norm(U[:, :r].T @ W @ Vt[:r].T)


# == amplification: wrong, ΔW has been cut to r directions above the line
def amplification(W, update, r):
    U, sigma, Vt = np.linalg.svd(update, full_matrices=False)
    return np.sqrt(np.sum(sigma[:r] ** 2)) / np.linalg.norm(U[:, :r].T @ W @ Vt[:r].T)


# == amplification: wrong, from the output's side alone
def amplification(W, update, r):
    U, _, Vt = np.linalg.svd(update, full_matrices=False)
    return np.linalg.norm(update) / np.linalg.norm(U[:, :r].T @ W)


# == amplification: wrong, the whole of W stands below
def amplification(W, update, r):
    return np.linalg.norm(update) / np.linalg.norm(W)


# == amplification: wrong, it gives Vᵀ
def amplification(W, update, r):
    U, _, V = np.linalg.svd(update)
    return np.linalg.norm(update) / np.linalg.norm(U[:, :r].T @ W @ V[:, :r])


# == amplification: wrong, only the diagonal of Uᵀ W V
def amplification(W, update, r):
    U, _, Vt = np.linalg.svd(update, full_matrices=False)
    seen = [U[:, k] @ W @ Vt[k] for k in range(r)]
    return np.linalg.norm(update) / np.linalg.norm(seen)


# == amplification: wrong, stands for the norm above and below the line
def amplification(W, update, r):
    U, _, Vt = np.linalg.svd(update, full_matrices=False)
    return np.linalg.norm(update, 2) / np.linalg.norm(U[:, :r].T @ W @ Vt[:r].T, 2)


# == amplification: wrong, all directions of ΔW are taken
def amplification(W, update, r):
    U, sigma, Vt = np.linalg.svd(update, full_matrices=False)
    real = sigma > 1e-10 * sigma[0]
    return np.linalg.norm(update) / np.linalg.norm(U[:, real].T @ W @ Vt[real].T)


# == count_intruders: right, by loops
def count_intruders(W, W_tuned, k, epsilon):
    X = np.linalg.svd(W, full_matrices=False)[0]
    Y = np.linalg.svd(W_tuned, full_matrices=False)[0]
    best = [max(abs(float(x @ y)) for x in X.T) for y in Y.T[:k]]
    return np.array(best), len([b for b in best if b < epsilon])


# == count_intruders: right, from the eigenvectors of W Wᵀ
def count_intruders(W, W_tuned, k, epsilon):
    sigma2, X = np.linalg.eigh(W @ W.T)
    X = X[:, sigma2 > 1e-9 * sigma2.max()]
    Y = np.linalg.eigh(W_tuned @ W_tuned.T)[1][:, ::-1][:, :k]
    similarities = np.sqrt(((X.T @ Y) ** 2).max(axis=0))
    return {"number": (similarities < epsilon).sum(), "similarities": similarities}


# == count_intruders: right, with the transposed matrices
def count_intruders(W, W_tuned, k, epsilon):
    x = np.linalg.svd(W.T, full_matrices=False)[2]
    y = np.linalg.svd(W_tuned.T, full_matrices=False)[2]
    similarities = np.amax(np.abs(np.einsum("ao,bo->ab", y[:k], x)), axis=1)
    return [similarities, int(np.count_nonzero(similarities < epsilon))]


# == count_intruders: wrong, the signs are kept
def count_intruders(W, W_tuned, k, epsilon):
    X = np.linalg.svd(W, full_matrices=False)[0]
    Y = np.linalg.svd(W_tuned, full_matrices=False)[0][:, :k]
    similarities = (X.T @ Y).max(axis=0)
    return similarities, np.sum(similarities < epsilon)


# == count_intruders: wrong, only W's k leading directions are searched
def count_intruders(W, W_tuned, k, epsilon):
    X = np.linalg.svd(W, full_matrices=False)[0][:, :k]
    Y = np.linalg.svd(W_tuned, full_matrices=False)[0][:, :k]
    similarities = np.abs(X.T @ Y).max(axis=0)
    return similarities, np.sum(similarities < epsilon)


# == count_intruders: wrong, of the same number alone
def count_intruders(W, W_tuned, k, epsilon):
    X, Y = np.linalg.svd(W)[0], np.linalg.svd(W_tuned)[0]
    similarities = np.array([abs(X[:, a] @ Y[:, a]) for a in range(k)])
    return similarities, np.sum(similarities < epsilon)


# == count_intruders: wrong, beyond min(out, in) belong to no singular value
def count_intruders(W, W_tuned, k, epsilon):
    X, Y = np.linalg.svd(W)[0], np.linalg.svd(W_tuned)[0]
    similarities = np.abs(X.T @ Y[:, :k]).max(axis=0)
    return similarities, np.sum(similarities < epsilon)


# == count_intruders: wrong, these are directions of the input
def count_intruders(W, W_tuned, k, epsilon):
    X = np.linalg.svd(W, full_matrices=False)[2]
    Y = np.linalg.svd(W_tuned, full_matrices=False)[2]
    similarities = np.abs(Y[:k] @ X.T).max(axis=1)
    return similarities, np.sum(similarities < epsilon)


# == count_intruders: wrong, asked the other way round
def count_intruders(W, W_tuned, k, epsilon):
    X = np.linalg.svd(W, full_matrices=False)[0]
    Y = np.linalg.svd(W_tuned, full_matrices=False)[0]
    similarities = np.abs(Y.T @ X[:, :k]).max(axis=0)
    return similarities, np.sum(similarities < epsilon)


# == count_intruders: wrong, those are counted that the base does know
def count_intruders(W, W_tuned, k, epsilon):
    X = np.linalg.svd(W, full_matrices=False)[0]
    Y = np.linalg.svd(W_tuned, full_matrices=False)[0][:, :k]
    similarities = np.abs(X.T @ Y).max(axis=0)
    return similarities, np.sum(similarities >= epsilon)


# == count_intruders: wrong, not the k leading ones
def count_intruders(W, W_tuned, k, epsilon):
    X = np.linalg.svd(W, full_matrices=False)[0]
    Y = np.linalg.svd(W_tuned, full_matrices=False)[0]
    similarities = np.abs(X.T @ Y).max(axis=0)
    return similarities[:k], np.sum(similarities < epsilon)


# == count_intruders: wrong, the directions of ΔW = W_tuned − W
def count_intruders(W, W_tuned, k, epsilon):
    X = np.linalg.svd(W, full_matrices=False)[0]
    Y = np.linalg.svd(W_tuned - W, full_matrices=False)[0][:, :k]
    similarities = np.abs(X.T @ Y).max(axis=0)
    return similarities, np.sum(similarities < epsilon)


# == count_intruders: wrong, it has shape
def count_intruders(W, W_tuned, k, epsilon):
    X = np.linalg.svd(W, full_matrices=False)[0]
    Y = np.linalg.svd(W_tuned, full_matrices=False)[0][:, :k]
    similarities = np.abs(X.T @ Y).max(axis=1)
    return similarities, np.sum(similarities < epsilon)


# == adapter_directions: right, from an (in, in) matrix's eigenvectors
def adapter_directions(B, A, k):
    gram = A.T @ (B.T @ B) @ A
    return np.linalg.eigh(gram)[1][:, ::-1][:, :k]


# == adapter_directions: right, with B's part as a root of BᵀB
def adapter_directions(B, A, k):
    values, G = np.linalg.eigh(B.T @ B)
    root = np.sqrt(np.maximum(values, 0))[:, None] * G.T
    return np.linalg.svd(root @ A, full_matrices=False)[2].T[:, :k]


# == adapter_directions: right, with the left directions first
def adapter_directions(B, A, k):
    R_B, R_A = np.linalg.qr(B)[1], np.linalg.qr(A.T)[1]
    U, sigma, _ = np.linalg.svd(R_B @ R_A.T)
    V = A.T @ (R_B.T @ U)
    return V[:, :k] / sigma[:k]


# == adapter_directions: right, by the SVDs of both, and with the signs reversed
def adapter_directions(B, A, k):
    _, s_B, V_B = np.linalg.svd(B, full_matrices=False)
    U_A, s_A, V_A = np.linalg.svd(A, full_matrices=False)
    middle = np.diag(s_B) @ V_B @ U_A @ np.diag(s_A)
    return -(np.linalg.svd(middle)[2] @ V_A)[:k].T


# == adapter_directions: wrong, of A alone
def adapter_directions(B, A, k):
    return np.linalg.svd(A, full_matrices=False)[2][:k].T


# == adapter_directions: wrong, B A has been formed
def adapter_directions(B, A, k):
    return np.linalg.svd(B @ A)[2][:k].T


# == adapter_directions: wrong, that is the side of the output
def adapter_directions(B, A, k):
    R_B = np.linalg.qr(B)[1]
    Q_A, R_A = np.linalg.qr(A.T)
    U = np.linalg.svd(R_B @ R_A.T)[0]
    return Q_A @ U[:, :k]


# == adapter_directions: wrong, it gives Vᵀ
def adapter_directions(B, A, k):
    R_B = np.linalg.qr(B)[1]
    Q_A, R_A = np.linalg.qr(A.T)
    V = np.linalg.svd(R_B @ R_A.T)[2]
    return Q_A @ V[:, :k]


# == adapter_directions: wrong, A's R is not transposed
def adapter_directions(B, A, k):
    R_B = np.linalg.qr(B)[1]
    Q_A, R_A = np.linalg.qr(A.T)
    Vt = np.linalg.svd(R_B @ R_A)[2]
    return Q_A @ Vt[:k].T


# == adapter_directions: wrong, in the order of A's rows
def adapter_directions(B, A, k):
    return np.linalg.qr(A.T)[0][:, :k]


# == adapter_directions: wrong, the last k directions
def adapter_directions(B, A, k):
    values, V = np.linalg.eigh(A.T @ (B.T @ B) @ A)
    real = V[:, values > 1e-9 * values.max()][:, ::-1]
    return real[:, -k:]


# == adapter_directions: wrong, it has shape
def adapter_directions(B, A, k):
    Q_B, R_B = np.linalg.qr(B)
    R_A = np.linalg.qr(A.T)[1]
    return Q_B @ np.linalg.svd(R_B @ R_A.T)[0][:, :k]


# == adapter_directions: wrong, it has shape
def adapter_directions(B, A, k):
    R_B = np.linalg.qr(B)[1]
    Q_A, R_A = np.linalg.qr(A.T)
    return (Q_A @ np.linalg.svd(R_B @ R_A.T)[2][:k].T).T
