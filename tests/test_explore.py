"""The explorer's data are what they say, no text can break its page, and what cannot be shown is refused."""

import base64
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from lora_np.adapters import HEAD, KINDS, Adapter, compress, layer_arrays, merge, whole_weights
from lora_np.data import encode, model_files, token_stream
from lora_np.formats import PRETRAINED, load_task, read_model, save_model, save_task
from lora_np.formats.task import with_classes
from lora_np.model import LlamaConfig
from lora_np.pages import explore, playground
from lora_np.pages.explore import explorer
from lora_np.pages.explore_answers import ranks_to_cut_to
from lora_np.pages.explore_layers import MOST_COLUMNS, MOST_ROWS, directions_of, layer_rows, picture, with_updates
from lora_np.tasks.adapter_set import load_adapter_set
from lora_np.tasks.classifier import class_probabilities
from lora_np.tasks.writing import write_text_from
from lora_np.training import language_loss

from .tiny import random_adapter, random_params

HOSTILE = "</script><script>alert('no')</script> <!-- \"&amp;` \u2028 é 語 🦊"
TEXTS = ["the film is a wonderful surprise", "it does not work", "a fox jumps over the lazy dog", "nobody likes it"]


@pytest.fixture(scope="module")
def bases(tiny_base, tmp_path_factory):
    """Folders of tiny language models with the shipped tokenizer, by architecture. Not to be changed."""
    folder = tmp_path_factory.mktemp("bases")
    config = LlamaConfig(8000, 24, 16, 2, 4, 2, 6, 32)
    save_model(folder / "llama", random_params(config, np.float32), config, beside=model_files(PRETRAINED))
    config = read_model(tiny_base).config
    save_model(folder / "gpt2", random_params(config, np.float32), config, beside=model_files(PRETRAINED))
    return folder


def saved(folder, base, labels=None, question=None, **settings):
    """A task with a random adapter of a base, in a folder; a classifier if it has labels."""
    model = read_model(base)
    params, config = with_classes(model.params, model.config, labels, question)
    adapter = random_adapter(params, **{"train_head": bool(config.n_classes), **settings})
    task = model._replace(params=params, config=config, adapter=adapter, labels=labels, question=question)
    save_task(folder, task, base, {"method": "lora", "text_column": "t", "label_column": "l"})
    return folder


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def text_of(path, lines=TEXTS):
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def loaded(folder):
    """The LoadedModel of an adapter's folder, and the decompositions of its updates."""
    task = load_task(folder)
    return task, directions_of(task.params, task.adapter)


# ---------------------------------------------------------------- layers


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("base", ["gpt2", "llama"])
def test_sizes_and_ranks_are_those_of_the_merged_weights(base, kind, bases, tmp_path):
    task, directions = loaded(saved(tmp_path / "a", bases / base, kind=kind))
    exact = {name: array.astype(np.float64) for name, array in task.adapter.weights.items()}
    wide = {name: np.asarray(array, np.float64) for name, array in task.params.items()}
    after = merge(wide, Adapter(task.adapter.config, exact))
    rows = layer_rows(task, directions)
    assert [row["layer"] for row in rows] == list(layer_arrays(task.adapter)) and len(rows) >= 6
    for row in rows:
        W = wide[f"{row['layer']}.weight"]
        delta = after[f"{row['layer']}.weight"] - W
        sigma = np.linalg.svd(delta, compute_uv=False)
        n = np.linalg.matrix_rank(delta, tol=1e-7 * sigma[0])
        energy, p = sigma**2, sigma[:n] / sigma[:n].sum()
        assert row["rank"] == n and (n <= 3 or kind == "dora")
        np.testing.assert_allclose(row["sigma"], sigma[:n], rtol=1e-5)
        expected = {
            "size": np.sqrt(np.sum(delta**2) / np.sum(W**2)),
            "stable": energy.sum() / energy[0],
            "effective": np.exp(-np.sum(p * np.log(p))),
            "energy": 1 + int(np.sum(np.cumsum(energy) < 0.9 * energy.sum())),
        }
        assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-5)
    scales = {row["scale"] for row in rows}
    assert scales == {None if kind == "vera" else 2.0}


