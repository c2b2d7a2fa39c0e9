"""Measure a run's updates ΔW."""

import numpy as np

from ..adapters import adapter_deltas, linear_layers, merge
from ..analysis import Amplification, amplification, linear_updates, max_similarities, spectrum, truncated_updates
from ..training import attach, blas_threads, shard_threads, worthwhile_threads
from .runs.classify import score, starting_point


def tuned(results, run, dtype=np.float32):
    """A run's parameters before training, and its trained parameters and adapter (or None) in a given dtype."""
    params, _, start = starting_point(run)
    return params, *attach(params, start, {name: array.astype(dtype) for name, array in results.arrays(run).items()})


def updates_of(results, run, dtype=np.float32):
    """The updates ΔW of the linear layers that a run trained, in a given dtype, as a dict: name -> array."""
    params, model, adapter = tuned(results, run, dtype)
    return linear_updates(params, model) if adapter is None else adapter_deltas(params, adapter)


def each(function, arrays):
    """Apply a function to each array in a dict, in parallel for a large model; return a dict, name -> result."""
    with blas_threads(1), shard_threads(worthwhile_threads(arrays)) as in_turn:
        return dict(zip(arrays, in_turn(function, arrays.values())))


def scores_when_cut(results, run, ranks):
    """The test scores of a fully fine-tuned model after every linear layer's update is truncated to each given rank.

    Returns a dict, rank as str -> {"accuracy": in %, "loss": in nats}.
    """
    params, config, _ = starting_point(run)
    with blas_threads(1):
        cut = truncated_updates(params, results.arrays(run), ranks)
        return {str(r): scores_on_test(run, model, config) for r, model in cut}


def scores_on_test(run, model, config):
    """A model's "accuracy" in % and "loss" in nats on a run's test split; the model has no adapter."""
    with blas_threads(1), shard_threads(worthwhile_threads(model)) as in_turn:
        scores = score(model, None, config, run.snippets(), "test", in_turn)
    return {"accuracy": 100 * scores["accuracy"], "loss": scores["loss"]}


def spectra(results, run):
    """The singular values of a run's updates, by kind of layer.

    Returns a dict, kind of layer (such as "q_proj") -> {"sigma": (n,), "ranks": (layers, 3)}. "sigma" has each singular
    value divided by the largest one, as the geometric mean over the layers. "ranks" has each layer's stable rank,
    effective rank and rank_90. n is the adapter's rank or, without an adapter, the number of singular values.
    """
    of_kind, measured = {}, {}
    n = None if run.adapter is None else run.adapter.r
    for name, of_layer in each(spectrum, updates_of(results, run)).items():
        of_kind.setdefault(name.split(".")[-2], []).append(of_layer)
    for kind, of_layers in of_kind.items():
        sigma = np.array([s.singular_values[:n] / s.singular_values[0] for s in of_layers])
        sigma = np.exp(np.log(np.maximum(sigma, 1e-12)).mean(axis=0))
        ranks = [(s.stable_rank, s.effective_rank, s.rank_90) for s in of_layers]
        measured[kind] = {"sigma": [float(f"{value:.4g}") for value in sigma], "ranks": np.round(ranks, 3).tolist()}
    return measured


def energy(results, run):
    """The share of ΔW's energy Σσ² in its 1, 2, …, n leading directions, and its rank_90, averaged over the layers."""
    spectra = each(spectrum, updates_of(results, run)).values()
    n = max(len(s.singular_values) for s in spectra)
    sums = [np.cumsum(np.pad(s.singular_values, (0, n - len(s.singular_values))) ** 2) for s in spectra]
    shares = np.mean([of_layer / of_layer[-1] for of_layer in sums], axis=0)
    return {"shares": np.round(shares, 4).tolist(), "rank_90": float(np.mean([s.rank_90 for s in spectra]))}


def similarities(results, run, k):
    """Compare the k leading directions of each fine-tuned matrix with the base, (layers, k); see `max_similarities`."""
    params, model, adapter = tuned(results, run)
    after = model if adapter is None else merge(params, adapter)
    names = (f"{module}.weight" for module in linear_layers(params))
    pairs = {name: np.stack([params[name], after[name]]) for name in names}
    return np.round(list(each(lambda pair: max_similarities(*pair, k), pairs).values()), 4).tolist()


def mean_amplification(results, run):
    """A dict with the six fields of `Amplification` for a run's ΔW_q, averaged over the blocks."""
    params = starting_point(run)[0]
    deltas = updates_of(results, run, np.float64)  # in float32, rounding would increase the rank of ΔW
    of_q, r = [name for name in deltas if "q_proj" in name], run.adapter.r
    of_blocks = [amplification(params[name], deltas[name], r, np.random.default_rng(run.seed)) for name in of_q]
    return dict(zip(Amplification._fields, np.mean(of_blocks, axis=0).tolist()))
