"""The graded exercises: a folder for each set, and in it a file for each exercise."""

from importlib import import_module

SETS = (  # in the order of their numbers, from 01 on
    "rank_and_svd",
    "gradients_by_hand",
    "forward",
    "backward",
    "lora_layer",
    "full_and_lora",
    "directions_of_an_update",
    "what_it_costs",
    "adapters_as_parts",
    "quantised_and_pruned",
    "variants",
)


def modules():
    """The full names of all exercises' modules, in order."""
    return [
        f"{__name__}.{folder}.{name}" for folder in SETS for name in import_module(f"{__name__}.{folder}").EXERCISES
    ]
