"""Attempts at exercise set 01. Each begins with `# ==`, the item, and what it is: right; or wrong, and after it words
of the diagnosis that it has to get."""

# == adapter_size: right, by making the arrays
def adapter_size(n_out, n_in, r):
    B, A = np.zeros((n_out, r)), np.zeros((r, n_in))
    return B.size + A.size


# == adapter_size: right, direction by direction
def adapter_size(n_out, n_in, r):
    count = 0
    for _ in range(r):
        count += n_out + n_in
    return float(count)


# == adapter_size: wrong, the full matrix
def adapter_size(n_out, n_in, r):
    return np.zeros((n_out, n_in)).size


# == adapter_size: wrong, this is B's count alone
def adapter_size(n_out, n_in, r):
    return n_out * r


# == adapter_size: wrong, out, in and r are multiplied
def adapter_size(n_out, n_in, r):
    return int(np.prod([n_out, n_in, r]))


# == adapter_size: wrong, divided by r
def adapter_size(n_out, n_in, r):
    return n_out + n_in


# == adapter_size: wrong, multiplied, not added
def adapter_size(n_out, n_in, r):
    return (n_out * r) * (r * n_in)


# == adapter_size: wrong, counted as if they were B
def adapter_size(n_out, n_in, r):
    return 2 * r * n_out


# == adapter_size: wrong, so many of the numbers are redundant
def adapter_size(n_out, n_in, r):
    return r * (n_out + n_in - r)


# == adapter_size: wrong, it returns nothing
def adapter_size(n_out, n_in, r):
    print(r * (n_out + n_in))


# == largest_saving_rank: right, by trying
def largest_saving_rank(n_out, n_in):
    r = 0
    while (r + 1) * (n_out + n_in) < n_out * n_in:
        r += 1
    return r


# == largest_saving_rank: right, with a remainder
def largest_saving_rank(n_out, n_in):
    r, left = divmod(n_out * n_in, n_out + n_in)
    return r if left else r - 1


# == largest_saving_rank: right, in fractions
def largest_saving_rank(n_out, n_in):
    return np.ceil(1 / (1 / n_out + 1 / n_in) - 1e-9) - 1


# == largest_saving_rank: wrong, just as many numbers as W
def largest_saving_rank(n_out, n_in):
    return n_out * n_in // (n_out + n_in)


# == largest_saving_rank: wrong, have more numbers than W
def largest_saving_rank(n_out, n_in):
    r = 0
    while r * (n_out + n_in) <= n_out * n_in:
        r += 1
    return r


# == largest_saving_rank: wrong, would still have fewer numbers
def largest_saving_rank(n_out, n_in):
    return n_out * n_in // (n_out + n_in) - 1


# == largest_saving_rank: wrong, it is no whole number
def largest_saving_rank(n_out, n_in):
    return n_out * n_in / (n_out + n_in) - 1


# == largest_saving_rank: wrong, the largest rank that W can have
def largest_saving_rank(n_out, n_in):
    return min(n_out, n_in)


# == largest_saving_rank: wrong, half the shorter side
def largest_saving_rank(n_out, n_in):
    return min(n_out, n_in) // 2


# == largest_saving_rank: wrong, a quarter of both sides
def largest_saving_rank(n_out, n_in):
    return int((n_out + n_in) / 2) // 2


# == product_column: right, by a sum over the r outer products
def product_column(B, A, j):
    column = np.zeros(len(B))
    for k in range(A.shape[0]):
        column += A[k, j] * B[:, k]
    return column


# == product_column: right, by einsum
def product_column(B, A, j):
    return np.einsum("ok,k->o", B, A[:, j])


# == product_column: right, with an input that is 1 at j alone
def product_column(B, A, j):
    x = np.zeros(A.shape[1])
    x[j] = 1.0
    return B.dot(A.dot(x))


# == product_column: right, in plain Python
def product_column(B, A, j):
    reads = [row[j] for row in A.tolist()]
    return np.array([sum(b * a for b, a in zip(row, reads)) for row in B.tolist()])


