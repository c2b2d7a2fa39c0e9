"""Read the sets of exercises from the folders in `exercises/`."""

import inspect
import re
from functools import lru_cache
from importlib import import_module
from pkgutil import iter_modules
from typing import NamedTuple

from . import exercises
from .exercise import Exercise, read_exercise


class ExerciseSet(NamedTuple):
    """A set of exercises: the contents of a folder in `exercises/`, under the same names in lower case."""

    name: str  # such as "07_lora_layer"
    title: str
    text: str
    exercises: tuple[Exercise, ...]
    words: int  # points for the written answer
    needs: str  # besides the lesson
    time: str
    question: str  # for a written answer; its first line is its heading
    answer: str
    parts: tuple = ()  # (kind, text) of ungraded cells before the question; kind: "markdown", "code" or "solution"

    @property
    def points(self):
        """The maximum total score of the exercises, which are graded automatically."""
        return sum(exercise.points for exercise in self.exercises)

    @property
    def question_id(self):
        return f"words_{self.name}"


@lru_cache(maxsize=1)
def read_sets():
    """Read all sets; return a dict, name -> ExerciseSet, in the order of their lessons."""
    return {of.name: of for of in sorted(map(read_set, modules_in(exercises)))}


def modules_in(package):
    return [import_module(module.name) for module in iter_modules(package.__path__, f"{package.__name__}.")]


def read_set(package):
    """Read a set from its package, whose docstring begins with the lesson's number and the set's title."""
    heading, _, text = inspect.cleandoc(package.__doc__).partition("\n")
    number, title = heading.removesuffix(".").split(". ", 1)
    name = f"{number}_{package.__name__.rpartition('.')[2]}"
    in_set = tuple(sorted(read_exercise(module) for module in modules_in(package) if hasattr(module, "FORMULA")))
    words = int(re.search(r"\((\d+) points\)\.\n", package.QUESTION)[1])
    contents = {field.lower(): value for field, value in vars(package).items() if field.isupper()}
    return ExerciseSet(name, title, text.strip(), in_set, words, **contents)
