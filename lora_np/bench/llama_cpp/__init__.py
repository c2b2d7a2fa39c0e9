"""Run and time llama.cpp in a Node process; `run.mjs` lists the jobs that the process accepts.

On Linux (x64) with Node 20.11 or later, install llama.cpp with

    npm install --prefix lora_np/bench/llama_cpp --omit=optional --ignore-scripts --no-package-lock

To install it in another folder, copy `package.json` to that folder and set the environment variable
LORA_NP_LLAMA_CPP to its path.
"""

import json
import os
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from statistics import median

import numpy as np

from ...adapters import AdapterConfig, init_adapter
from ...checked import whole_number
from ...formats import load_pretrained, save_gguf, save_gguf_adapter
from ...formats.gguf import read_gguf
from ...formats.packaged import packaged_model

__all__ = ["VARIABLE", "answer", "ask", "find_llama_cpp", "format_times", "start", "time_llama_cpp"]

HERE = Path(__file__).parent
VARIABLE = "LORA_NP_LLAMA_CPP"
KINDS = ("f32", "q8_0", "q4_1")  # the formats of the model's weights
N_PROMPT, N_NEW = 128, 64  # tokens


def find_llama_cpp():
    """Return the command that starts llama.cpp, as a list of arguments.

    Raises
    ------
    FileNotFoundError
        If Node or the packages are not installed.
    """
    node, folder = shutil.which("node"), Path(os.environ.get(VARIABLE) or HERE)
    if node is None:
        raise FileNotFoundError("llama.cpp needs Node; expected the command node on the PATH")
    if not (folder / "node_modules" / "node-llama-cpp").is_dir():
        text = "node-llama-cpp is not installed in this folder; to install it, see lora_np/bench/llama_cpp/__init__.py"
        raise FileNotFoundError(f"{folder}: {text}")
    return [node, str(HERE / "run.mjs")]


def start(model, adapters=(), context=512, threads=1, float32=True, rows=1):
    """Start a llama.cpp process with a model; send jobs to it with `answer`.

    The process ends when its standard input is closed.

    Parameters
    ----------
    model : path of a GGUF file
    adapters : list of (path of a GGUF file, scale)
    context : int, the context length; it must exceed the number of tokens in a prompt and its continuation
    threads : int
    float32 : bool, whether attention is computed in float32 instead of llama.cpp's default, float16
    rows : int, the largest number of prompts in a job

    Returns
    -------
    subprocess.Popen, also a context manager that waits for the process to end

    Raises
    ------
    FileNotFoundError
        If llama.cpp is not installed.
    """
    adapters = [{"file": str(file), "scale": scale} for file, scale in adapters]
    settings = {"model": str(model), "adapters": adapters, "context": context, "threads": threads}
    command = [*find_llama_cpp(), json.dumps(settings | {"float32": float32, "rows": rows})]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8")


def answer(process, job):
    """Send a job, a dict, to llama.cpp and return its answer, also a dict; `run.mjs` describes both.

    Raises
    ------
    RuntimeError
        If llama.cpp rejects a file or fails; the message is llama.cpp's.
    """
    try:
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
    except BrokenPipeError:
        with suppress(BrokenPipeError):
            process.stdin.close()  # otherwise, leaving the context manager would write the job again
    line = process.stdout.readline()
    result = json.loads(line or '{"error": "node ended without an answer"}')
    if "error" in result:
        raise RuntimeError(result["error"])
    return result


def ask(model, jobs, **settings):
    """Return llama.cpp's answers to several jobs in one process; see `start` and `answer` for arguments and errors."""
    with start(model, **settings) as process:
        return [answer(process, job) for job in jobs]


def time_llama_cpp(threads=1, rounds=5, report=lambda line: None):
    """Time SmolLM2 in llama.cpp with several weight formats, each with and without an adapter.

    The adapter is a LoRA adapter of rank 8 on all linear layers. In each of several interleaved rounds, each variant
    reads a prompt of 128 tokens and generates 64 tokens in a separate process.

    Parameters
    ----------
    threads, rounds : int
    report : function that takes a line of text, called after each round

    Returns
    -------
    list of dict: "weights", "adapter" (bool), "file_bytes", and lists with one value per round: "prompt" and "new", in
    tokens per second, and "peak_bytes" of the process
    """
    threads, rounds = whole_number("threads", threads), whole_number("rounds", rounds)
    find_llama_cpp()
    with tempfile.TemporaryDirectory() as folder:
        params, config = load_pretrained("smollm2", weights="blocks")
        fields, rng = read_gguf(packaged_model())[0], np.random.default_rng(0)
        adapter = init_adapter(params, AdapterConfig(r=8, targets=("all-linear",)), rng)
        save_gguf_adapter(Path(folder, "adapter.gguf"), adapter, params, config, {})
        prompt = rng.integers(17, config.vocab_size, N_PROMPT).tolist()
        jobs = 2 * [{"do": "timing", "prompts": [prompt], "n": N_NEW}]  # the first job also reads the file
        rows = []
        for kind in KINDS:
            file = Path(folder, f"{kind}.gguf")
            save_gguf(file, params, config, fields, kind)
            row = {"weights": kind, "file_bytes": file.stat().st_size}
            rows += [row | {"adapter": adapted, "prompt": [], "new": [], "peak_bytes": []} for adapted in (False, True)]
        for i in range(rounds):
            for row in rows:
                adapters = [(Path(folder, "adapter.gguf"), 1.0)] if row["adapter"] else []
                model = Path(folder, f"{row['weights']}.gguf")
                _, timed = ask(model, jobs, adapters=adapters, threads=threads, float32=False)
                row["prompt"].append(N_PROMPT / timed["prompt_seconds"])
                row["new"].append(N_NEW / timed["steps_seconds"])
                row["peak_bytes"].append(timed["peak_bytes"])
            report(f"round {i + 1} of {rounds}")
    return rows


def format_times(rows):
    """Format the rows of `time_llama_cpp` as a table of medians, with the lowest and highest values."""
    line = "{:<9}{:<9}{:>8}{:>20}{:>20}{:>10}".format
    lines = [line("weights", "adapter", "file, MB", "prompt, tokens/s", "new, tokens/s", "peak, MB")]
    for row in rows:
        variant = row["weights"], "yes" if row["adapter"] else "no", f"{row['file_bytes'] / 1e6:.0f}"
        speeds = (f"{median(x):.0f} ({min(x):.0f}–{max(x):.0f})" for x in (row["prompt"], row["new"]))
        lines.append(line(*variant, *speeds, f"{median(row['peak_bytes']) / 1e6:.0f}"))
    return "\n".join(lines)
