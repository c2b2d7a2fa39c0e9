"""The updates ΔW that training made, and full fine-tuning with each of its updates cut to a low rank."""

import numpy as np

from ..analysis import truncated_updates
from ..training import blas_threads, shard_threads, worthwhile_threads
from .drawing import COLOURS, band, mean_line
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
    cut = {str(r): {"accuracy": [], "loss": []} for r in ranks}
    for run in runs:
        params, config, _ = starting_point(run)
        with blas_threads(1), shard_threads(worthwhile_threads(params)) as in_turn:
            for r, model in truncated_updates(params, results.arrays(run), ranks):
                scores = score(model, None, config, load_snippets(run.limit, run.base), "test", in_turn)
                cut[str(r)]["accuracy"].append(100 * scores["accuracy"])
                cut[str(r)]["loss"].append(scores["loss"])
    return cut


def draw_cut(axes, accuracy, uncut, lora, name, style="-"):
    """Test accuracy of full fine-tuning when its updates are cut, next to LoRA's that was trained at these ranks.

    `accuracy` is a dict, rank as text -> in %, one number a seed; `lora` is another, of some of the ranks; `name` has
    the colour, label and marker of LoRA's line.
    """
    ranks, (key, text, marker) = list(accuracy), name
    mean_line(axes, range(len(ranks)), list(accuracy.values()), COLOURS["full"], "full fine-tuning, every ΔW cut", "s")
    places = [ranks.index(r) for r in lora]
    mean_line(axes, places, list(lora.values()), COLOURS[key], text, marker, style)
    band(axes, uncut, COLOURS["full"], f"full fine-tuning, uncut: {np.mean(uncut):.1f} %")
    axes.set_xticks(range(len(ranks)), ranks)
    axes.set(xlabel="rank that is left of each update (0: the base's linear layers)", ylabel="test accuracy in %")
    axes.legend(loc="lower right")