def test_an_update_of_zero_and_a_layer_that_is_left_out(bases, tmp_path):
    task = load_task(saved(tmp_path / "a", bases / "llama", targets=("q_proj", "o_proj")))
    weights = {n: a * (not n.endswith("q_proj.lora_B")) for n, a in task.adapter.weights.items()}
    task = task._replace(adapter=task.adapter._replace(weights=weights))
    directions = directions_of(task.params, task.adapter)
    rows = {row["layer"]: row for row in layer_rows(task, directions)}
    assert {row["kind"] for row in rows.values()} == {"q_proj", "o_proj"}
    zero = rows["blocks.1.attn.q_proj"]
    assert [zero[n] for n in ("size", "stable", "energy", "rank", "sigma", "tokens")] == [0, 0, 0, 0, [], []]
    assert ranks_to_cut_to(directions) == [0, 1, 2, 3]
    assert ranks_to_cut_to({"a": (None, np.ones(20), None), **directions}) == [0, 1, 2, 4, 8, 16, 20]
    changed = {n for n, W in with_updates(task, directions, 2).params.items() if np.any(W != task.params[n])}
    assert changed == {f"blocks.{i}.attn.o_proj.weight" for i in (0, 1)}


def rowwise(rows):
    """Rows without their means."""
    return rows - rows.mean(axis=-1, keepdims=True)


@pytest.mark.parametrize("layer", ["attn.q_proj", "mlp.up_proj", "attn.o_proj", "mlp.down_proj"])
@pytest.mark.parametrize("base", ["gpt2", "llama"])
def test_the_tokens_of_a_planted_direction_come_first(base, layer, bases, tmp_path):
    """The direction that a norm's gain turns into a token's embedding, or into that of the last norm."""
    task = load_task(saved(tmp_path / "a", bases / base, r=1))
    module, planted = f"blocks.0.{layer}", task.tokenizer.token_to_id("Ġwonderful")
    norms = {"gpt2": ("ln1", "ln2", "ln_f"), "llama": ("norm1", "norm2", "norm_f")}[base]
    reads = layer in ("attn.q_proj", "mlp.up_proj")
    gain = task.params[f"blocks.0.{norms[layer.startswith('mlp')]}.weight" if reads else f"{norms[2]}.weight"]
    table = task.params["tok_emb.weight"]  # which the head has too
    direction = table[planted] / gain
    leaf, vector = ("lora_A", direction[None]) if reads else ("lora_B", direction[:, None])
    weights = {**task.adapter.weights, f"{module}.{leaf}": vector}
    task = task._replace(adapter=task.adapter._replace(weights=weights))
    [row] = [r for r in layer_rows(task, directions_of(task.params, task.adapter)) if r["layer"] == module]
    assert row["reads"] == reads
    [(towards, away)] = row["tokens"]
    read = gain * direction
    if base == "gpt2":  # a layer norm takes the mean away: from embeddings, or from what is written
        table, read = (rowwise(table), rowwise(read)) if reads else (table, gain * rowwise(direction))
    cosine = table[planted] @ read / np.linalg.norm(table[planted]) / np.linalg.norm(read)
    assert towards[0] == [" wonderful", pytest.approx(cosine, abs=1e-5)] and len(towards) == len(away) == 8
    assert cosine > 0.9
    cosines = [cosine for _, cosine in towards + away[::-1]]
    assert cosines == sorted(cosines, reverse=True) and cosines[-1] < 0


@pytest.mark.parametrize("leaf, shape", [("lora_A", (3, 600)), ("lora_B", (600, 20)), ("vera_lambda_b", (5,))])
def test_a_picture_is_small_and_has_the_means_of_neighbours(leaf, shape):
    array = np.random.default_rng(0).normal(size=shape)
    drawn = picture(leaf, array)
    pixels = np.frombuffer(base64.b64decode(drawn["pixels"]), np.int8).reshape(drawn["rows"], drawn["columns"])
    wide = array[None] if array.ndim == 1 else array.T if leaf == "lora_B" else array
    step = drawn["step"]
    expected = [[row[i : i + step].mean() for i in range(0, len(row), step)] for row in wide[:MOST_ROWS]]
    np.testing.assert_allclose(pixels * drawn["peak"] / 127, expected, atol=drawn["peak"] / 250)
    assert drawn["peak"] == np.abs(expected).max() and drawn["columns"] <= MOST_COLUMNS and drawn["shape"] == shape


def test_the_page_of_a_large_adapter_is_small(bases, tmp_path):
    """As of SmolLM2 with r = 16 in all 210 linear layers."""
    row, *_ = layer_rows(*loaded(saved(tmp_path / "a", bases / "llama")))
    rng, shapes = np.random.default_rng(0), {"lora_A": (16, 1536), "lora_B": (1536, 16)}
    row["pictures"] = [picture(leaf, rng.normal(size=shape)) for leaf, shape in shapes.items()]
    row["sigma"], row["tokens"] = rng.random(16).tolist(), 3 * row["tokens"][:1]
    assert len(explorer({"layers": 210 * [row]})) < 5e6


# ---------------------------------------------------------------- losses and answers


