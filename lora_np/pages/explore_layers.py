"""Describe each adapted layer for the explorer: ΔW's spectrum, tokens along ΔW's directions, and trained arrays."""

import base64

import numpy as np

from ..adapters import Adapter, adapter_deltas, layer_arrays, module_config, module_rank, scaling, whole_weights
from ..analysis import effective_rank, rank_at_energy, stable_rank
from ..analysis.spectra import leading_part, svd
from ..checked import finite_matrix
from ..data import decode, encode
from ..data.tokenizer import library
from ..model import modules

SMALLEST = 1e-9  # relative to σ₁; smaller singular values of a ΔW in float64 are rounding errors
DIRECTIONS, TOKENS = 3, 8  # number of directions shown with tokens, and of tokens at each end of a direction
MOST_SIGMAS = 64  # number of singular values that the page shows
MOST_ROWS, MOST_COLUMNS = 16, 256  # maximum size of a picture in pixels
ALONG = "a"  # decoded in front of each token, whose leading space would otherwise be lost


def directions_of(params, adapter):
    """Compute the singular value decomposition of every ΔW, omitting zero singular values, for any kind of adapter.

    Parameters
    ----------
    params : dict of the base's weights
    adapter : Adapter

    Returns
    -------
    dict: layer -> (U, σ, Vᵀ): (out, n) in the base's dtype, (n,) in float64, (n, in) in the base's dtype

    Raises
    ------
    ValueError
        If a ΔW has values that are not finite, or the adapter does not fit the base.
    """
    directions = {}
    for module, arrays in layer_arrays(adapter).items():  # one at a time, because each ΔW is dense
        one = Adapter(adapter.config, {f"{module}.{leaf}": a.astype(np.float64) for leaf, a in arrays.items()})
        [delta] = adapter_deltas(params, one).values()
        u, sigma, vt = svd_of_low_rank(finite_matrix(f"ΔW of {module}", delta), module_rank(adapter.config, module))
        n, dtype = int(np.sum(sigma > SMALLEST * sigma[0])), params["tok_emb.weight"].dtype
        directions[module] = u[:, :n].astype(dtype), sigma[:n], vt[:n].astype(dtype)
    return directions


def svd_of_low_rank(M, r):
    """Compute the singular value decomposition of M (out, in), quickly if its rank is at most r.

    If the rank of M is at most r, the columns of M Ω span the column space of M with probability 1 for a random Ω
    (in, r). With an orthonormal basis Q of this space, M = Q (Qᵀ M), and Qᵀ M has only r rows (Halko et al. 2011,
    section 1.5). If Q (Qᵀ M) differs from M, the rank is higher, as it may be for DoRA, and M itself is decomposed.
    """
    omega = np.random.default_rng(0).standard_normal((M.shape[1], min(r, *M.shape)))  # (in, r)
    Q, _ = np.linalg.qr(M @ omega)  # (out, r)
    small = Q.T @ M  # (r, in)
    if np.linalg.norm(M - Q @ small) > SMALLEST * np.linalg.norm(M):
        return svd(M)
    u, sigma, vt = svd(small)
    return Q @ u, sigma, vt


def with_updates(task, directions, rank=None, scale=1.0):
    """Add the leading terms of each ΔW's decomposition, multiplied by `scale`, to the model's weights.

    U_k Σ_k V_kᵀ is the best rank-k approximation of ΔW.

    Parameters
    ----------
    task : LoadedModel with its adapter
    directions : dict that `directions_of` returned
    rank : int, number of terms; None: all
    scale : float

    Returns
    -------
    LoadedModel without an adapter; weights that the adapter replaces, such as a head, do not depend on rank or scale
    """
    params = {**task.params, **whole_weights(task.adapter)}
    for module, (u, sigma, vt) in directions.items():
        update = leading_part(u, (scale * sigma).astype(u.dtype), vt, len(sigma) if rank is None else rank)
        params[f"{module}.weight"] = np.asarray(params[f"{module}.weight"]) + update
    return task._replace(params=params, adapter=None)


def layer_rows(task, directions):
    """Describe each adapted layer for the explorer's page.

    Parameters
    ----------
    task : LoadedModel with its adapter
    directions : dict that `directions_of` returned

    Returns
    -------
    list of dict: "layer", "block" (int), "kind" ("q_proj"), "shape" (out, in) of W, "scale", the layer's s, or None for
        VeRA; "size", ‖ΔW‖_F / ‖W‖_F; "stable", "effective" and "energy", three measures of ΔW's rank; "sigma", its
        leading singular values; "rank", the number of its non-zero singular values; "reads" and "tokens", see
        `token_directions`; "pictures", see `picture`
    """
    arrays, tokens = layer_arrays(task.adapter), token_directions(task, directions)
    rows = []
    for module, (_, sigma, _) in directions.items():
        weight, config = np.asarray(task.params[f"{module}.weight"]), module_config(task.adapter.config, module)
        size = float(np.linalg.norm(weight.astype(np.float64)))
        some = sigma if sigma.size else np.zeros(1)
        _, block, *_, kind = module.split(".")
        row = {"layer": module, "block": int(block), "kind": kind, "shape": weight.shape}
        row["scale"] = None if config.kind == "vera" else scaling(config)
        row["size"] = float(np.linalg.norm(sigma)) / size if size else None
        row |= {"stable": stable_rank(some), "effective": effective_rank(some), "energy": rank_at_energy(some)}
        row |= {"rank": len(sigma), "sigma": sigma[:MOST_SIGMAS].tolist(), **tokens[module]}
        row["pictures"] = [picture(leaf, array) for leaf, array in arrays[module].items()]
        rows.append(row)
    return rows


