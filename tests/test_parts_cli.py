"""The commands for parts, one after another as a user would: teach, write, mix, merge, export, import, inspect."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from lora_np.cli import main
from lora_np.data import encode
from lora_np.formats import (
    PRETRAINED,
    load_gpt2,
    load_model,
    load_task,
    read_json,
    read_tensors,
    save_model,
    shipped_adapters,
    write_json,
    write_tensors,
)
from lora_np.model import forward
from lora_np.tasks.adapter_set import forward_times, load_adapter_set, mixed
from lora_np.tasks.writing import pieces, write_text_from

SENTENCES = [f"the quick {animal} jumps over the lazy {thing} , said {who}" for animal in ("fox", "cat", "hen", "owl")
             for thing in ("dog", "log", "bog", "fog") for who in ("he", "she", "they")]  # fmt: skip


@pytest.fixture(scope="module")
def taught(tiny_base, tmp_path_factory):
    """Two language-model adapters, a classifier's and a full model, made by `finetune` on the tiny base."""
    folder = tmp_path_factory.mktemp("taught")
    (folder / "corpus.txt").write_text("\n".join(SENTENCES), encoding="utf-8")
    rows = [json.dumps({"t": s, "l": "abc"[i % 3]}) for i, s in enumerate(SENTENCES)]
    (folder / "rows.jsonl").write_text("\n".join(rows), encoding="utf-8")
    text = ["finetune", "--text-file", str(folder / "corpus.txt"), "--base", str(tiny_base), "--epochs", "2"]
    assert main([*text, "--out", str(folder / "one"), "--rank", "2", "--lr", "0.03"]) == 0
    assert main([*text, "--out", str(folder / "two"), "--rank", "3", "--lr", "0.01", "--seed", "1"]) == 0
    assert main([*text, "--out", str(folder / "full"), "--method", "full"]) == 0
    table = ["finetune", "--data", str(folder / "rows.jsonl"), "--text", "t", "--label", "l", "--base", str(tiny_base)]
    assert main([*table, "--out", str(folder / "classes"), "--epochs", "2"]) == 0
    return folder


def run(capsys, *arguments):
    """Carry out a command that succeeds and says nothing on stderr; return what it printed."""
    code = main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    assert code == 0 and said.err == ""
    return said.out


def fails(capsys, *arguments):
    """Carry out a command that fails with one line and no traceback; return the line."""
    code = main([str(argument) for argument in arguments])
    error = capsys.readouterr().err
    assert code == 2 and error.startswith("error: ") and error.count("\n") == 1, error
    return error


# ---------------------------------------------------------------- finetune --text-file


def test_teaching_a_text(taught, tiny_base, tmp_path, capsys):
    out = run(
        capsys, "finetune", "--text-file", taught / "corpus.txt", "--base", tiny_base, "--out", tmp_path / "out",
        "--rank", 2, "--epochs", 2, "--lr", 0.03,
    )  # fmt: skip
    assert "trained 448 parameters" in out and "test perplexity" in out
    about = read_json(tmp_path / "out" / "task.json")
    assert about["labels"] is None and about["test_perplexity"] < about["test_perplexity_before"]
    assert sum(about["tokens"].values()) == sum(len(ids) for ids in encode(load_task(tiny_base).tokenizer, SENTENCES))
    first, again = (load_task(folder).adapter.weights for folder in (taught / "one", tmp_path / "out"))
    assert all(np.array_equal(first[name], again[name]) for name in first)  # a pure function of its settings
    assert load_task(taught / "full").adapter is None


@pytest.mark.parametrize(
    "more, message",
    [
        (["--text", "t"], "text: needs --data"),
        (["--test", "x.csv"], "test: needs --data"),
        (["--method", "head"], "method: got 'head', expected one of lora, full"),
        (["--epochs", "0"], "epochs: got 0, expected at least 1"),
        (["--targets", "w_proj"], "targets: 'w_proj' fits no layer"),
        (["--rank", "99"], "r: got 99, expected at most min(out, in) = 16"),
    ],
)
def test_options_that_do_not_fit_a_text(more, message, taught, tiny_base, tmp_path, capsys):
    file = ["--text-file", taught / "corpus.txt"]
    assert message in fails(capsys, "finetune", *file, "--base", tiny_base, "--out", tmp_path / "out", *more)
    assert not (tmp_path / "out").exists()


