"""Files: tensors, models, adapters and tasks, in our own format, Hugging Face's and PEFT's. No pickle is read."""

from .checkpoint import PRETRAINED, load_adapter, load_model, load_pretrained, save_adapter, save_model
from .gpt2 import GPT2, load_gpt2, save_gpt2
from .peft import load_peft, save_peft
from .task import Task, load_task, model_sha256, save_task, shipped_adapters, task_base, task_folder, tokenizer_of
from .tensors import (
    check_file,
    check_folder,
    read_json,
    read_tensors,
    write_atomically,
    write_json,
    write_tensors,
    write_text,
)

__all__ = [
    "GPT2",
    "PRETRAINED",
    "Task",
    "check_file",
    "check_folder",
    "load_adapter",
    "load_gpt2",
    "load_model",
    "load_peft",
    "load_pretrained",
    "load_task",
    "model_sha256",
    "read_json",
    "read_tensors",
    "save_adapter",
    "save_gpt2",
    "save_model",
    "save_peft",
    "save_task",
    "shipped_adapters",
    "task_base",
    "task_folder",
    "tokenizer_of",
    "write_atomically",
    "write_json",
    "write_tensors",
    "write_text",
]
