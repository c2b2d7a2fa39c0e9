"""llama.cpp itself, which answers in a process of Node (`run.mjs` says what it can be asked), and its times.

    npm install --prefix lora_np/bench/llama_cpp --omit=optional --ignore-scripts --no-package-lock

installs it on Linux on x64, with Node 20.11 or later. It may be in another folder, beside a copy of `package.json`; the
environment variable LORA_NP_LLAMA_CPP then names the folder.
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
from ...formats.smollm2 import packaged_model

HERE = Path(__file__).parent
VARIABLE = "LORA_NP_LLAMA_CPP"
KINDS = ("f32", "q8_0", "q4_1")  # of the model's weights
N_PROMPT, N_NEW = 128, 64  # tokens
WIDTHS = 8, 20, 20, 10  # of a table's columns


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
        raise FileNotFoundError(f"{folder}: node-llama-cpp is not installed here; lora_np/bench/llama_cpp says how")
    return [node, str(HERE / "run.mjs")]


def start(model, adapters=(), context=512, threads=1, float32=True, rows=1):
    """A process of llama.cpp with a model, to be asked with `answer`; the end of its standard input ends it.

    Parameters
    ----------
    model : path of a GGUF file
    adapters : list of (path of a GGUF file, scale)
    context : int, more than the tokens that a job reads and writes in one row
    threads : int
    float32 : bool, whether attention is computed in float32; otherwise as llama.cpp does by itself, in float16
    rows : int, the most prompts of a job

    Returns
    -------
    subprocess.Popen. Leaving its context waits for its end.

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
    """The answer of llama.cpp to a job, a dict as in `run.mjs`.

    Raises
    ------
    RuntimeError
        With the words of llama.cpp, if it refuses a file or fails.
    """
    try:
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
    except BrokenPipeError:
        with suppress(BrokenPipeError):
            process.stdin.close()  # so that leaving the context does not write the job again
    line = process.stdout.readline()
    result = json.loads(line or '{"error": "node ended without an answer"}')
    if "error" in result:
        raise RuntimeError(result["error"])
    return result


def ask(model, jobs, **settings):
    """The answers of llama.cpp to several jobs in one process; model and settings as of `start`, errors of both."""
    with start(model, **settings) as process:
        return [answer(process, job) for job in jobs]


def time_llama_cpp(threads=1, rounds=5, report=lambda line: None):
    """Time SmolLM2 in llama.cpp, in several kinds of weights, each with and without an adapter.

    The adapter is LoRA of rank 8 on all linear layers. Each side reads 128 tokens and writes 64, in a process of its
    own, and the sides take turns.

    Parameters
    ----------
    threads, rounds : int
    report : function of a line, called after each round

    Returns
    -------
    list of dict: "weights", "adapter" (bool), "file_bytes", and lists with a number of each round: "prompt" and "new",
    tokens a second, and "peak_bytes", of the process
    """
    threads, rounds = whole_number("threads", threads), whole_number("rounds", rounds)
    find_llama_cpp()
    with tempfile.TemporaryDirectory() as folder:
        params, config = load_pretrained("smollm2", weights="blocks")
        fields, rng = read_gguf(packaged_model())[0], np.random.default_rng(0)
        adapter = init_adapter(params, AdapterConfig(r=8, targets=("all-linear",)), rng)
        save_gguf_adapter(Path(folder, "adapter.gguf"), adapter, params, config, {})
        prompt = rng.integers(17, config.vocab_size, N_PROMPT).tolist()
        jobs = 2 * [{"do": "timing", "prompts": [prompt], "n": N_NEW}]  # the first also reads the file
        sides, answers = [(kind, adapted) for kind in KINDS for adapted in (False, True)], {}
        for kind in KINDS:
            save_gguf(Path(folder, f"{kind}.gguf"), params, config, fields, kind)
        for i in range(rounds):
            for kind, adapted in sides:
                adapters = [(Path(folder, "adapter.gguf"), 1.0)] if adapted else []
                _, timed = ask(Path(folder, f"{kind}.gguf"), jobs, adapters=adapters, threads=threads, float32=False)
                answers.setdefault((kind, adapted), []).append(timed)
            report(f"round {i + 1} of {rounds}")
        return [
            {
                "weights": kind,
                "adapter": adapted,
                "file_bytes": Path(folder, f"{kind}.gguf").stat().st_size,
                "prompt": [N_PROMPT / timed["prompt_seconds"] for timed in of_side],
                "new": [N_NEW / timed["steps_seconds"] for timed in of_side],
                "peak_bytes": [timed["peak_bytes"] for timed in of_side],
            }
            for (kind, adapted), of_side in answers.items()
        ]


def format_times(rows):
    """The rows of `time_llama_cpp` as a table: medians, with the lowest and the highest."""
    heads = "file, MB", "reads, tokens/s", "writes, tokens/s", "peak, MB"
    lines = [f"{'weights':<9}{'adapter':<9}" + "".join(map(str.rjust, heads, WIDTHS))]
    for row in rows:
        speeds = [f"{median(x):.0f} ({min(x):.0f}–{max(x):.0f})" for x in (row["prompt"], row["new"])]
        numbers = [f"{row['file_bytes'] / 1e6:.0f}", *speeds, f"{median(row['peak_bytes']) / 1e6:.0f}"]
        side = f"{row['weights']:<9}{'yes' if row['adapter'] else 'no':<9}"
        lines.append(side + "".join(map(str.rjust, numbers, WIDTHS)))
    return "\n".join(lines)