def test_texts_that_cannot_be_used(tiny_base, tmp_path, capsys):
    file = tmp_path / "text.txt"
    command = ["finetune", "--text-file", file, "--base", tiny_base, "--out", tmp_path / "out"]
    assert "there is no such file" in fails(capsys, *command)
    file.write_bytes(b" \n\t\n")
    assert "holds no text" in fails(capsys, *command)
    file.write_bytes(b"good\nbad \xff\n")
    assert "line 2: byte 0xff is not UTF-8" in fails(capsys, *command)
    file.write_text("too short")
    assert "has 3 tokens, expected at least 32" in fails(capsys, *command)
    assert "text: is missing" in fails(capsys, "finetune", "--data", file, "--out", tmp_path / "out")


# ---------------------------------------------------------------- generate


def test_one_text_for_each_adapter(taught, capsys):
    """With base for none; and each is what it is alone."""
    one, two = taught / "one", taught / "two"
    settings = ["--prompt", "the quick", "--tokens", 8, "--seed", 3, "--ignore-end"]
    together = run(capsys, "generate", *settings, "--adapter", one, "base", two)
    model = read_json(one / "task.json")["base"]
    alone = [
        run(capsys, "generate", *settings, "--adapter", one),
        run(capsys, "generate", *settings, "--model", model),
        run(capsys, "generate", *settings, "--adapter", two),
    ]
    names = [one, "base", two]
    assert together == "".join(f"[{name}]\n{text}" for name, text in zip(names, alone))
    assert len(set(alone)) == 3 and all(text.startswith("the quick") for text in alone)
    mix = run(capsys, "generate", *settings, "--adapter", one, two, "--weights", 1, 0)
    assert mix == alone[0]


def test_a_full_model_and_a_long_prompt(taught, capsys):
    prompt = " ".join(SENTENCES[:4])  # more than 24 tokens
    text = run(capsys, "generate", "--model", taught / "full", "--prompt", prompt, "--temperature", 0, "--tokens", 40)
    assert text.startswith(prompt)


def test_what_generate_refuses(taught, tiny_base, tmp_path, capsys):
    prompt = ["generate", "--prompt", "the"]
    assert "prompt: is empty" in fails(capsys, "generate", "--prompt", " \n")
    message = fails(capsys, *prompt, "--adapter", "nobody")
    assert all(part in message for part in ("nobody: no such folder", "come with the package", *shipped_adapters()))
    assert "got a classifier" in fails(capsys, *prompt, "--adapter", taught / "classes")
    assert "got a whole model, expected an adapter" in fails(capsys, *prompt, "--adapter", taught / "full")
    assert "is repeated" in fails(capsys, *prompt, "--adapter", taught / "one", taught / "one")
    assert "'base' is not an adapter" in fails(capsys, *prompt, "--adapter", "base", taught / "one", "--weights", 1, 1)
    assert "weights: got 1, expected one for each of 2" in fails(
        capsys, *prompt, "--adapter", taught / "one", taught / "two", "--weights", 1
    )
    assert "trained on another base" in fails(capsys, *prompt, "--model", PRETRAINED, "--adapter", taught / "one")
    assert "top_k: got 0" in fails(capsys, *prompt, "--top-k", 0)
    assert "n_new: got 0" in fails(capsys, *prompt, "--tokens", 0)
    vocabulary = tmp_path / "vocabulary"
    params, config = load_model(tiny_base)
    save_model(vocabulary, params | {"tok_emb.weight": params["tok_emb.weight"][:50]}, replace(config, vocab_size=50))
    shutil.copy(PRETRAINED / "tokenizer.json", vocabulary)
    message = fails(capsys, *prompt, "--model", vocabulary)
    assert "tokenizer.json has 8000 tokens, expected at most the model's vocab_size = 50" in message


