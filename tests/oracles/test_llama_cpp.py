"""What `export --to gguf` writes, in llama.cpp itself: the same tokens, the same text."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest

from lora_np.adapters import AdapterConfig, init_adapter, merge
from lora_np.bench.llama_cpp import ask
from lora_np.data import encode
from lora_np.formats import PRETRAINED, load_task, read_model, save_task
from lora_np.formats.gguf import read_gguf
from lora_np.formats.packaged import packaged_model
from lora_np.model import generate
from lora_np.tasks.exchange import export

from .comparison import LARGEST
from .llama_cpp import log_probabilities, need_llama_cpp, our_log_probabilities
from .test_llama_files_hf import PROMPTS, equal_tokens

pytestmark = [pytest.mark.oracle, pytest.mark.real]

IDS = Path(__file__).parent.parent / "llama_cpp_ids.json"
PROMPT = "The capital of France is"
N_NEW = 48  # tokens of a greedy text


@pytest.fixture(scope="module")
def file():
    """The packaged model, where there is also a llama.cpp to run it."""
    need_llama_cpp()
    try:
        return packaged_model()
    except FileNotFoundError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def tokenizer(file):
    return read_model(file, weights="blocks").tokenizer


def test_the_same_tokens(file, tokenizer):
    texts = [row["text"] for row in json.loads(IDS.read_text("utf-8"))["texts"]]
    answers = ask(file, [{"do": "tokenize", "text": text, "special": True} for text in texts])
    assert len(texts) > 20
    for text, answer in zip(texts, answers):
        assert answer["ids"] == tokenizer.encode(text).ids, text


def test_the_packaged_file_continues_a_text(file, tokenizer, tmp_path):
    ids = tokenizer.encode(PROMPT).ids
    [first] = ask(file, [{"do": "greedy", "prompt": ids, "n": 1}])
    assert ask(file, [{"do": "detokenize", "ids": first["ids"]}]) == [{"text": " Paris"}]
    [rows] = log_probabilities(file, [ids], tmp_path)
    assert rows.shape == (len(ids), tokenizer.get_vocab_size())
    assert np.abs(np.exp(rows.astype(np.float64)).sum(axis=1) - 1).max() < 1e-6
    second, best = np.sort(rows[-1])[-2:]
    assert [rows[-1].argmax()] == first["ids"] and abs(best - second - first["margins"][0]) < 1e-5


def test_errors_come_with_the_words_of_llama_cpp(file, tokenizer):
    with pytest.raises(RuntimeError, match="expect general.type to be 'adapter', but got: model"):
        ask(file, [{"do": "detokenize", "ids": []}], adapters=[(file, 1.0)])
    with pytest.raises(RuntimeError, match="the tokens do not fit in a context of 256"):
        ask(file, [{"do": "greedy", "prompt": tokenizer.encode(PROMPT).ids * 60, "n": 1}], context=256)


# ---------------------------------------------------------------- the same text

STARTS = [  # of film reviews, as the small base reads them
    " the film",
    " i saw this movie when",
    " one of the worst",
    " the acting is superb and",
    " if you like horror films ,",
    " it begins with a young",
    " this is a story about",
    " the director has made",
    " i don't understand why",
    " a wonderful",
]
PATTERNS = {"r": 4, "alpha": 6.0, "rank_pattern": {"v_proj": 2}, "alpha_pattern": {"o_proj": 3.0, "blocks.1.*": 8.0}}
ADAPTERS = {  # on square layers and on others; alphas and ranks that differ from layer to layer; rsLoRA's scale
    "rslora": AdapterConfig(targets=("all-linear",), rslora=True, **PATTERNS),
    "qalora": AdapterConfig(targets=("all-linear",), r=4, alpha=4.0, kind="qalora"),
}


def moved(params, config, spread):
    """An adapter away from its start, with a B of some spread."""
    rng = np.random.default_rng(0)
    adapter = init_adapter(params, config, rng)
    shapes = {name: array.shape for name, array in adapter.weights.items() if name.endswith("lora_B")}
    B = {name: rng.normal(0, spread, shape).astype(np.float32) for name, shape in shapes.items()}
    return adapter._replace(weights=adapter.weights | B)


def scaled(adapter, factor):
    """The adapter with its update times a factor."""
    weights = {n: factor * a if n.endswith("lora_B") else a for n, a in adapter.weights.items()}
    return adapter._replace(weights=weights)


@pytest.fixture(scope="module", params=["smollm2", "small GPT-2"])
def base(request, tmp_path_factory):
    """The name of a base, its place, its model and prompts; a folder with its file in float32; llama.cpp's answers."""
    name = PRETRAINED
    if request.param == "smollm2":
        name = request.getfixturevalue("file")
    need_llama_cpp()
    folder = tmp_path_factory.mktemp("gguf")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the small base's normalisation
        export(name, "gguf", folder / "base.gguf")
    task = read_model(name)
    prompts = encode(task.tokenizer, PROMPTS if request.param == "smollm2" else STARTS)
    answers = ask(folder / "base.gguf", greedy_jobs(prompts))
    return request.param, name, task, prompts, folder, answers


