"""The reference cases, in the order in which a port is checked."""

from .bert import bert_cases
from .case import DTYPES, ReferenceCase, in_dtype, stage
from .files import file_cases
from .ggml import ggml_cases
from .llama import llama_cases
from .model import model_cases
from .operations import operation_cases
from .rewards import reward_cases
from .training import training_cases

__all__ = ["DTYPES", "TIERS", "ReferenceCase", "in_dtype", "reference_cases", "stage"]

TIERS = {1: "operations", 2: "the model", 3: "training and files", 4: "Llama", 5: "BERT", 6: "rewards and preferences"}


def reference_cases():
    """All cases in order of tier, as a dict keyed by id."""
    makers = operation_cases, model_cases, training_cases, file_cases, llama_cases, ggml_cases, bert_cases, reward_cases
    return {case.id: case for make in makers for case in make()}
