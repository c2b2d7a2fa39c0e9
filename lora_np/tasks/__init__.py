"""Work with your own files: fine-tune, predict, generate, mix, merge, export, import, inspect, diagnose."""

from .adapter_set import load_adapter_set
from .classifier import class_probabilities, load_classifier, predict
from .doctor import diagnose
from .exchange import export, import_adapter, import_gguf, import_hf
from .finetuning import finetune
from .inspection import inspect_file
from .language import Conversations, TextFile
from .settings import Data, Dataset, FinetuneSettings
from .table import LabelledTable, QuestionTable
from .writing import answer_from, write_text_from

__all__ = [
    "Conversations", "Data", "Dataset", "FinetuneSettings", "LabelledTable", "QuestionTable", "TextFile",
    "answer_from", "class_probabilities", "diagnose", "export", "finetune", "import_adapter", "import_gguf",
    "import_hf", "inspect_file", "load_adapter_set", "load_classifier", "predict", "write_text_from",
]  # fmt: skip
