"""Files of tensors, models, adapters and tasks, in our format, Hugging Face's and PEFT's. Pickle is never read."""

from .checkpoint import (
    PRETRAINED,
    load_adapter,
    load_model,
    load_pretrained,
    read_config,
    read_object,
    save_adapter,
    save_model,
)
from .gpt2 import GPT2, default_labels, load_gpt2, save_gpt2
from .peft import load_peft, save_peft
from .task import (
    Task,
    check_base,
    load_task,
    put_on,
    save_task,
    shipped_adapters,
    task_base,
    task_folder,
    tokenizer_of,
    with_classes,
)
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