def check_text(group, task, adapter, prompts, answers):
    """Our greedy texts are llama.cpp's, or the two best logits of the first token that differs are a tie."""
    n_equal, texts = [], []
    for ids, answer in zip(prompts, answers):
        assert len(answer["ids"]) == N_NEW
        text = generate(task.params, ids[None], task.config, N_NEW, adapter)
        texts.append(text[0, len(ids) :].tolist())
        n_equal.append(equal_tokens(task, text, np.array(answer["ids"]), adapter))
    group = f"llama.cpp, greedy tokens that differ: {group}"
    LARGEST[group] = max(LARGEST.get(group, (-1,)), (N_NEW * len(prompts) - sum(n_equal), str(n_equal), 0))
    return texts


def greedy_jobs(prompts):
    return [{"do": "greedy", "prompt": ids.tolist(), "n": N_NEW} for ids in prompts]


def test_llama_cpp_writes_our_text(base):
    kind, _, task, prompts, folder, answers = base
    check_text(kind, task, None, prompts, answers)
    [rows] = log_probabilities(folder / "base.gguf", prompts[:1], folder)
    [ours] = our_log_probabilities(task.params, task.config, prompts[:1])
    # llama.cpp looks a GELU up in a table, of float16.
    error, most = float(np.abs(rows - ours).max()), {"smollm2": 3e-4, "small GPT-2": 5e-3}[kind]
    LARGEST[f"llama.cpp, log-probabilities: {kind}"] = (error, "all", most)
    assert error < most


@pytest.mark.parametrize(
    "base, name",
    [
        *(("small GPT-2", name) for name in (*ADAPTERS, "licences")),
        pytest.param("smollm2", "rslora", marks=pytest.mark.nightly),
    ],
    indirect=["base"],
)
def test_llama_cpp_writes_an_adapters_text(name, base):
    """At scale 1 and 0.5, and merged."""
    kind, base_name, task, prompts, folder, plain = base
    if kind == "smollm2":
        prompts, plain = prompts[:4], plain[:4]
    if name == "licences":
        adapter = load_task(name).adapter
    else:
        adapter = moved(task.params, ADAPTERS[name], 0.02 if kind == "smollm2" else 0.1)
    save_task(folder / name, task._replace(adapter=adapter), base_name, {"labels": None})
    export(folder / name, "gguf", folder / f"{name}.gguf")
    texts = [[answer["ids"] for answer in plain]]
    for scale in (1.0, 0.5):
        adapters = [(folder / f"{name}.gguf", scale)]
        answers = ask(folder / "base.gguf", greedy_jobs(prompts), adapters=adapters)
        texts.append(check_text(f"{kind}, adapter", task, scaled(adapter, scale), prompts, answers))
    assert texts[0] != texts[1] != texts[2] != texts[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export(folder / name, "gguf-merged", folder / "merged.gguf")
    answers = ask(folder / "merged.gguf", greedy_jobs(prompts))
    merged = task._replace(params=merge(task.params, adapter))
    check_text(f"{kind}, merged", merged, None, prompts, answers)


# ---------------------------------------------------------------- QA-LoRA merged into Q4_1


def divergence(got, expected):
    """The mean KL divergence of two lists of log-probabilities (T, V)."""
    got, expected = (np.concatenate(rows).astype(np.float64) for rows in (got, expected))
    return float((np.exp(expected) * (expected - got)).sum(axis=1).mean())


def test_a_merge_that_changes_no_code(file, tokenizer, tmp_path):
    """And gives in llama.cpp nearly the probabilities of the base with the adapter beside it."""
    task = read_model(file, weights="blocks")
    adapter = moved(task.params, ADAPTERS["qalora"], 4e-3)  # as large as training makes it
    save_task(tmp_path / "task", task._replace(adapter=adapter), file, {"labels": None})
    export(tmp_path / "task", "gguf-merged", tmp_path / "merged.gguf", format="q4_1")
    export(tmp_path / "task", "gguf", tmp_path / "adapter.gguf")
    (fields, base), (merged_fields, merged) = read_gguf(file), read_gguf(tmp_path / "merged.gguf")
    assert all(np.array_equal(merged_fields[name], value) for name, value in fields.items())
    n_changed = 0
    for name, weight in base.items():
        if getattr(weight, "format", None) == "q4_1":
            old, new = (each.blocks.reshape(-1, 20) for each in (weight, merged[name]))
            assert np.array_equal(np.delete(old, [2, 3], axis=1), np.delete(new, [2, 3], axis=1)), name
            n_changed += not np.array_equal(old, new)
    assert n_changed == 7 * task.config.n_layers
    rows = [tokenizer.encode(text).ids for text in PROMPTS]
    together = log_probabilities(tmp_path / "merged.gguf", rows, tmp_path)
    apart = log_probabilities(file, rows, tmp_path, adapters=[(tmp_path / "adapter.gguf", 1.0)])
    ours = list(our_log_probabilities(task.params, task.config, rows, adapter))
    most = 4 * divergence(apart, ours)  # llama.cpp's rounding
    LARGEST["QA-LoRA merged into Q4_1, KL"] = (divergence(together, apart), "all", most)
    assert divergence(together, apart) < most