# == product_column: wrong, B A has been formed
def product_column(B, A, j):
    return (B @ A)[:, j]


# == product_column: wrong, B A has been formed
def product_column(B, A, j):
    full = np.einsum("ok,ki->oi", np.asarray(B), A)
    return full[:, j]


# == product_column: wrong, B A has been formed
def product_column(B, A, j):
    full = sum(np.outer(B[:, k], A[k]) for k in range(len(A)))
    return full.T[j]


# == product_column: wrong, this is column j of B
def product_column(B, A, j):
    return B[:, j].copy()


# == product_column: wrong, column j − 1
def product_column(B, A, j):
    return B @ A[:, j - 1]


# == product_column: wrong, only the last of the r products
def product_column(B, A, j):
    for k in range(A.shape[0]):
        column = B[:, k] * A[k, j]
    return column


# == product_column: wrong, added up first and multiplied after that
def product_column(B, A, j):
    return np.array([b.sum() * A[:, j].sum() for b in B])


# == product_column: wrong, the sum of all columns
def product_column(B, A, j):
    return B @ (A @ np.ones(A.shape[1]))


# == product_column: wrong, it has shape
def product_column(B, A, j):
    return B[j] @ A


# == product_column: wrong, it has shape
def product_column(B, A, j):
    return B @ A[:, [j]]


# == truncate: right, a sum of outer products
def truncate(M, k):
    U, S, Vt = np.linalg.svd(M)
    total = np.zeros_like(M)
    for i in range(k):
        total += S[i] * np.outer(U[:, i], Vt[i, :])
    return total


# == truncate: right, with the weak singular values at zero
def truncate(M, k):
    U, S, Vt = np.linalg.svd(M, full_matrices=False)
    S[k:] = 0
    return U @ np.diag(S) @ Vt


# == truncate: right, projected on the leading eigenvectors
def truncate(M, k):
    _, vectors = np.linalg.eigh(M @ M.T)
    strongest = vectors[:, len(M) - k :]
    return strongest @ (strongest.T @ M)


# == truncate: wrong, the k weakest directions
def truncate(M, k):
    U, S, Vt = np.linalg.svd(M, full_matrices=False)
    return U[:, -k:] @ np.diag(S[-k:]) @ Vt[-k:]


# == truncate: wrong, this is what was cut off
def truncate(M, k):
    U, S, Vt = np.linalg.svd(M, full_matrices=False)
    return (U[:, k:] * S[k:]) @ Vt[k:, :]


# == truncate: wrong, Σ is missing
def truncate(M, k):
    U, S, Vt = np.linalg.svd(M, full_matrices=False)
    return U[:, :k] @ Vt[:k]


# == truncate: wrong, σ² stands where σ belongs
def truncate(M, k):
    U, S, Vt = np.linalg.svd(M, full_matrices=False)
    B, A = U[:, :k] * S[:k], S[:k, None] * Vt[:k]
    return B @ A


# == truncate: wrong, it gives Vᵀ
def truncate(M, k):
    U, S, V = np.linalg.svd(M)
    return U[:, :k] @ np.diag(S[:k]) @ V[:, :k].T


# == truncate: wrong, the rows of U are taken
def truncate(M, k):
    U, S, Vt = np.linalg.svd(M)
    return sum(S[i] * np.outer(U[i], Vt[i]) for i in range(k))


# == truncate: wrong, one term too many
def truncate(M, k):
    U, S, Vt = np.linalg.svd(M, full_matrices=False)
    return sum(S[i] * np.outer(U[:, i], Vt[i]) for i in range(k + 1))


# == truncate: wrong, the first k columns of M are kept
def truncate(M, k):
    cut = M.copy()
    cut[:, k:] = 0.0
    return cut


# == truncate: wrong, means have been taken off before the cut and put back
def truncate(M, k):
    mean = M.mean(axis=0, keepdims=True)
    U, S, Vt = np.linalg.svd(M - mean, full_matrices=False)
    return (U[:, :k] * S[:k]) @ Vt[:k] + mean


