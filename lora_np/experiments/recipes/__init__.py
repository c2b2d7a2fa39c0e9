"""The experiments by name, in the order of the gallery; what a recipe is, `laboratory.py` says."""

from importlib import import_module

RECIPES = (
    "rank_sweep",
    "matrices",
    "subspace_ranks",
    "subspace_seeds",
    "amplification",
    "truncation",
    "intruders",
    "dialect",
    "learning_rate",
    "low_data",
    "batch_size",
    "attention_or_mlp",
    "scaling",
    "variants",
    "compression",
    "cost",
    "planted_rank",
)


def recipe(name):
    """The module of an experiment."""
    if name not in RECIPES:
        raise ValueError(f"experiment: got {name!r}, expected one of {', '.join(RECIPES)}")
    return import_module(f".{name}", __package__)


def headline(name):
    """What an experiment is about, in one line."""
    return recipe(name).__doc__.partition("\n")[0]