def test_half_a_character_waits(taught):
    """The bytes of a cup are several tokens: nothing is shown of the first until the last comes."""
    tokenizer = load_task(taught / "full").tokenizer
    ids = encode(tokenizer, ["a ☕ ok"])[0].tolist()
    shown = list(pieces(tokenizer, ids[:1], [np.array([i]) for i in ids[1:]]))
    assert "".join(shown) == "a ☕ ok" and "\ufffd" not in "".join(shown) and "" not in shown[1:]
    whole = next(n for n in range(2, len(ids)) if "☕" in "".join(pieces(tokenizer, ids[:n], [])))
    for n in range(2, whole):  # a text that ends within the character shows what there is of it, at its end
        cut = list(pieces(tokenizer, ids[:1], [np.array([i]) for i in ids[1:n]]))
        assert "".join(cut).rstrip("\ufffd").strip() == "a" and "\ufffd" not in "".join(cut[:-1])


def test_a_text_ends_at_the_end_token(taught):
    task = load_task(taught / "full")
    head = np.zeros_like(task.params["tok_emb.weight"])
    head[0] = 1.0  # with ln_f's bias of ones, the end of a text is the likeliest token
    params = task.params | {"tok_emb.weight": head, "ln_f.bias": np.ones(16, np.float32)}
    task = task._replace(params=params)
    assert "".join(write_text_from(task, "the end", 9)) == "the end"
    assert len(list(write_text_from(task, "the end", 9, ignore_end=True))) == 10


# ---------------------------------------------------------------- mix and merge


def test_mix(taught, tmp_path, capsys):
    out = run(capsys, "mix", taught / "one", taught / "two", "--weights", 0.5, -1, "--out", tmp_path / "mix")
    assert "rank 5, exact" in out
    parts = load_adapter_set([taught / "one", taught / "two"])
    expected, error = mixed(parts, [0.5, -1.0])
    found = load_task(tmp_path / "mix").adapter.weights
    assert error == 0.0 and all(np.array_equal(found[name], expected.weights[name]) for name in found)
    out = run(capsys, "mix", taught / "one", taught / "two", "--rank", 2, "--out", tmp_path / "cut")
    assert "rank 2, relative error of ΔW" in out
    assert load_task(tmp_path / "cut").adapter.config.r == 2


def test_merge(taught, tmp_path, capsys):
    """The merged model is the adapted one, and needs no adapter."""
    out = run(capsys, "merge", taught / "one", "--out", tmp_path / "merged", "--time")
    assert "float16" in out and "of the base's" in out
    task, merged = load_task(taught / "one"), load_task(tmp_path / "merged")
    ids = np.array([[0, 5, 7, 11]])
    expected, _ = forward(task.params, ids, task.config, adapter=task.adapter)
    found, _ = forward(merged.params, ids, merged.config)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    run(capsys, "merge", taught / "classes", "--out", tmp_path / "classes")
    assert run(capsys, "predict", "--model", tmp_path / "classes", "the quick fox") == run(
        capsys, "predict", "--model", taught / "classes", "the quick fox"
    )


def test_forward_times_are_of_the_three(taught):
    for name in ("one", "classes"):
        parts = load_adapter_set([taught / name])
        times = forward_times(parts, parts.adapters[str(taught / name)], rows=2, repeats=2)
        assert list(times) == ["base", "attached", "merged"]
        assert all(seconds > 0 and ratio > 0 for seconds, ratio in times.values())


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    "command, out",
    [
        (["merge", "one"], "base"),
        (["merge", "one"], "one"),
        (["mix", "one", "two"], "two"),
        (["mix", "one", "two"], "base"),
        (["export", "one", "--to", "hf"], "base"),
        (["export", "one", "--to", "merged"], "one"),
        (["export", "one", "--to", "peft"], "one"),
        (["import", "hf", "--from", "hf"], "hf"),
        (["import", "peft", "--from", "peft", "--base", "base"], "peft"),
        (["import", "peft", "--from", "peft", "--base", "base"], "base"),
    ],
    ids=" ".join,
)
def test_nothing_is_written_over_what_is_read(command, out, taught, tiny_base, tmp_path, capsys):
    run(capsys, "export", taught / "one", "--to", "hf", "--out", tmp_path / "hf")
    run(capsys, "export", taught / "one", "--to", "peft", "--out", tmp_path / "peft")
    places = {"base": tiny_base, "one": taught / "one", "two": taught / "two"}
    places |= {name: tmp_path / name for name in ("hf", "peft") if command[0] == "import"}
    before = contents(places[out])
    words = [places.get(word, word) if i else word for i, word in enumerate(command)]
    words = [word if words[i - 1] not in ("--to", "--from") else command[i] for i, word in enumerate(words)]
    assert "is also read from; expected another folder" in fails(capsys, *words, "--out", places[out])
    assert contents(places[out]) == before