# == truncate: wrong, it has shape
def truncate(M, k):
    U, S, Vt = np.linalg.svd(M, full_matrices=False)
    return U[:, :k] * S[:k]


# == energy_share: right, as a ratio of lengths, squared
def energy_share(sigma, k):
    return (np.linalg.norm(sigma[:k]) / np.linalg.norm(sigma)) ** 2


# == energy_share: right, one minus what is lost
def energy_share(sigma, k):
    energies = [float(s) ** 2 for s in sigma]
    lost = sum(energies[k:]) / sum(energies)
    return 1 - lost


# == energy_share: right, from a diagonal matrix
def energy_share(sigma, k):
    M = np.diag(sigma)
    M_k = np.where(np.arange(len(sigma)) < k, M, 0)
    return (M_k**2).sum() / np.trace(M.T @ M)


# == energy_share: wrong, σ stands where σ² belongs
def energy_share(sigma, k):
    return sigma[:k].sum() / sigma.sum()


# == energy_share: wrong, added up first and squared after that
def energy_share(sigma, k):
    return (np.sum(sigma[:k]) / np.sum(sigma)) ** 2


# == energy_share: wrong, a square root has been taken
def energy_share(sigma, k):
    return np.linalg.norm(sigma[:k]) / np.linalg.norm(sigma)


# == energy_share: wrong, the share that is lost
def energy_share(sigma, k):
    return np.sum(sigma[k:] ** 2) / np.sum(sigma**2)


# == energy_share: wrong, the relative error of the cut
def energy_share(sigma, k):
    return np.sqrt(np.sum(sigma[k:] ** 2)) / np.sqrt(np.sum(sigma**2))


# == energy_share: wrong, one direction too few
def energy_share(sigma, k):
    return np.sum(sigma[: k - 1] ** 2) / np.sum(sigma**2)


# == energy_share: wrong, this is direction k + 1 alone
def energy_share(sigma, k):
    return sigma[k] ** 2 / np.sum(sigma**2)


# == energy_share: wrong, divided by σ₁², not by the whole
def energy_share(sigma, k):
    return np.sum((sigma[:k] / sigma.max()) ** 2)


# == energy_share: wrong, times 100 (it is in per cent)
def energy_share(sigma, k):
    return 100 * np.sum(sigma[:k] ** 2) / np.sum(sigma**2)


# == rank_at_energy: right, by a loop
def rank_at_energy(sigma, share):
    needed, k = share * sum(s**2 for s in sigma), 0
    while needed > 0:
        needed -= sigma[k] ** 2
        k += 1
    return k


# == rank_at_energy: right, counting those that are not enough
def rank_at_energy(sigma, share):
    shares = np.cumsum(sigma**2) / np.sum(sigma**2)
    return np.sum(shares < share) + 1


# == rank_at_energy: right, by trying each rank with a norm
def rank_at_energy(sigma, share):
    whole = np.linalg.norm(sigma) ** 2
    return next(k for k in range(1, len(sigma) + 1) if np.linalg.norm(sigma[:k]) ** 2 >= share * whole)


# == rank_at_energy: right, from the end, by what may be lost
def rank_at_energy(sigma, share):
    k, lost = len(sigma), 0.0
    while lost + sigma[k - 1] ** 2 <= (1 - share) * np.sum(sigma**2):
        k -= 1
        lost += sigma[k] ** 2
    return k


# == rank_at_energy: wrong, one direction too few
def rank_at_energy(sigma, share):
    energy = np.cumsum(sigma**2)
    return np.searchsorted(energy, share * energy[-1])


# == rank_at_energy: wrong, a share that is reached exactly is reached
def rank_at_energy(sigma, share):
    energy = np.cumsum(sigma**2)
    return np.argmax(energy > share * energy[-1]) + 1


# == rank_at_energy: wrong, a share that is reached exactly is reached
def rank_at_energy(sigma, share):
    energy, k = 0.0, 0
    while energy <= share * np.sum(sigma**2):
        energy += sigma[k] ** 2
        k += 1
    return k


