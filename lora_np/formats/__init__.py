"""Files: tensors, model checkpoints and adapters. Nothing is read with pickle."""

from .checkpoint import PRETRAINED, load_adapter, load_model, load_pretrained, save_adapter, save_model
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
    "PRETRAINED",
    "check_file",
    "check_folder",
    "load_adapter",
    "load_model",
    "load_pretrained",
    "read_json",
    "read_tensors",
    "save_adapter",
    "save_model",
    "write_atomically",
    "write_json",
    "write_tensors",
    "write_text",
]
