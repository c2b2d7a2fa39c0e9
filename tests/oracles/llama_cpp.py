"""llama.cpp for tests: where LORA_NP_LLAMA_CPP is set, they need it; elsewhere they are skipped without it."""

import os

import numpy as np
import pytest

from lora_np.bench.llama_cpp import VARIABLE, ask, find_llama_cpp
from lora_np.model import forward


def need_llama_cpp():
    """Skip the test without llama.cpp; or let it fail, where LORA_NP_LLAMA_CPP is set."""
    try:
        find_llama_cpp()
    except FileNotFoundError as error:
        if os.environ.get(VARIABLE):
            raise
        pytest.skip(str(error))


def our_log_probabilities(params, config, rows, adapter=None):
    """Yield lora_np's, as those of `log_probabilities`."""
    for ids in rows:
        logits = forward(params, np.array([ids]), config, adapter=adapter)[0][0].astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        yield logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def log_probabilities(model, rows, folder, **settings):
    """Log-probabilities of the next token at each position of each row of ids.

    Parameters
    ----------
    model : path of a GGUF file
    rows : list of T ids each; T may differ
    folder : Path, for the files through which they come
    **settings : as of `ask`

    Returns
    -------
    list of float32 arrays (T, V)
    """
    files = [str(folder / f"row{i}.float32") for i in range(len(rows))]
    jobs = [{"do": "probabilities", "ids": list(map(int, row)), "out": file} for row, file in zip(rows, files)]
    answers = ask(model, jobs, **settings)
    return [np.fromfile(file, "<f4").reshape(answer["shape"]) for file, answer in zip(files, answers)]
