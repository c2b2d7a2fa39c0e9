"""Measure the overlap of two subspaces, such as those learned by two adapters of different ranks or seeds.

The columns of a matrix (n, k) span a subspace. No result depends on a column's sign, which is arbitrary in a singular
value decomposition.

The figures of Hu et al. 2021, section 7.2, compare right singular vectors, which are directions of a layer's input:

    figure 3    U = right_directions(A of r = 8), V = right_directions(A of r = 64); also with ΔW instead of A
    figure 4    the same for two seeds; the control compares two sets of `random_directions`

To compare directions of the output, pass the transposed matrices.
"""

import numpy as np

from ..checked import finite_matrix, whole_number
from .spectra import small_product, svd


def right_directions(matrix, k):
    """The k leading right singular vectors, as columns, in float64.

    Parameters
    ----------
    matrix : array (out, in), such as ΔW or A
    k : int from 1 to the matrix's rank; further singular vectors are arbitrary vectors of the null space

    Returns
    -------
    array (in, k), orthonormal

    Raises
    ------
    ValueError
        If the matrix is zero or not finite, or k is out of bounds.
    """
    return leading_directions("matrix", matrix, k)[1]


def product_right_directions(B, A, k):
    """`right_directions` (in, k) of B A, for B (out, r) and A (r, in), without computing the product.

    With B A = Q_B (R_B R_Aᵀ) Q_Aᵀ as in `product_singular_values`, and R_B R_Aᵀ = U Σ Vᵀ, the right singular vectors
    of B A are the columns of Q_A V.
    """
    small, Q_A = small_product(B, A)
    _, V = leading_directions("B A", small, k, size=max(len(B), len(Q_A)))
    return Q_A @ V  # (in, k)


def leading_directions(name, matrix, k=None, k_name="k", size=None):
    """The k leading left (out, k) and right (in, k) singular vectors; by default, k is the rank.

    As in `np.linalg.matrix_rank`, the rank is the number of singular values above the rounding error
    σ₁ · max(out, in) · ε. For the small matrix R_B R_Aᵀ of a product B A, pass the product's max(out, in) as
    `size`. Raises ValueError if the matrix is zero or k is not between 1 and the rank; the message calls the matrix
    `name` and k `k_name`.
    """
    matrix = np.asarray(matrix)
    U, sigma, Vt = svd(matrix, name)
    # With float16's ε of 1e-3, real directions would be treated as rounding errors.
    epsilon = np.finfo(np.float32 if matrix.dtype in (np.float16, np.float32) else np.float64).eps
    rank = int(np.sum(sigma > sigma[0] * (size or max(matrix.shape)) * epsilon))
    if not rank:
        raise ValueError(f"{name}: got a zero matrix, which has no directions")
    k = rank if k is None else whole_number(k_name, k, most=rank, why=f"the rank of {name}")
    return U[:, :k], Vt[:k].T


def random_directions(n, k, rng):
    """k orthonormal vectors (n, k), 1 ≤ k ≤ n, whose span is uniformly distributed among the subspaces of R^n.

    The vectors are the orthonormalised columns of a Gaussian matrix that is drawn from the np.random.Generator `rng`.
    """
    k = whole_number("k", k, most=n, why="the dimension n")
    return np.linalg.qr(rng.normal(size=(n, k)))[0]


def subspace_similarity(U, V, i, j):
    """φ(i, j) = ‖U_iᵀ V_j‖²_F / min(i, j), where U_i is the first i columns of U, and V_j the first j columns of V.

    This is the mean of cos² θ over the principal angles of the two spans: 1 if the larger span contains the smaller
    one, 0 if they are orthogonal.

    Source: Hu et al. 2021, section 7.2, equation 4.

    Parameters
    ----------
    U : array (n, p), V : array (n, q), with orthonormal columns, the leading one first
    i, j : int, 1 ≤ i ≤ p and 1 ≤ j ≤ q

    Returns
    -------
    float in [0, 1]

    Raises
    ------
    ValueError
        If the columns are not orthonormal, U and V differ in their number of rows, or i or j is out of bounds.
    """
    U, V = orthonormal_pair(U, V)
    i = whole_number("i", i, most=U.shape[1], why="the columns of U")
    j = whole_number("j", j, most=V.shape[1], why="the columns of V")
    return min(1.0, float(np.sum((U[:, :i].T @ V[:, :j]) ** 2)) / min(i, j))  # rounding may exceed 1


