"""llama.cpp itself, which answers in a process of Node; `run.mjs` says what it can be asked.

    npm install --prefix tests/oracles/llama_cpp --omit=optional --ignore-scripts --no-package-lock

installs it on Linux on x64, with Node 20.11 or later. It may be in another folder, beside a copy of `package.json`; the
environment variable LORA_NP_LLAMA_CPP then names the folder. Where the variable is set, tests need llama.cpp;
elsewhere they are skipped without it.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent
VARIABLE = "LORA_NP_LLAMA_CPP"


def find_llama_cpp():
    """The command that answers a request.

    Raises
    ------
    FileNotFoundError
        If Node or the packages are not installed.
    """
    node, folder = shutil.which("node"), Path(os.environ.get(VARIABLE) or HERE)
    if node is None:
        raise FileNotFoundError("llama.cpp needs Node, and there is no node on the path")
    if not (folder / "node_modules" / "node-llama-cpp").is_dir():
        raise FileNotFoundError(f"{folder}: node-llama-cpp is not installed here; tests/oracles/llama_cpp says how")
    return [node, str(HERE / "run.mjs")]


def need_llama_cpp():
    """Skip the test without llama.cpp; or let it fail, where LORA_NP_LLAMA_CPP is set."""
    try:
        find_llama_cpp()
    except FileNotFoundError as error:
        if os.environ.get(VARIABLE):
            raise
        pytest.skip(str(error))


def ask(model, jobs, adapters=(), context=512, threads=1, float32=True):
    """The answers of llama.cpp to jobs, in one process.

    Parameters
    ----------
    model : path of a GGUF file
    jobs : list of dicts, as in `run.mjs`
    adapters : list of (path of a GGUF file, scale)
    context : int, more than the tokens that a job reads
    threads : int
    float32 : bool, whether attention is computed in float32; otherwise as llama.cpp does by itself, in float16

    Returns
    -------
    list of dicts, one for each job

    Raises
    ------
    FileNotFoundError
        If llama.cpp is not installed.
    RuntimeError
        With the words of llama.cpp, if it refuses a file or fails.
    """
    adapters = [{"file": str(file), "scale": scale} for file, scale in adapters]
    settings = {"context": context, "threads": threads, "float32": float32}
    request = json.dumps({"model": str(model), "adapters": adapters, "jobs": jobs} | settings)
    done = subprocess.run(find_llama_cpp(), input=request, capture_output=True, encoding="utf-8", timeout=600)
    if done.returncode:
        raise RuntimeError(f"node ended with code {done.returncode}: {done.stderr[-2000:]}")
    answer = json.loads(done.stdout)
    if "error" in answer:
        raise RuntimeError(answer["error"])
    return answer["answers"]


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