@pytest.mark.parametrize("kind, n_texts", [("lora", 2), ("dora", 9)])
def test_losses_of_a_language_model(kind, n_texts, bases, tmp_path):
    folder = saved(tmp_path / "a", bases / "gpt2", kind=kind)
    lines = [f"{text} {i}" for i in range(9) for text in TEXTS]
    given = {"text_file": text_of(tmp_path / "text", lines), "prompts": ["the"]}
    page = explore(folder, tmp_path / "page.html", n_texts=n_texts, **given)
    ranks, measured = page["ranks"]["values"], page["ranks"]["measured"]
    task = load_task(folder)
    texts = encode(task.tokenizer, lines)
    tenth = sum(map(len, texts)) - int(0.9 * sum(map(len, texts)))  # what finetune tests on
    stream = token_stream(texts)[-min(tenth, sum(map(len, texts[-n_texts:]))) :]
    assert (len(stream) == tenth) == (n_texts > 2)
    cut = [compress(task.params, task.adapter, k).adapter for k in ranks[1:-1]]
    losses = [language_loss(task.params, task.config, stream, adapter) for adapter in (None, *cut, task.adapter)]
    assert measured["loss"] == pytest.approx(losses, rel=1e-5) and len(set(losses)) == len(losses)
    assert measured["perplexity"] == pytest.approx(np.exp(measured["loss"]))
    assert measured["tokens"] == len(stream)
    assert ranks == ([0, 1, 2, 3] if kind == "lora" else [0, 1, 2, 4, 8, 16])
    by_scale = page["scales"]["measured"]["loss"]
    assert [by_scale[0], by_scale[4]] == pytest.approx([losses[0], losses[-1]], rel=1e-5)
    assert [row["answers"][0] for row in page["ranks"]["prompts"]] == [
        row["answers"][0] for row in page["scales"]["prompts"]
    ]


@pytest.mark.parametrize("question", [None, "\nLabel:"])
def test_losses_and_answers_of_a_classifier(question, bases, tmp_path):
    folder = saved(tmp_path / "a", bases / "gpt2", ["bad", "good", "so so"], question)
    names = ["good", "bad", " so so ", "bad"]
    data = written(tmp_path / "rows.jsonl", [{"t": text, "l": label} for text, label in zip(TEXTS, names)])
    page = explore(folder, tmp_path / "page.html", data=data)
    task, true = load_task(folder), [1, 0, 2, 0]
    plain = task._replace(adapter=None, params={**task.params, **whole_weights(task.adapter)})
    for end, expected in ((0, class_probabilities(plain, TEXTS)), (-1, class_probabilities(task, TEXTS))):
        measured = page["ranks"]["measured"]
        assert measured["loss"][end] == pytest.approx(-np.log(expected[range(4), true]).mean(), rel=1e-4)
        assert measured["accuracy"][end] == np.mean(expected.argmax(axis=1) == true)
        np.testing.assert_allclose([row["answers"][end] for row in page["ranks"]["prompts"]], expected, atol=1e-5)
    scales, shown = page["scales"]["values"], page["scales"]["prompts"]
    assert scales == [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75, 2] and [row["prompt"] for row in shown] == TEXTS
    for i, scale in enumerate(scales):
        scaled = task.adapter._replace(config=replace(task.adapter.config, alpha=6.0 * scale))
        expected = class_probabilities(task._replace(adapter=scaled), TEXTS)
        np.testing.assert_allclose([row["answers"][i] for row in shown], expected, atol=1e-5)
    other = explore(folder, tmp_path / "page.html", prompts=["the fox"])
    assert other["ranks"]["measured"] is None and [row["prompt"] for row in other["scales"]["prompts"]] == ["the fox"]


@pytest.mark.parametrize("base", ["gpt2", "llama"])
def test_answers_of_a_language_model(base, bases, tmp_path):
    """And what the head line says."""
    settings = {"targets": ("q_proj", "v_proj"), "rank_pattern": {"v_proj": 2}}
    folder = saved(tmp_path / "a", bases / base, **settings)
    page = explore(str(folder), tmp_path / "page.html", prompts=["the fox"])
    task = load_task(folder)
    [row] = page["scales"]["prompts"]
    for i, adapter in ((0, None), (4, task.adapter)):
        begun, *new = write_text_from(task._replace(adapter=None), row["prompt"], 30, adapter)
        assert begun == row["prompt"] and row["answers"][i] == "".join(new)
    assert row["answers"][0] != row["answers"][4]
    assert (page["name"], page["base"], page["scales"]["measured"]) == ("a", base, None)
    n, n_base = (sum(a.size for a in arrays.values()) for arrays in (task.adapter.weights, task.params))
    expected = {"kind": "lora", "r": [2, 3], "alpha": [6], "s": [2, 3], "trained": n, "labels": None}
    assert page["facts"] == {**expected, "percent": pytest.approx(100 * n / (n + n_base))}


