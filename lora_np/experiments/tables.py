"""Collect the results of runs in tables, ready for JSON, and format them."""

import numpy as np

from .evidence import interval, minus
from .methods import label


def by_method(results, grid, field):
    """Collect one value from each run of a grid into a dict, method -> list of values, one per seed.

    Parameters
    ----------
    results : see `store.Results`
    grid : dict, (method, seed) -> run; with longer keys, such as (method, rank, seed), the result is nested,
        method -> rank -> list. All keys become strings, as in JSON
    field : str, a key of each run's numbers; or a function of a run
    """
    table = {}
    for (*names, last, _), run in grid.items():
        rows = table
        for name in names:
            rows = rows.setdefault(str(name), {})
        rows.setdefault(str(last), []).append(field(run) if callable(field) else results[run][field])
    return table


def gathered(rows):
    """Turn a list of dicts with equal keys, which may be nested, into one dict of lists."""
    if not isinstance(rows[0], dict):
        return rows
    return {name: gathered([row[name] for row in rows]) for name in rows[0]}


def at_best_rate(of_rates):
    """The numbers of each seed's run with the lowest validation loss, as a dict of lists.

    `of_rates` is a dict, learning rate -> list of the numbers of runs, one per seed.
    """
    of_seeds = zip(*of_rates.values())
    return gathered([min(of_seed, key=lambda numbers: numbers["validation_loss"]) for of_seed in of_seeds])


def at_level(path, field, along, level):
    """Interpolate a field of a path to where the path first reaches a level of another field, `along`.

    `path` is a dict, field -> values at successive points. The other field may rise or fall from its first value; if it
    never reaches the level, the result is NaN.
    """
    steps, values = np.array(path[along]), path[field]
    reached = np.sign(level - steps[0]) * (steps[1:] - level) >= 0
    if not reached.any():
        return np.nan
    j = int(np.argmax(reached))  # the last point before the level
    share = (level - steps[j]) / (steps[j + 1] - steps[j])
    return float(values[j] + share * (values[j + 1] - values[j]))


def scores(results, runs, seeds, quick):
    """Collect the results of a grid of runs, quantity -> {method: values}; `score_table` formats some of them."""
    firsts = {key: run for (key, seed), run in runs.items() if seed == seeds[0]}
    return {
        "loss": by_method(results, runs, "test_loss"),
        "right": by_method(results, runs, "test_right"),
        "accuracy": by_method(results, runs, lambda run: 100 * results[run]["test_accuracy"]),
        "trainable": {key: results[run]["trainable"] for key, run in firsts.items()},
        "rates": {key: run.learning_rate for key, run in firsts.items()},
    }


def means_of(table):
    """The means over seeds of a dict, method -> values."""
    return {key: np.mean(values) for key, values in table.items()}


def score_table(outcome):
    """Format results from `scores` as the rows of a table, the header first, then one row per method."""
    rows = [["method", "learning rate", "trainable", "test accuracy, % [95 % interval]"]]
    for key, values in outcome["accuracy"].items():
        rows.append([label(key), f"{outcome['rates'][key]:g}", f"{outcome['trainable'][key]:,}", cell(values)])
    return rows


def cell(values):
    """Format the mean of values, one per seed, and its interval."""
    return between(interval(values))


def between(values, sign=""):
    """Format a mean and the ends of its interval, which may be None, to one decimal place."""
    mean, *ends = (minus(value, f"{sign}.1f") for value in values if value is not None)
    return mean + f" [{', '.join(ends)}]" * bool(ends)
