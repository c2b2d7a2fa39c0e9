"""The llama.cpp backend: greedy generation by a Llama model, loaded from a float32 GGUF file."""

import tempfile
from pathlib import Path

import numpy as np

from ..formats import save_gguf
from ..model import LlamaConfig
from .case import Backend
from .llama_cpp import answer, start


def make_backend(case, threads):
    """Make the Backend for a case; it uses the given number of threads and processes all rows at once."""
    if not isinstance(case.config, LlamaConfig):
        raise ValueError("the llama.cpp backend supports only Llama models; remove llama.cpp from --peers for GPT-2")
    prompts, size = case.batch.ids, case.config.vocab_size
    tokens = [f"token {i}" for i in range(size)]  # llama.cpp requires a vocabulary even though the prompts are ids
    names = {"model": "gpt2", "tokens": tokens, "token_type": [1] * size, "merges": ["t o"]}
    fields = {f"tokenizer.ggml.{name}": value for name, value in names.items()}
    job = {"do": "timing", "prompts": prompts.tolist(), "n": case.n_new - 1}  # all but the first token
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.gguf")
        save_gguf(file, case.params, case.config, fields)
        process = start(file, context=case.config.n_positions, threads=threads, rows=len(prompts))
        answer(process, job)  # after the first answer, the process has the file open, so the file can be deleted

    def check():
        return 0.0, {"tokens": np.concatenate([prompts, answer(process, job)["ids"]], axis=1)}

    return Backend(check, check, process)
