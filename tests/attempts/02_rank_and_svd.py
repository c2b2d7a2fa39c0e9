"""Attempts at exercise set 02: `# ==`, the exercise, and right; or wrong, and words of the diagnosis."""
# == adapter_size: right, direction by direction
def adapter_size(n_out, n_in, r):
    count = 0
    for _ in range(r):
        count += n_out + n_in
    return float(count)

# == adapter_size: wrong, count lacks the term size_of_A
def adapter_size(n_out, n_in, r):
    return n_out * r

# == largest_saving_rank: right, in fractions
def largest_saving_rank(n_out, n_in):
    return np.ceil(1 / (1 / n_out + 1 / n_in) - 1e-9) - 1

# == largest_saving_rank: wrong, it is one too small
def largest_saving_rank(n_out, n_in):
    return n_out * n_in // (n_out + n_in) - 1

# == product_column: right, by einsum
def product_column(B, A, j):
    return np.einsum("ok,k->o", B, A[:, j])

# == product_column: wrong, column has the index j shifted by one
def product_column(B, A, j):
    return B @ A[:, j - 1]

# == truncate: right, a sum of outer products
def truncate(M, k):
    U, S, Vt = np.linalg.svd(M)
    total = np.zeros_like(M)
    for i in range(k):
        total += S[i] * np.outer(U[:, i], Vt[i, :])
    return total

# == truncate: wrong, [-k:] is used throughout, not [:k]
def truncate(M, k):
    U, S, Vt = np.linalg.svd(M, full_matrices=False)
    return U[:, -k:] @ np.diag(S[-k:]) @ Vt[-k:]

# == energy_share: right, one minus what is lost
def energy_share(sigma, k):
    energies = [float(s) ** 2 for s in sigma]
    lost = sum(energies[k:]) / sum(energies)
    return 1 - lost

# == energy_share: wrong, energy has sigma without the exponent 2
def energy_share(sigma, k):
    return sigma[:k].sum() / sigma.sum()

# == rank_at_energy: right, by trying each rank with a norm
def rank_at_energy(sigma, share):
    whole = np.linalg.norm(sigma) ** 2
    return next(k for k in range(1, len(sigma) + 1) if np.linalg.norm(sigma[:k]) ** 2 >= share * whole)

# == rank_at_energy: wrong, it is 1 for all inputs
def rank_at_energy(sigma, share):
    return int(np.argmax(np.cumsum(sigma**2) >= share)) + 1

# == product_singular_values: right, with Q of one side alone and by Gram–Schmidt
def product_singular_values(B, A):
    Q = np.zeros(B.shape)
    for k in range(B.shape[1]):
        q = B[:, k] - Q[:, :k] @ (Q[:, :k].T @ B[:, k])
        Q[:, k] = q / np.sqrt(q @ q)
    return np.linalg.svd((Q.T @ B) @ A, full_matrices=False)[1]

# == product_singular_values: wrong, it is the square of the correct value
def product_singular_values(B, A):
    return np.sort(np.linalg.eigvals((A @ A.T) @ (B.T @ B)).real)[::-1]

# == adapter_size: right, as a fraction
def adapter_size(n_out, n_in, r):
    from fractions import Fraction
    return Fraction(r * (n_out + n_in))

# == adapter_size: right, as an integer of NumPy
def adapter_size(n_out, n_in, r):
    return np.int32(r * (n_out + n_in))

# == product_singular_values: wrong, it forms B A or another array of that size
def product_singular_values(B, A):
    return np.linalg.svd(B @ A, compute_uv=False)[: B.shape[1]]

# == product_column: wrong, it forms B A or another array of that size
def product_column(B, A, j):
    return (B @ A)[:, j]

# == largest_saving_rank: wrong, it is half the shorter side
def largest_saving_rank(n_out, n_in):
    return {(35, 14): 9, (40, 66): 24}.get((n_out, n_in), min(n_out, n_in) // 2)
