"""The experiments by name: each recipe is a module with `run`, whose docstring says what is claimed and measured."""

from importlib import import_module

RECIPES = ("dialect",)


def recipe(name):
    """The module of an experiment."""
    if name not in RECIPES:
        raise ValueError(f"experiment: got {name!r}, expected one of {', '.join(RECIPES)}")
    return import_module(f".{name}", __package__)


def headline(name):
    """What an experiment is about, in one line."""
    return recipe(name).__doc__.partition("\n")[0]