def test_a_task_written_over_another_is_the_new_one(taught, tmp_path, capsys):
    """A whole model in the folder of an adapter, and the other way round."""
    run(capsys, "mix", taught / "one", taught / "two", "--out", tmp_path / "out")
    run(capsys, "export", taught / "one", "--to", "merged", "--out", tmp_path / "hf")
    run(capsys, "import", tmp_path / "hf", "--from", "hf", "--out", tmp_path / "out")
    assert load_task(tmp_path / "out").adapter is None
    run(capsys, "mix", taught / "one", "--out", tmp_path / "out")
    assert load_task(tmp_path / "out").adapter is not None


def test_an_adapters_folder_is_no_model(taught, tmp_path, capsys):
    """It would be easy to lose the adapter without a word."""
    message = fails(capsys, "generate", "--prompt", "the", "--model", taught / "one")
    assert f"model: {taught / 'one'} is an adapter, expected a model; give it as --adapter" in message
    assert "'base' is not an adapter" in fails(capsys, "merge", "base", "--out", tmp_path / "out")


def test_half_of_a_classifier_is_half_of_its_head(taught, tmp_path, capsys):
    """The base has no head: none is made up for it."""
    run(capsys, "mix", taught / "classes", "--weights", 0.5, "--out", tmp_path / "half")
    folders = taught / "classes", tmp_path / "half"
    whole, half = (load_task(folder).adapter.weights["head.weight"] for folder in folders)
    assert np.array_equal(half, 0.5 * whole)


def test_a_trained_head_alone_is_merged(taught, tiny_base, tmp_path, capsys):
    table = ["finetune", "--data", taught / "rows.jsonl", "--text", "t", "--label", "l", "--base", tiny_base]
    run(capsys, *table, "--method", "head", "--epochs", 1, "--out", tmp_path / "head")
    run(capsys, "merge", tmp_path / "head", "--out", tmp_path / "merged")
    answers = [run(capsys, "predict", "--model", tmp_path / f, "said she") for f in ("head", "merged")]
    assert answers[0] == answers[1]


def test_rows_of_the_table_without_a_token_are_never_drawn(taught, tmp_path, capsys):
    """Some models round their vocabulary up."""
    task = load_task(taught / "full")
    table = np.concatenate([task.params["tok_emb.weight"], np.full((64, 16), 9, np.float32)])
    bias = {"ln_f.bias": np.ones(16, np.float32)}  # the rows without a token are the likeliest by far
    save_model(tmp_path, task.params | bias | {"tok_emb.weight": table}, replace(task.config, vocab_size=8064))
    shutil.copy(PRETRAINED / "tokenizer.json", tmp_path)
    assert run(capsys, "generate", "--model", tmp_path, "--prompt", "the", "--tokens", 5).startswith("the")


def test_what_mix_refuses(taught, tmp_path, capsys):
    out = ["--out", tmp_path / "out"]
    assert "has the labels" in fails(capsys, "mix", taught / "classes", taught / "one", *out)
    assert "r: got 0" in fails(capsys, "mix", taught / "one", taught / "two", "--rank", 0, *out)
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------- export and import