# == rank_at_energy: wrong, σ stands where σ² belongs
def rank_at_energy(sigma, share):
    sums = np.cumsum(sigma)
    return int(np.argmax(sums >= share * sums[-1])) + 1


# == rank_at_energy: wrong, from the weakest on
def rank_at_energy(sigma, share):
    energy = np.cumsum(np.sort(sigma) ** 2)
    return int(np.argmax(energy >= share * energy[-1])) + 1


# == rank_at_energy: wrong, a share of the number of directions
def rank_at_energy(sigma, share):
    return int(np.ceil(share * sigma.size))


# == rank_at_energy: wrong, held against share itself
def rank_at_energy(sigma, share):
    return int(np.argmax(np.cumsum(sigma**2) >= share)) + 1


# == rank_at_energy: wrong, at least (1 − share) · σ₁
def rank_at_energy(sigma, share):
    return int(np.count_nonzero(sigma / sigma[0] >= 1 - share))


# == product_singular_values: right, as eigenvalues of a product of two small matrices
def product_singular_values(B, A):
    # The eigenvalues of B (A Aᵀ) Bᵀ that are not zero are those of (A Aᵀ) (Bᵀ B).
    squares = np.linalg.eigvals((A @ A.T) @ (B.T @ B)).real
    return np.sqrt(np.sort(squares)[::-1])


# == product_singular_values: right, by the SVDs of both
def product_singular_values(B, A):
    _, s_B, Vt = np.linalg.svd(B, full_matrices=False)
    U, s_A, _ = np.linalg.svd(A, full_matrices=False)
    return np.linalg.svd(np.diag(s_B) @ Vt @ U @ np.diag(s_A))[1]


# == product_singular_values: right, with Q of one side alone and by Gram–Schmidt
def product_singular_values(B, A):
    Q = np.zeros(B.shape)
    for k in range(B.shape[1]):
        q = B[:, k] - Q[:, :k] @ (Q[:, :k].T @ B[:, k])
        Q[:, k] = q / np.sqrt(q @ q)
    return np.linalg.svd((Q.T @ B) @ A, full_matrices=False)[1]


# == product_singular_values: wrong, B A has been formed
def product_singular_values(B, A):
    return np.linalg.svd(B @ A, compute_uv=False)[: A.shape[0]]


# == product_singular_values: wrong, B A has been formed
def product_singular_values(B, A):
    return np.linalg.svd(np.matmul(A.T, B.T), compute_uv=False)[: A.shape[0]]


# == product_singular_values: wrong, of B and of A are multiplied
def product_singular_values(B, A):
    return np.linalg.svd(B)[1] * np.linalg.svd(A)[1]


# == product_singular_values: wrong, the lengths of B's columns
def product_singular_values(B, A):
    strengths = [np.linalg.norm(B[:, k]) * np.linalg.norm(A[k]) for k in range(len(A))]
    return np.array(sorted(strengths, reverse=True))


# == product_singular_values: wrong, A itself has been split, not Aᵀ
def product_singular_values(B, A):
    Q_B, R_B = np.linalg.qr(B)
    Q_A, R_A = np.linalg.qr(A)
    return np.linalg.svd(R_B @ R_A, compute_uv=False)


# == product_singular_values: wrong, A's R is not transposed
def product_singular_values(B, A):
    R_B, R_A = np.linalg.qr(B)[1], np.linalg.qr(A.T)[1]
    return np.linalg.svd(R_B @ R_A, compute_uv=False)


# == product_singular_values: wrong, the squares of the singular values
def product_singular_values(B, A):
    return np.sort(np.linalg.eigvals((A @ A.T) @ (B.T @ B)).real)[::-1]


# == product_singular_values: wrong, in reverse order
def product_singular_values(B, A):
    R = np.linalg.qr(B)[1] @ np.linalg.qr(A.T)[1].T
    return np.sqrt(np.linalg.eigvalsh(R @ R.T))


# == product_singular_values: wrong, the diagonal of the two R's product
def product_singular_values(B, A):
    R = np.linalg.qr(B)[1] @ np.linalg.qr(A.T)[1].T
    return np.abs(np.diagonal(R))
