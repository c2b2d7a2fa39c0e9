"""Read and write models and adapters in our own, Hugging Face, PEFT and GGUF formats. Pickle files are never read."""

from .chat import Template, chat_prompts, chat_rows, chat_template, render_chat
from .checkpoint import load_adapter, load_model, save_adapter, save_model
from .gguf_adapter import load_gguf_adapter
from .hugging_face import load_hf, save_hf
from .model import LoadedModel, load_pretrained, model_place, read_model, tokenizer_of
from .paths import PRETRAINED, check_file, check_folder, check_target
from .peft import load_peft, save_peft
from .task import attach_adapter, load_task, save_task, shipped_adapters, task_base, task_folder, task_places
from .tensors import read_json, read_names, read_tensors, write_json, write_tensors, write_text
from .to_gguf import save_gguf, save_gguf_adapter

__all__ = [
    "LoadedModel", "PRETRAINED", "Template", "attach_adapter", "chat_prompts", "chat_rows", "chat_template",
    "check_file", "check_folder", "check_target", "load_adapter", "load_gguf_adapter", "load_hf", "load_model",
    "load_peft", "load_pretrained", "load_task", "model_place", "read_json", "read_model", "read_names",
    "read_tensors", "render_chat", "save_adapter", "save_gguf", "save_gguf_adapter", "save_hf", "save_model",
    "save_peft", "save_task", "shipped_adapters", "task_base", "task_folder", "task_places", "tokenizer_of",
    "write_json", "write_tensors", "write_text",
]  # fmt: skip
