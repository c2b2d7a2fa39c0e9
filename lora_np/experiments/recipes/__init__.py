"""The experiments by name, in the order of the gallery; `design.Recipe` describes what a recipe contains."""

from importlib import import_module

from ...checked import one_of
from ..design import of_base

__all__ = ["RECIPES", "bases_of", "figures", "method", "question", "recipe"]

RECIPES = """main_job rank_sweep matrices low_data learning_rate truncation subspaces amplification intruders variants
dialect forgetting compression cost planted_rank""".split()


def module(name):
    """Import the module of an experiment."""
    return import_module(f".{one_of('experiment', name, RECIPES)}", __package__)


def recipe(name):
    """The Recipe of an experiment."""
    return module(name).RECIPE


def question(name):
    """The question that an experiment asks."""
    return module(name).__doc__.partition("\n")[0]


def method(name):
    """A description of an experiment's method, in paragraphs."""
    paragraphs = module(name).__doc__.partition("\n\n")[2].split("\n\n")
    return [" ".join(paragraph.split()) for paragraph in paragraphs]


def bases_of(name):
    """An experiment's bases; it was designed for the first one."""
    return list(recipe(name).bases or recipe(name).keys)


def figures(name, base="pretrained"):
    """The figures of an experiment as a dict: file name without suffix -> function that draws the figure."""
    draw = recipe(name).draw
    draw = draw.get(base, draw) if isinstance(draw, dict) else {name: draw}
    return draw