# ---------------------------------------------------------------- the page


def scripts(path):
    """The contents of a page's script elements, by their id; a browser ends one at the first end tag."""
    found = re.findall(r'(?is)<script(?: id="(\w+)")?[^>]*>(.*?)</script', path.read_text("utf-8"))
    assert len(found) == 2
    return dict(found)


@pytest.mark.filterwarnings("ignore:texts")  # which are truncated
def test_no_text_can_end_the_data(bases, tmp_path):
    labels = [HOSTILE, "</SCRIPT >"]
    folder = saved(tmp_path / "a'<b>", bases / "gpt2", labels)
    data = written(tmp_path / "<i>.jsonl", [{"t": HOSTILE, "l": label} for label in labels])
    page = explore(folder, tmp_path / "page.html", data=data, prompts=[HOSTILE, "\\u003c"])
    found = scripts(tmp_path / "page.html")
    assert found.keys() == {"data", ""} and "<" not in found["data"]
    read = json.loads(found["data"])
    assert (
        read["facts"]["labels"] == labels
        and read["name"] == "a'<b>"
        and "<i>.jsonl" in read["ranks"]["measured"]["what"]
    )
    assert [row["prompt"] for row in read["scales"]["prompts"]] == [HOSTILE, "\\u003c"]
    np.testing.assert_allclose(*(each["ranks"]["measured"]["loss"] for each in (read, page)), rtol=1e-4)


@pytest.mark.parametrize("name", ["explorer", "playground"])
def test_a_page_asks_for_nothing(name, tmp_path):
    playground(tmp_path / "page.html")
    page = explorer({}) if name == "explorer" else (tmp_path / "page.html").read_text("utf-8")
    assert "default-src 'none'" in page
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "src=", "@import", "url(", "fetch("):
        assert word not in page, word


# ---------------------------------------------------------------- the command, and what it refuses


def test_the_command(bases, tmp_path, run):
    folder = saved(tmp_path / "a", bases / "gpt2")
    printed = run("explore", folder, "--out", tmp_path / "new" / "p.html", "--prompt", "the", "--prompt", "a fox")
    assert printed.endswith(f"saved in {tmp_path / 'new' / 'p.html'}\n") and "decomposing ΔW of 6 layers" in printed
    read = json.loads(scripts(tmp_path / "new" / "p.html")["data"])
    assert [row["prompt"] for row in read["scales"]["prompts"]] == ["the", "a fox"]


def test_refusals(bases, tmp_path, fails):
    language, classes = saved(tmp_path / "lm", bases / "gpt2"), saved(tmp_path / "c", bases / "gpt2", ["bad", "good"])
    head = saved(tmp_path / "head", bases / "gpt2", ["bad", "good"], targets=())
    assert list(load_adapter_set([head]).adapters[str(head)].weights) == [HEAD]
    data = written(tmp_path / "rows.jsonl", [{"t": "x", "l": "other"}, {"t": "y", "l": "good"}])
    text, page = text_of(tmp_path / "text"), tmp_path / "page.html"
    page.write_text("old")
    refused = [
        ([language, "--data", data], ["data: ", "adapts a language model", "--text-file"]),
        ([language, "--label", "l"], ["label: needs --data"]),
        ([classes, "--text-file", text], ["text-file: ", "adapts a classifier", "--data"]),
        ([classes, "--text", "t"], ["text: needs --data"]),
        ([classes, "--quoting"], ["quoting: needs --data"]),
        ([classes, "--chat"], ["chat: ", "adapts a classifier"]),
        ([classes, "--texts", "9"], ["texts: needs --data or --text-file"]),
        ([language, "--text-file", text_of(tmp_path / "short", ["a fox"])], ["text_file: ", "at least 20"]),
        ([language, "--chat"], ["model: has no chat template"]),
        ([classes, "--data", data], ["other"]),
        ([classes, "--data", data, "--label", "x"], ["--label is 'x'"]),
        ([head], ["adapter: ", "no layer"]),
        (["base"], ["base: no such folder"]),
        ([bases / "gpt2"], ["expected an adapter"]),
        ([language, "--texts", "0"], ["texts: got 0"]),
        ([language, "--prompt", " "], ["prompt: is empty"]),
        ([language, "--base", bases / "llama"], ["a base other than"]),
    ]
    for arguments, says in refused:
        fails("explore", *arguments, "--out", page, says=says)
    fails("explore", language, "--out", tmp_path, says=["out: ", "is a folder"])
    assert page.read_text() == "old"
