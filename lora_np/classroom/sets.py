"""Read the sets of exercises from the folders in `exercises/`."""

import inspect
from functools import lru_cache
from importlib import import_module
from typing import NamedTuple

from .exercise import Exercise, read_exercise

SETS = {  # folder in `exercises/` -> number of its lesson
    "rank_and_svd": 2,
    "gradients_by_hand": 3,
    "forward": 5,
    "backward": 6,
    "lora_layer": 7,
    "full_and_lora": 8,
    "directions_of_an_update": 9,
    "what_it_costs": 10,
    "adapters_as_parts": 11,
    "quantised_and_pruned": 12,
    "variants": 13,
    "since_gpt2": 14,
    "your_own_llm": 15,
    "rewards_and_preferences": 18,
}


class ExerciseSet(NamedTuple):
    """A set of exercises, read from the modules of one folder in `exercises/`."""

    name: str  # such as "07_lora_layer"
    title: str
    text: str
    needs: str  # besides the lesson
    time: str
    exercises: tuple[Exercise, ...]
    parts: tuple  # (kind, text) of ungraded cells before the question; kind: "markdown", "given" or "solution"
    question: str  # for a written answer; its first line is its title
    answer: str
    words: int  # points for the written answer

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
    sets = {}
    for folder, number in SETS.items():
        module = import_module(f"{__package__}.exercises.{folder}")
        title, _, text = inspect.cleandoc(module.__doc__).partition("\n")
        exercises = tuple(read_exercise(f"{module.__name__}.{n}", points) for n, points in module.EXERCISES.items())
        sets[f"{number:02}_{folder}"] = ExerciseSet(
            f"{number:02}_{folder}",
            title.removesuffix("."),
            text.strip(),
            module.NEEDS,
            module.TIME,
            exercises,
            getattr(module, "PARTS", ()),
            module.QUESTION.strip(),
            module.ANSWER.strip(),
            module.POINTS,
        )
    return sets
