"""The experiments by name, in the order of the gallery; `design.Recipe` describes what a recipe contains."""

from dataclasses import replace
from importlib import import_module

from ...checked import one_of
from ..design import FUNCTIONS

__all__ = ["RECIPES", "bases_of", "figures", "method", "question", "recipe"]

RECIPES = """main_job rank_sweep matrices low_data learning_rate truncation subspaces amplification intruders variants
dialect forgetting rewards preferences compression cost planted_rank""".split()


def module(name):
    """Import the module of an experiment."""
    return import_module(f".{one_of('experiment', name, RECIPES)}", __package__)


def recipe(name):
    """An experiment's Recipe, with the functions that its module defines, and without line breaks in its texts."""
    of, fields = module(name), vars(module(name).RECIPE)
    texts = {field: " ".join(value.split()) for field, value in fields.items() if isinstance(value, str)}
    return replace(of.RECIPE, **texts, **{field: vars(of)[field] for field in FUNCTIONS if field in vars(of)})


def question(name):
    """The question that an experiment asks."""
    return module(name).__doc__.partition("\n")[0]


def method(name):
    """A description of an experiment's method, in paragraphs."""
    paragraphs = module(name).__doc__.partition("\n\n")[2].split("\n\n")
    return [" ".join(paragraph.split()) for paragraph in paragraphs]


def bases_of(name):
    """The bases that an experiment may use, beginning with the one for which it was designed."""
    return list(recipe(name).bases or recipe(name).keys)


def figures(name):
    """The figures of an experiment as a dict: file name without suffix -> function that draws the figure."""
    draw = recipe(name).draw
    return draw if isinstance(draw, dict) else {name: draw}
