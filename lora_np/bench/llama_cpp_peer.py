"""llama.cpp's side: greedy generation with a Llama, from a file with the case's numbers in float32."""

import tempfile
from pathlib import Path

import numpy as np

from ..formats import save_gguf
from ..model import LlamaConfig
from .case import Side
from .llama_cpp import answer, start


def make_side(case, threads):
    """The case in llama.cpp on this many threads; all rows are read, and then written, at once."""
    if not isinstance(case.config, LlamaConfig):
        raise ValueError("llama.cpp's side has a Llama alone; leave llama.cpp out of --peers for GPT-2's decoder")
    prompts = case.batch.ids
    job = {"do": "timing", "prompts": prompts.tolist(), "n": case.n_new - 1}  # steps after each row's first new token
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.gguf")
        save_gguf(file, case.params, case.config, vocabulary(case.config.vocab_size))
        process = start(file, context=case.config.n_positions, threads=threads, rows=len(prompts))
        answer(process, job)  # afterwards the process has the file open, and needs no name for it

    def check():
        return 0.0, {"tokens": np.concatenate([prompts, answer(process, job)["ids"]], axis=1)}

    return Side(check, check, process)


def vocabulary(size):
    """Fields of a tokenizer with this many tokens. llama.cpp reads no file without one, though prompts are ids."""
    tokens = [f"token {i}" for i in range(size)]
    names = {"model": "gpt2", "tokens": tokens, "token_type": [1] * size, "merges": ["t o"]}
    return {f"tokenizer.ggml.{name}": value for name, value in names.items()}
