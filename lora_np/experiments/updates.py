"""What is measured of the updates ΔW that a run made; the store keeps it, see `store.Results.measured`."""

import numpy as np

from ..adapters import linear_layers, merge
from ..analysis import max_similarities, spectrum, truncated_updates
from ..training import attach, blas_threads, shard_threads, worthwhile_threads
from .runs.classify import load_snippets, score, starting_point, updates


def updates_of(results, run, dtype=np.float32):
    """Name -> ΔW of each linear layer that a run trained, computed from its arrays in a dtype."""
    params, _, start = starting_point(run)
    trained = {name: array.astype(dtype) for name, array in results.arrays(run).items()}
    return updates(params, start, trained)


def each(function, arrays):
    """Name -> function(array), of the arrays in a dict; of those of a large model several at a time."""
    with blas_threads(1), shard_threads(worthwhile_threads(arrays)) as in_turn:
        return dict(zip(arrays, in_turn(function, arrays.values())))


def scores_when_cut(results, runs, ranks):
    """How runs of full fine-tuning score on the test split when the update of every linear layer is cut to a rank.

    A dict, rank as text -> {"accuracy" in %, "loss" in nats: one number a run}.
    """
    of_runs = [results.measured(scores_of_cut, run, list(ranks)) for run in runs]
    return {
        r: {name: [of_run[r][name] for of_run in of_runs] for name in ("accuracy", "loss")} for r in map(str, ranks)
    }


def scores_of_cut(results, run, ranks):
    """`scores_when_cut` of one run: rank as text -> {"accuracy", "loss"}."""
    params, config, _ = starting_point(run)
    cut = {}
    with blas_threads(1), shard_threads(worthwhile_threads(params)) as in_turn:
        for r, model in truncated_updates(params, results.arrays(run), ranks):
            scores = score(model, None, config, load_snippets(run.limit, run.base), "test", in_turn)
            cut[str(r)] = {"accuracy": 100 * scores["accuracy"], "loss": scores["loss"]}
    return cut


def energy(results, run):
    """Shares (n,) of each ΔW's Σσ² in its leading directions, and the rank with 90 % of it, both means over layers."""
    spectra = each(spectrum, updates_of(results, run)).values()
    n = max(len(s.singular_values) for s in spectra)
    sums = [np.cumsum(np.pad(s.singular_values, (0, n - len(s.singular_values))) ** 2) for s in spectra]
    shares = np.mean([of_layer / of_layer[-1] for of_layer in sums], axis=0)
    return {"shares": np.round(shares, 4).tolist(), "rank_90": float(np.mean([s.rank_90 for s in spectra]))}


def similarities(results, run, k):
    """Of every tuned matrix's k leading directions the largest cosine with a direction of the base's, (layers, k)."""
    params, _, start = starting_point(run)
    model, adapter = attach(params, start, results.arrays(run))
    tuned = model if adapter is None else merge(params, adapter)
    names = (f"{module}.weight" for module in linear_layers(params))
    pairs = {name: np.stack([params[name], tuned[name]]) for name in names}
    return np.round(list(each(lambda pair: max_similarities(*pair, k), pairs).values()), 4).tolist()