def token_directions(task, directions):
    """Find the tokens along the leading singular directions of each layer's ΔW.

    A layer after a norm reads x̂ ⊙ g (+ a bias) from the residual stream, where x̂ is the normalised stream and g the
    norm's gain. ΔW adds Σ σ_i u_i (v_iᵀ (x̂ ⊙ g)) = Σ σ_i u_i ((g ⊙ v_i)ᵀ x̂) to its output. The right
    singular vector v_i therefore responds most to tokens whose embeddings have a large cosine with g ⊙ v_i. A layer
    that writes into the stream, W_o or W_down, adds multiples of u_i to it, and the head reads the stream through the
    last norm. For such a layer, g ⊙ u_i is compared with the tokens' rows in the head. A classifier's head has no such
    rows, so the tokens' embeddings are used instead.

    A layer norm subtracts the mean over the entries before it applies its gain. For a layer that reads the stream, each
    embedding is therefore centred, and so is g ⊙ v_i, whose mean contributes nothing to a product with a centred
    embedding. For a layer that writes into the stream, the mean of u_i is subtracted before the gain is applied, and
    the head's rows are unchanged.

    Both comparisons are approximations: only the first block reads the tokens' embeddings directly, and the inputs of
    later blocks depend on them less and less. The sign of a pair u_i, v_i is arbitrary; it is chosen so that the cosine
    of largest magnitude is positive.

    Returns
    -------
    dict: layer -> {"reads": bool, True if the layer reads the stream, False if it writes into it; "tokens": for each
        direction a pair of lists, the tokens with the largest and with the smallest cosines, each as [text, cosine]}
    """
    config, params = task.config, task.params
    layers = modules(config)
    last = [layer for layer in layers.values() if layer.operation.endswith("norm")][-1]
    head = "tok_emb" if config.n_classes else layers["head"].parameters
    known = np.array(sorted(task.tokenizer.get_vocab().values()))
    known = known[known < config.vocab_size]
    tables, texts, result = {}, token_texts(task.tokenizer), {}
    for module, (u, _, vt) in directions.items():
        before = next(layer for layer in layers.values() if layer.depth == layers[module].depth - 1)
        reads = before.operation.endswith("norm")  # otherwise it reads activations inside attention or the MLP
        norm = before if reads else last
        centred, gain = norm.operation == "layer_norm", params[f"{norm.name}.weight"]
        if reads:
            along, source = vt[:DIRECTIONS], "tok_emb"
        else:
            along, source, centred = unit_rows(u.T[:DIRECTIONS], centred), head, False  # (n, C)
        if (source, centred) not in tables:
            tables[source, centred] = unit_rows(np.asarray(params[f"{source}.weight"])[known], centred)  # (V, C)
        cosines = unit_rows(along * gain, centred) @ tables[source, centred].T  # (n, V)
        result[module] = {"reads": reads, "tokens": [both_ends(row, known, texts) for row in cosines]}
    return result


def unit_rows(rows, centred):
    """Scale rows to unit norm, after subtracting their means if `centred`. Rows of zeros are unchanged."""
    rows = rows - rows.mean(axis=1, keepdims=True) if centred else rows
    size = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, size, out=np.zeros_like(rows), where=size > 0)


def both_ends(cosines, known, texts):
    """Return [text, cosine] lists for both ends of `cosines` (V,): the tokens with the largest and smallest cosines."""
    n = min(TOKENS, len(cosines))
    cosines = cosines if cosines.max() >= -cosines.min() else -cosines
    order = np.argsort(cosines, kind="stable")
    return [[[texts(known[i]), float(cosines[i])] for i in ends] for ends in (order[::-1][:n], order[:n])]


def token_texts(tokenizer):
    """Return a function that maps a token id to its text, with any leading space, or to a special token's name."""
    before = encode(tokenizer, [ALONG])[0][-1:]
    start = decode(tokenizer, before)

    def text(token):
        with library("tokenizer: cannot name a token"):
            return decode(tokenizer, np.append(before, token))[len(start) :] or tokenizer.id_to_token(int(token))

    return text


def picture(leaf, array):
    """Downsample an array to a small picture. B (out, r) is transposed, so that the pictures of A and B both have r
    rows (at most MOST_ROWS); a vector becomes one row.

    Returns
    -------
    dict: "name"; "shape" of the array; "rows" and "columns" of the picture; "step", the number of neighbouring entries
        that each pixel averages; "peak", the value that 127 represents; "pixels", the int8 values row by row, in base64
    """
    wide = np.atleast_2d(array.T if leaf == "lora_B" else array)[:MOST_ROWS].astype(np.float64)
    n = wide.shape[1]
    step = -(-n // MOST_COLUMNS)
    starts = np.arange(0, n, step)
    means = np.add.reduceat(wide, starts, axis=1) / np.diff([*starts, n])  # (rows, columns)
    peak = float(np.abs(means).max())
    pixels = np.rint(127 / (peak or 1.0) * means).astype(np.int8)
    about = {"name": leaf, "shape": array.shape, "rows": pixels.shape[0], "columns": pixels.shape[1], "step": step}
    return about | {"peak": peak, "pixels": base64.b64encode(pixels.tobytes()).decode("ascii")}
