"""The experiments by name, in the order of the gallery; `laboratory.py` describes what a recipe contains."""

from importlib import import_module

from ...checked import one_of
from ..runs import BASES

__all__ = ["RECIPES", "bases_of", "figures", "headline", "of_base", "recipe"]

RECIPES = """main_job rank_sweep matrices layers subspace_ranks subspace_seeds amplification truncation intruders
dialect learning_rate low_data prompting batch_size attention_or_mlp scaling variants compression cost
planted_rank""".split()


def recipe(name):
    """Import the module of an experiment."""
    return import_module(f".{one_of('experiment', name, RECIPES)}", __package__)


def headline(name):
    """An experiment's title."""
    return recipe(name).__doc__.partition("\n")[0]


def of_base(text, base):
    """A recipe's CLAIM or CAPTION for a base, on one line; `text` is a str for all bases, or a dict, base -> str."""
    return " ".join((text if isinstance(text, str) else text[base]).split())


def bases_of(name):
    """An experiment's bases."""
    module = recipe(name)
    bases = getattr(module, "BASES", None) or getattr(module, "KEYS", ("pretrained",))
    return [base for base in BASES if base in bases]


def figures(name, base="pretrained"):
    """The figures of an experiment as a dict: file name without suffix -> function that draws the figure."""
    module = recipe(name)
    return module.FIGURES[base] if hasattr(module, "FIGURES") else {name: module.draw}
