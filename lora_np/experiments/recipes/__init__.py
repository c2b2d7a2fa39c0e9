"""The experiments by name, in the order of the gallery; `design.Recipe` describes what a recipe contains."""

from dataclasses import replace
from importlib import import_module

from ...checked import one_of
from ..design import FUNCTIONS

__all__ = ["RECIPES", "recipe"]

RECIPES = """main_job rank_sweep matrices low_data learning_rate truncation subspaces amplification intruders variants
dialect forgetting rewards preferences compression cost planted_rank""".split()


def module(name):
    """Import the module of an experiment."""
    return import_module(f".{one_of('experiment', name, RECIPES)}", __package__)


def recipe(name):
    """An experiment's Recipe, completed from its module, without line breaks in its texts; `draw` is a dict."""
    of = module(name)
    question, *method = (" ".join(text.split()) for text in of.__doc__.split("\n\n"))
    texts = {field: " ".join(text.split()) for field, text in vars(of.RECIPE).items() if isinstance(text, str)}
    functions = {field: vars(of)[field] for field in FUNCTIONS if field in vars(of)}
    whole = replace(of.RECIPE, **texts | {"question": question, "method": method}, **functions)
    draw = whole.draw if isinstance(whole.draw, dict) else {name: whole.draw}
    return replace(whole, draw=draw, bases=whole.bases or tuple(whole.keys))