def similarity_table(U, V):
    """`subspace_similarity` for all i and j: an array (p, q) with φ(i, j) at [i − 1, j − 1].

    ‖U_iᵀ V_j‖²_F is the sum of the squared entries in the upper left i × j corner of UᵀV, so a cumulative sum along
    each axis computes it for all i and j.
    """
    U, V = orthonormal_pair(U, V)
    sums = np.cumsum(np.cumsum((U.T @ V) ** 2, axis=0), axis=1)  # (p, q)
    smaller = np.minimum.outer(np.arange(1, U.shape[1] + 1), np.arange(1, V.shape[1] + 1))
    return np.minimum(sums / smaller, 1.0)


def gaussian_similarity(n, i, j):
    """The expected φ(i, j) of two independent random subspaces of R^n, max(i, j) / n, with i and j from 1 to n.

    Fix U. A column v of a random V is uniform on the sphere, so E[v vᵀ] = I/n, and

        E‖U_iᵀ v‖² = tr(U_iᵀ E[v vᵀ] U_i) = i / n

    The sum over the j columns of V is ij/n, although these are not statistically independent. Division by min(i, j)
    gives max(i, j) / n. A measured φ near this expected value may be due to chance.
    """
    return max(whole_number(name, k, most=n, why="the dimension n") for name, k in (("i", i), ("j", j))) / n


def energy_share(gradient, directions):
    """The share of a gradient's energy in the span of given input directions: ‖G Q Qᵀ‖²_F / ‖G‖²_F.

    LoRA implicitly assumes that the full gradient G = ∂L/∂W has a low rank, because A and B only receive dA = s Bᵀ G
    and dB = s G Aᵀ. GaLore (Zhao et al. 2024, section 3) makes this assumption explicitly. G's `spectrum` shows whether
    the assumption holds, and this share shows how much of G an adapter could capture.

    Q is an orthonormal basis of the span. G Q Qᵀ is the nearest matrix to G whose rows are in the span, and
    ‖G Q Qᵀ‖_F = ‖G Q‖_F. For a random basis, the expected share is k / in.

    Parameters
    ----------
    gradient : array (out, in), from `model.loss_and_gradients` with W's name in `wanted`. With LoRA attached,
        W's gradient is taken at W + ΔW; adapter training does not compute it. To track this gradient, compute it in the
        hook `after_update` of `training.train`; the gradients that the hook receives are already clipped.
    directions : array (in, k), for example `right_directions` of a final ΔW, or Aᵀ. The columns must be independent,
        but need not be orthonormal. For directions of the output, transpose the gradient.

    Returns
    -------
    float in [0, 1]; 0 for a gradient of zero

    Raises
    ------
    ValueError
        If the directions are dependent or have the wrong length, or values are not finite.
    """
    G, Q = finite_matrix("gradient", gradient), orthonormal_basis(directions, "directions")
    if len(Q) != G.shape[1]:
        raise ValueError(f"directions: got {len(Q)} rows, expected {G.shape[1]}, the gradient's number of columns")
    largest = np.abs(G).max()
    if not largest:
        return 0.0
    G = G / largest  # otherwise the square of a tiny gradient would underflow to 0
    return min(1.0, float(np.sum((G @ Q) ** 2) / np.sum(G**2)))


def orthonormal_basis(matrix, name):
    """Q (n, k) of the QR decomposition. For each i, its first i columns span the same space as those of the matrix."""
    matrix = finite_matrix(name, matrix)
    norms = np.linalg.norm(matrix, axis=0)  # (k,)
    # Columns are normalised first, because a column with a small norm may be independent of the others.
    Q, R = np.linalg.qr(matrix / np.where(norms > 0, norms, 1.0))
    rank = np.linalg.matrix_rank(R, rtol=max(matrix.shape) * np.finfo(R.dtype).eps)
    if rank < matrix.shape[1]:
        raise ValueError(f"{name}: its {matrix.shape[1]} columns span {rank} dimensions, expected independent columns")
    return Q


def orthonormal_pair(U, V):
    """Return both in float64; raise ValueError unless they have orthonormal columns and the same number of rows."""
    U, V = finite_matrix("U", U), finite_matrix("V", V)
    for name, matrix in (("U", U), ("V", V)):
        gap = float(np.abs(matrix.T @ matrix - np.eye(matrix.shape[1])).max())
        if gap > 1e-4:  # a tolerance for vectors computed in float32
            difference = f"{name}ᵀ{name} differs from the identity by {gap:.2g}"
            raise ValueError(f"{name}: its columns are not orthonormal ({difference}); see `right_directions`")
    if len(V) != len(U):
        raise ValueError(f"V: got {len(V)} rows, expected {len(U)}, as in U")
    return U, V