@pytest.mark.parametrize("name", ["one", "classes"])
def test_there_and_back(name, taught, tmp_path, capsys):
    """Base and adapter out, base and adapter in: every tensor's bytes, and the same answers."""
    task = load_task(taught / name)
    run(capsys, "export", taught / name, "--to", "hf", "--out", tmp_path / "base")
    run(capsys, "export", taught / name, "--to", "peft", "--out", tmp_path / "peft", "--base-name", "some/base")
    assert read_json(tmp_path / "peft" / "adapter_config.json")["base_model_name_or_path"] == "some/base"
    out = run(capsys, "import", tmp_path / "base", "--from", "hf", "--out", tmp_path / "ours")
    assert "d_model 16, 1 layers, 2 heads, 8000 tokens" in out
    labels = ["--labels", *task.labels] if task.labels else []
    base = read_json(taught / name / "task.json")["base"]
    command = ["import", tmp_path / "peft", "--from", "peft", "--base"]
    out = run(capsys, *command, base, "--out", tmp_path / "back", *labels)
    back = load_task(tmp_path / "back")
    assert back.labels == task.labels and set(back.adapter.weights) == set(task.adapter.weights)
    assert all(np.array_equal(back.adapter.weights[n], task.adapter.weights[n]) for n in back.adapter.weights)
    if task.labels is None:  # the imported base serves as well as the first one
        run(capsys, *command, tmp_path / "ours", "--out", tmp_path / "b2")
        prompt = ["generate", "--prompt", "the quick", "--tokens", 8]
        assert run(capsys, *prompt, "--adapter", tmp_path / "b2") == run(capsys, *prompt, "--adapter", taught / name)
    else:
        assert "labels: a, b, c" in out
        texts = ["the quick fox", "said she"]
        answers = [run(capsys, "predict", "--model", f, *texts) for f in (tmp_path / "back", taught / name)]
        assert answers[0] == answers[1]


def test_export_merged(taught, tmp_path, capsys):
    """An imported merged model needs nothing but itself."""
    run(capsys, "export", taught / "classes", "--to", "merged", "--out", tmp_path / "hf")
    assert load_gpt2(tmp_path / "hf").labels == ["a", "b", "c"]
    run(capsys, "import", tmp_path / "hf", "--from", "hf", "--out", tmp_path / "ours")
    answers = [run(capsys, "predict", "--model", f, "the quick fox") for f in (tmp_path / "ours", taught / "classes")]
    assert answers[0] == answers[1]


def test_labels_without_a_tokenizer(taught, tmp_path, capsys):
    """They wait for the tokenizer."""
    run(capsys, "export", taught / "classes", "--to", "merged", "--out", tmp_path / "hf")
    (tmp_path / "hf" / "tokenizer.json").unlink()
    run(capsys, "import", tmp_path / "hf", "--from", "hf", "--out", tmp_path / "ours")
    shutil.copy(PRETRAINED / "tokenizer.json", tmp_path / "ours")
    assert run(capsys, "predict", "--model", tmp_path / "ours", "she")[0] in "abc"


def test_an_adapter_without_a_head_on_a_classifier(taught, tmp_path, capsys):
    """As PEFT makes it where no task is named: the base keeps its classes and their labels."""
    run(capsys, "export", taught / "classes", "--to", "merged", "--out", tmp_path / "hf")
    run(capsys, "import", tmp_path / "hf", "--from", "hf", "--out", tmp_path / "ours")
    run(capsys, "export", taught / "classes", "--to", "peft", "--out", tmp_path / "peft")
    path = tmp_path / "peft" / "adapter_model.safetensors"
    write_tensors(path, {n: 9 * a for n, a in read_tensors(path)[0].items() if "score" not in n})
    run(capsys, "import", tmp_path / "peft", "--from", "peft", "--base", tmp_path / "ours", "--out", tmp_path / "back")
    assert load_task(tmp_path / "back").labels == ["a", "b", "c"]
    texts = ["the quick fox", "said she"]
    answers = [run(capsys, "predict", "--model", tmp_path / f, *texts) for f in ("back", "ours")]
    assert answers[0] != answers[1]


def test_a_head_that_does_not_fit_is_not_imported(taught, tiny_base, tmp_path, capsys):
    run(capsys, "export", taught / "classes", "--to", "peft", "--out", tmp_path / "peft")
    path = tmp_path / "peft" / "adapter_model.safetensors"
    tensors, _ = read_tensors(path)
    command = ["import", tmp_path / "peft", "--from", "peft", "--base", tiny_base, "--out", tmp_path / "out"]
    for shape, said in (((3, 7), "expected (3, 16)"), ((3,), "expected (n_classes, d_model)"), ((), "has shape ()")):
        write_tensors(path, tensors | {"base_model.model.score.weight": np.ones(shape, np.float32)})
        assert said in fails(capsys, *command)
    write_tensors(path, tensors)
    assert "labels: got a, a, b; expected 3 different labels" in fails(capsys, *command, "--labels", "a", "a", "b")
    assert not (tmp_path / "out").exists()


