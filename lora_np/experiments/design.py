"""The parts of an experiment: a design, fixed and printed before the first run, and the functions of its recipe."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from . import evidence
from .methods import label
from .runs.classify import FOLDS
from .tables import scores

OVERLAP = 1 / (FOLDS - 1)  # the ratio of the sizes of a fold's test and training set


class Design(NamedTuple):
    """The main comparison of an experiment, which alone decides the verdict."""

    statement: str  # what is compared, such as "LoRA − full fine-tuning: test accuracy"
    margin: float | None = 1.0  # the largest difference that does not matter to a user; None for a ratio
    unit: str = "points"
    # What the claim says: "more", "less", "equal", or the bounds (low, high) of a ratio, either of which may be None.
    expected: str | tuple | None = None
    scatter: float | None = None  # standard deviation over the seeds of a difference in a pilot
    pilot: str = ""  # the difference that was measured in the pilot

    def plan(self, n):
        """Sentences about the margin and, if there was a pilot, about what n seeds can show."""
        if self.margin is None:
            return f"A ratio is known if its interval spans at most a factor of {evidence.TIMES:g}."
        goal = f"The margin is {evidence.amount(self.margin, self.unit)}."
        n = min(n, FOLDS)  # seeds with the same fold count as one
        if self.scatter is None or n < 2:
            return goal
        found = evidence.detectable(self.scatter / np.sqrt(n), n - 1)
        equal = 100 * evidence.power(n, self.scatter, self.margin)
        return (
            f"{goal} In a pilot ({self.pilot}), the differences had a standard deviation of {self.scatter:g} "
            f"{self.unit}. If it is the same here, {n} seeds find a difference of {found:.2g} {self.unit} with a "
            f"probability of {100 * evidence.POWER:.0f} %, and find equal methods equivalent with {equal:.0f} %."
        )


def ratio(statement, expected=None):
    """The Design of a ratio, which has no margin; `expected` contains bounds."""
    return Design(statement, None, "times", expected)


@dataclass(frozen=True)
class Recipe:
    """An experiment, defined in a module whose docstring begins with the question and then describes the method.

    `recipes.recipe` completes it from the module: it sets `question`, `method`, and each field in FUNCTIONS for which
    the module defines a function of the same name.
    """

    claim: str  # a published claim with its source
    design: Design | dict  # or a dict, base -> Design
    caption: str  # what the figure shows and what to look for
    runs: Callable | None = None  # (seeds, quick, base) -> dict, name -> training run; replaces `keys`
    measure: Callable = scores  # (results, runs, seeds, quick) -> dict of tables, ready for JSON
    # (outcome) -> the values of the main comparison; a list of further comparisons, pairs (Design, values), which do
    # not affect the verdict; and the finding, a plain sentence with the main number. `outcome` contains the tables.
    # Values are numbers, one per seed; for scores on a test set, they are what `accuracy` or `over_seeds` returns.
    conclude: Callable | None = None
    draw: Callable | dict | None = None  # (outcome) -> figure; or a dict, file name without suffix -> such a function
    table: Callable | None = None  # (outcome) -> the rows of a table, the header first
    details: Callable | None = None  # the same for a second table
    keys: dict = field(default_factory=dict)  # base -> methods, each trained at its own learning rate with every seed
    on: dict = field(default_factory=dict)  # base -> further arguments of `tuned_runs`
    bases: tuple = ()  # default: those of `keys`; the experiment is designed for the first
    seeds: dict = field(default_factory=dict)  # base -> default number of seeds
    columns: int | None = None  # number of the table's columns that fit on a screen
    limits: str = ""  # what the result does not show
    question: str = ""
    method: list = field(default_factory=list)  # paragraphs

    def finding(self, outcome):
        """The result as a plain sentence."""
        return self.conclude(outcome)[-1]


FUNCTIONS = "runs", "measure", "conclude", "draw", "table", "details"


def design_of(recipe, base):
    """The design of an experiment on a base; the pilot's scatter is included only for the experiment's first base."""
    design = recipe.design[base] if isinstance(recipe.design, dict) else recipe.design
    return design if base == recipe.bases[0] else design._replace(scatter=None)


def judged(recipe, outcome):
    """An outcome's comparisons: first the main one, judged by the design stored in the outcome, then the others."""
    main, others, _ = recipe.conclude(outcome)
    parts = [(Design(**outcome["design"]), main), *others]
    return [judge(outcome, design, values) for design, values in parts]


def judge(outcome, design, values):
    """Judge values by their design; see `Recipe` for `values`, and `evidence.compare` for the result."""
    if not isinstance(values, dict):
        values = over_seeds(outcome, values, tested=False)
    return evidence.compare(design, **values)


# ---------------------------------------------------------------- values to compare, as arguments of `evidence.compare`


def over_seeds(outcome, values, tested=True):
    """The arguments of `evidence.compare` for values, one per seed; seeds with the same fold are averaged.

    `tested` says whether the values are scores on the test set. Scores on a test set that all seeds share do not lead
    to a verdict, because the variation over its snippets is unknown.
    """
    if on_folds(outcome):
        of_folds = [float(np.mean(values[fold::FOLDS])) for fold in range(min(FOLDS, len(values)))]
        return {"values": of_folds, "overlap": OVERLAP}
    shared = "all seeds share one test set, and how much the result depends on its snippets is unknown"
    return {"values": values, "undecided": shared * tested}


def accuracy(outcome, first, second):
    """The differences in accuracy between two methods, in percentage points, as arguments of `evidence.compare`."""
    values = np.subtract(outcome["accuracy"][first], outcome["accuracy"][second])
    if len(values) > 1 and on_folds(outcome):
        return over_seeds(outcome, values)
    right = (right_answers(outcome, key) for key in (first, second))
    return {"values": values, "snippets": 100 * np.subtract(*map(np.array, right))}


def accuracies(outcome, pairs):
    """Comparisons of accuracies; `pairs` contains (first, second) or (first, second, what a claim expects)."""
    parts = []
    for first, second, *expected in pairs:
        design = Design(f"{label(first)} − {label(second)}: test accuracy", 1.0, "points", *expected)
        parts.append((design, accuracy(outcome, first, second)))
    return parts


def on_folds(outcome):
    """Whether each seed has a test set of its own."""
    return any(run["settings"].get("folds") for run in outcome["runs"])


def right_answers(outcome, key):
    """For each seed of a method, a list with 1 for each test snippet that was classified correctly, else 0."""
    rows = []
    for bits, percent in zip(outcome["right"][key], outcome["accuracy"][key]):
        right = np.unpackbits(np.frombuffer(bytes.fromhex(bits), np.uint8))  # padded with zeros to a multiple of 8
        rows.append(right[: round(100 * right.sum() / percent) if percent else None].astype(float))
    return rows
