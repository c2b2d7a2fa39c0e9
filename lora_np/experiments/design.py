"""What an experiment consists of: its design, which is fixed and printed before the first run, and its functions."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np

from . import evidence
from .runs.classify import FOLDS

UNPLANNED = "the number of seeds was not planned"


class Design(NamedTuple):
    """The main comparison of an experiment, which alone decides the verdict."""

    statement: str  # what is compared, such as "LoRA − full fine-tuning: test accuracy"
    margin: float | None = 1.0  # the largest difference that does not matter to a user; None for a ratio
    unit: str = "points"
    expected: str | tuple | None = None  # what the claim says; see `evidence.compare`
    scatter: float | None = None  # standard deviation over the seeds of the difference, in a pilot

    def judge(self, values, snippets=None):
        """Judge the main comparison by its values, one per seed; see `evidence.compare`."""
        return evidence.compare(self.statement, values, self.margin, self.unit, snippets, self.expected)

    def plan(self, n):
        """A sentence about what n seeds can show; the power is that of finding equal methods to be equivalent."""
        ratio = f"an interval that spans at most a factor of {evidence.TIMES:g}"
        goal = (
            ratio
            if self.margin is None
            else f"a margin of {self.margin:g} {self.unit[: -1 if self.margin == 1 else None]}"
        )
        if self.scatter is None or n < 2:
            return f"{goal}; {UNPLANNED}"
        chance = evidence.power(n, self.scatter, self.margin)
        return (
            f"{goal}; {n} seeds have a power of {100 * chance:.0f} % if a seed's difference scatters by "
            f"{self.scatter:g} {self.unit} as in a pilot ({evidence.seeds_needed(self.scatter, self.margin)} seeds for "
            f"{100 * evidence.POWER:.0f} %)"
        )


@dataclass(frozen=True)
class Recipe:
    """An experiment. Its module's docstring begins with the question and then describes the method.

    A field that differs between bases is a dict, base -> value; see `of_base`.

    Parameters
    ----------
    claim : str, a published claim with its source
    design : Design
    measure : function (results, runs, seeds, quick) that returns a dict of tables, ready for JSON
    compare : function (outcome) that returns the values of the main comparison, as arguments of `Design.judge`, and a
        list of further comparisons, which do not affect the verdict; `outcome` contains the tables
    finding : function (outcome) that returns the result as a plain sentence with its main number
    draw : function (outcome) that returns the figure; or a dict, file name without suffix -> such a function
    caption : str, what the figure shows and what to look for
    keys : dict, base -> names of the methods, each of which is trained at its own learning rate with every seed
    on : dict, base -> further arguments of `tuned_runs`
    runs : function (seeds, quick, base) that returns a dict, name -> training run; replaces `keys`
    bases : the names of the bases; default: those of `keys`
    seeds : dict, base -> default number of seeds
    table, details : functions (outcome) that return the rows of a table, the header first, or None
    columns : number of the table's columns that fit on a screen
    limits : str, what the result does not show
    """

    claim: str | dict
    design: Design | dict
    measure: Callable
    compare: Callable
    finding: Callable
    draw: Callable | dict
    caption: str | dict
    keys: dict = field(default_factory=dict)
    on: dict = field(default_factory=dict)
    runs: Callable | None = None
    bases: tuple = ()
    seeds: dict = field(default_factory=dict)
    table: Callable | None = None
    details: Callable | None = None
    columns: int | None = None
    limits: str | dict = ""


def of_base(value, base):
    """A field of a Recipe for a base; texts are on one line."""
    value = value[base] if isinstance(value, dict) else value
    return " ".join(value.split()) if isinstance(value, str) else value


def design_of(recipe, base):
    """The design of an experiment on a base. The number of seeds is planned only on the experiment's first base."""
    design, (first, *_) = of_base(recipe.design, base), recipe.bases or recipe.keys
    return design if base == first else design._replace(scatter=None)


def judged(recipe, outcome):
    """The main comparison of an outcome, followed by the others."""
    main, others = recipe.compare(outcome)
    return [design_of(recipe, outcome["base"]).judge(*main), *others]


def accuracy(outcome, first, second):
    """The differences in accuracy between two methods in points, as arguments of `Design.judge`.

    If the seeds have test sets of their own, returns one value per fold: the mean over its seeds. If they share a test
    set, or if there is only one seed, returns one value per seed, and the differences (S, N) by snippet.
    """
    values = np.subtract(outcome["accuracy"][first], outcome["accuracy"][second])
    if len(values) > 1 and any(run["settings"].get("folds") for run in outcome["runs"]):
        return ([values[fold::FOLDS].mean() for fold in range(min(FOLDS, len(values)))],)
    right = (right_answers(outcome, key) for key in (first, second))
    return values, 100 * np.subtract(*map(np.array, right))


def right_answers(outcome, key):
    """For each seed of a method, a list with 1 for each test snippet that was classified correctly, else 0."""
    rows = []
    for bits, percent in zip(outcome["right"][key], outcome["accuracy"][key]):
        right = np.unpackbits(np.frombuffer(bytes.fromhex(bits), np.uint8))  # padded with zeros to a multiple of 8
        rows.append(right[: round(100 * right.sum() / percent) if percent else None].astype(float))
    return rows


def further(statement, values, snippets=None, **more):
    """A further comparison of accuracies; see `evidence.compare`."""
    return evidence.compare(statement, values, 1.0, snippets=snippets, **more)


nats = partial(evidence.compare, margin=0.02, unit="nats")  # a comparison of losses
__all__ = ["FOLDS", "Design", "Recipe", "accuracy", "further", "judged", "nats", "of_base", "right_answers"]