def test_a_base_without_a_tokenizer(taught, tmp_path, capsys):
    run(capsys, "export", taught / "one", "--to", "hf", "--out", tmp_path / "hf")
    (tmp_path / "hf" / "tokenizer.json").unlink()
    out = run(capsys, "import", tmp_path / "hf", "--from", "hf", "--out", tmp_path / "ours")
    assert "no tokenizer" in out
    assert "tokenizer.json" in fails(capsys, "generate", "--prompt", "the", "--model", tmp_path / "ours")
    tokenizer = ["--tokenizer", PRETRAINED / "tokenizer.json"]
    run(capsys, "import", tmp_path / "hf", "--from", "hf", "--out", tmp_path / "ours", *tokenizer)
    run(capsys, "generate", "--prompt", "the", "--model", tmp_path / "ours", "--tokens", 2)


def test_a_tokenizer_as_gpt2_has_it(taught, tmp_path, capsys):
    """Without a padding token, and with nothing put in front of a text."""
    run(capsys, "export", taught / "one", "--to", "hf", "--out", tmp_path / "hf")
    path = tmp_path / "hf" / "tokenizer.json"
    fields = json.loads(path.read_text(encoding="utf-8"))
    fields["post_processor"] = None
    fields["added_tokens"] = [token for token in fields["added_tokens"] if token["content"] != "<|pad|>"]
    fields["model"]["vocab"].pop("<|pad|>")
    path.write_text(json.dumps(fields), encoding="utf-8")
    run(capsys, "import", tmp_path / "hf", "--from", "hf", "--out", tmp_path / "ours")
    command = ["finetune", "--data", taught / "rows.jsonl", "--text", "t", "--label", "l", "--epochs", 1]
    run(capsys, *command, "--base", tmp_path / "ours", "--out", tmp_path / "task")
    run(capsys, "predict", "--model", tmp_path / "task", "the quick fox")
    ids = encode(load_task(tmp_path / "ours").tokenizer, ["the quick", ""])
    assert ids[0].tolist() == encode(load_task(taught / "one").tokenizer, ["the quick"])[0].tolist()
    assert ids[1].tolist() == [0]


def test_what_export_and_import_refuse(taught, tiny_base, tmp_path, capsys):
    out = ["--out", tmp_path / "out"]
    assert "got a whole model" in fails(capsys, "export", taught / "full", "--to", "peft", *out)
    assert "needs --to peft" in fails(capsys, "export", taught / "one", "--to", "hf", "--base-name", "x", *out)
    assert "labels: needs --from peft" in fails(capsys, "import", "x", "--from", "hf", "--labels", "a", *out)
    assert "tokenizer: needs --from hf" in fails(capsys, "import", "x", "--from", "peft", "--tokenizer", "a", *out)
    assert "no such file or directory" in fails(capsys, "import", tmp_path / "none", "--from", "hf", *out)
    run(capsys, "export", taught / "one", "--to", "peft", "--out", tmp_path / "peft")
    command = ["import", tmp_path / "peft", "--from", "peft", *out]
    assert "has lora_A" in fails(capsys, *command)  # the shipped base
    message = fails(capsys, *command, "--base", tiny_base, "--labels", "a", "b")
    assert "labels: got a, b; expected none, because the adapter has no head" in message
    assert "is a PEFT adapter" in fails(capsys, "generate", "--prompt", "x", "--adapter", tmp_path / "peft")
    assert not (tmp_path / "out").exists()


def test_a_warning_is_one_line(taught, tiny_base, tmp_path, capsys):
    run(capsys, "export", taught / "one", "--to", "peft", "--out", tmp_path / "peft")
    path = tmp_path / "peft" / "adapter_config.json"
    write_json(path, read_json(path) | {"colour": "red"})
    folders = ["--base", str(tiny_base), "--out", str(tmp_path / "o")]
    code = main(["import", str(tmp_path / "peft"), "--from", "peft", *folders])
    said = capsys.readouterr()
    assert code == 0 and said.err == f"warning: {path}: unknown fields colour are ignored, but saved again\n"
    run(capsys, "export", tmp_path / "o", "--to", "peft", "--out", tmp_path / "again")
    assert read_json(tmp_path / "again" / "adapter_config.json")["colour"] == "red"


# ---------------------------------------------------------------- inspect


