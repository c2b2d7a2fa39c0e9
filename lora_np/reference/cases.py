"""All reference cases, in the order in which a port is checked."""

from .file_cases import file_cases
from .model_cases import model_cases
from .operation_cases import operation_cases
from .training_cases import training_cases

TIERS = {1: "operations", 2: "the model", 3: "training and files"}


def reference_cases():
    """The cases by their id: tier 1, then 2, then 3."""
    cases = [*operation_cases(), *model_cases(), *training_cases(), *file_cases()]
    return {case.id: case for case in sorted(cases, key=lambda case: case.tier)}