def test_inspect(taught, tmp_path, capsys):
    out = run(capsys, "inspect", taught / "one", "--json", tmp_path / "one.json")
    assert "blocks.0.mlp.up_proj.lora_A" in out and "effective rank" in out
    found = read_json(tmp_path / "one.json")
    task = load_task(taught / "one")
    row = {row["layer"]: row for row in found["adapters"]}["blocks.0.mlp.up_proj"]
    A, B = (task.adapter.weights[f"blocks.0.mlp.up_proj.lora_{x}"].astype(float) for x in "AB")
    sigma = np.linalg.svd(2.0 * B @ A, compute_uv=False)
    assert row["rank"] == 2 and row["scale"] == 2.0
    assert row["norm_update"] == pytest.approx(np.linalg.norm(sigma))
    assert row["stable_rank"] == pytest.approx(np.sum(sigma**2) / sigma[0] ** 2)
    p = sigma[sigma > 1e-9 * sigma[0]] / sigma.sum()
    assert row["effective_rank"] == pytest.approx(np.exp(-np.sum(p * np.log(p))))
    run(capsys, "export", taught / "one", "--to", "peft", "--out", tmp_path / "peft")
    out = run(capsys, "inspect", tmp_path / "peft")
    assert "transformer.h.0.attn.c_attn.lora_A.weight" in out and "format=pt" in out
    assert "tok_emb.weight" in run(capsys, "inspect", taught / "full" / "model.safetensors")


def test_inspect_takes_any_adapter(tmp_path, capsys):
    """Of a model that is none of ours, without a configuration; broken numbers are shown as such."""
    name = "base_model.model.model.layers.0.self_attn.q_proj"
    tensors = {f"{name}.lora_A.weight": np.ones((2, 30), np.float16), f"{name}.lora_B.weight": np.eye(40, 2)}
    write_tensors(tmp_path / "any.safetensors", tensors)
    out = run(capsys, "inspect", tmp_path / "any.safetensors")
    assert f"{name} " in out and "40×30" in out and "No configuration gives s" in out
    tensors[f"{name}.lora_B.weight"] = np.full((40, 2), np.nan)
    write_tensors(tmp_path / "any.safetensors", tensors)
    assert "not finite" in run(capsys, "inspect", tmp_path / "any.safetensors", "--json", tmp_path / "any.json")
    assert read_json(tmp_path / "any.json")["adapters"] == []
    assert "there is no .safetensors file in it" in fails(capsys, "inspect", tmp_path.parent / tmp_path.name / "..")


@pytest.mark.parametrize("fields", ["[]", '{"rank_pattern": [1]}', '{"rank_pattern": "ab"}', '{"r": "x"}', "{", "{}"])
def test_inspect_beside_a_configuration_of_no_use(fields, taught, tmp_path, capsys):
    run(capsys, "export", taught / "one", "--to", "peft", "--out", tmp_path / "peft")
    (tmp_path / "peft" / "adapter_config.json").write_text(fields)
    assert "No configuration gives s" in run(capsys, "inspect", tmp_path / "peft")


def test_inspect_of_shards(taught, tmp_path, capsys):
    tensors, _ = read_tensors(taught / "full" / "model.safetensors")
    write_tensors(tmp_path / "a.safetensors", tensors)
    write_json(tmp_path / "model.safetensors.index.json", {"weight_map": dict.fromkeys(tensors, "a.safetensors")})
    for path in (tmp_path, tmp_path / "model.safetensors.index.json"):
        assert "tok_emb.weight" in run(capsys, "inspect", path)


def test_seeds_and_options_that_make_no_sense(tmp_path, capsys):
    assert "seed: got -1" in fails(capsys, "generate", "--prompt", "the", "--seed", -1)
    assert "epochs: only applies to the base" in fails(
        capsys, "pretrain", "--adapters", "--epochs", 1, "--out", tmp_path
    )


def test_experiment_list(capsys):
    names = [line.split()[1] for line in run(capsys, "experiment", "list").splitlines()]
    assert len(names) == len(set(names)) == 17
    message = fails(capsys, "experiment", "nothing")
    assert message == f"error: experiment: got 'nothing', expected one of {', '.join(names)}\n"


def test_shipped_adapters_fit_the_shipped_base():
    for name in shipped_adapters():
        task = load_task(name)
        assert task.labels is None and task.adapter is not None
