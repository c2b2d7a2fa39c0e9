"""A user's tasks on a Llama with a chat template: conversations, answers in words, and the options for large bases."""

import io
import json

import numpy as np
import pytest

from lora_np.adapters import AdapterConfig
from lora_np.cli import main
from lora_np.formats import load_hf, load_task, read_model, save_model
from lora_np.model import LlamaConfig, forward
from lora_np.tasks.classifier import class_probabilities
from lora_np.tasks.finetuning import finetune
from lora_np.tasks.label_words import label_ids, label_rows, prompt_ids
from lora_np.tasks.language import Conversations
from lora_np.tasks.settings import FinetuneSettings
from lora_np.tasks.table import QuestionTable
from lora_np.tasks.writing import answer_from, write_text_from

from .chat_templates import LETTERS, SPECIAL, TEMPLATES, write_tokenizer
from .tiny import random_params, same_bits

LORA = {"adapter": AdapterConfig(4, 8.0, ("all-linear",)), "learning_rate": 2e-2, "batch_size": 8}
FULL = {"method": "full", "learning_rate": 1e-2, "batch_size": 8, "epochs": 20}  # which also learns to spell


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder with a tiny Llama whose tokens are special ones, bytes, " c" and " n", with a chat template."""
    tokens = [*SPECIAL, *LETTERS, "Ġc", "Ġn"]
    config = LlamaConfig(len(tokens), 160, 24, 2, 3, 1, 8, 32, rope_theta=1000.0, extra={"model_type": "llama"})
    folder = tmp_path_factory.mktemp("llama") / "base"
    params = random_params(config, np.float32, spread=0.15)
    params |= {name: np.ones_like(array) for name, array in params.items() if array.ndim == 1}
    save_model(folder, params, config)
    end = {"eos_token_id": SPECIAL.index("<|im_end|>")}
    write_tokenizer(folder, TEMPLATES["ChatML"], tokens=tokens, merges=["Ġ c", "Ġ n"], **end)
    return folder


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A CSV whose texts have an "x" or an "o" in them, and a label that says which."""
    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("data") / "table.csv"
    rows = ["text,label"]
    for _ in range(120):
        mark, noise = rng.choice(["x", "o"]), "".join(rng.choice(list("abcde"), 5))
        rows.append(f"{noise[:2]}{mark}{noise[2:]},{'cross' if mark == 'x' else 'nought'}")
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="module")
def in_words(base, table, tmp_path_factory):
    """The folder of a classifier that answers in words, and what `finetune` returned."""
    out = tmp_path_factory.mktemp("words") / "task"
    data = QuestionTable(table, "text", "label", question="\nMark:")
    with pytest.warns(match="^texts: 6.0 tokens per word, 0 % unknown tokens .* vocabulary does not suit them"):
        return out, finetune(data, out, FinetuneSettings(base=base, **FULL))


def test_a_classifier_answers_in_words(in_words):
    """Its probabilities are those of the labels' first tokens after the question, and it writes its answer."""
    out, result = in_words
    assert result["test_accuracy"] > 0.9 and result["validation_accuracy"] > 0.9
    task, texts = load_task(out), ["abxcde", "edobca", "aaxeee"]
    assert task.config.n_classes == 0 and task.config.tied and "head.weight" not in task.params
    probabilities = class_probabilities(task, texts)
    for text, p in zip(texts, probabilities):
        ids = np.array(task.tokenizer.encode(text + "\nMark:").ids)[None]
        logits, _ = forward(task.params, ids, task.config)
        first = [task.tokenizer.encode(f" {label}").ids[0] for label in task.labels]
        expected = np.exp(logits[0, -1, first] - logits[0, -1, first].max())
        np.testing.assert_allclose(p, expected / expected.sum(), rtol=1e-4)
        written = "".join(write_text_from(task, f"{text}\nMark:", 10))
        assert written == f"{text}\nMark: {task.labels[p.argmax()]}"


def test_labels_that_begin_alike_are_refused(base):
    tokenizer = read_model(base).tokenizer
    with pytest.raises(ValueError, match="labels: 'cat' begins with the same token as 'car'"):
        label_ids(tokenizer, ["car", "cat"])


def test_a_long_text_keeps_its_question(base):
    tokenizer = read_model(base).tokenizer
    long, short = prompt_ids(tokenizer, ["a" * 50, " a "], "\nQ:", 12)
    assert tokenizer.decode(long.tolist()) == "a" * 9 + "\nQ:" and tokenizer.decode(short.tolist()) == "a\nQ:"
    (ids,), (targets,) = label_rows([short], [1], label_ids(tokenizer, ["b", "cd"], (SPECIAL.index("<|im_end|>"),)))
    assert tokenizer.decode(ids.tolist()) == "a\nQ: cd"
    assert targets.tolist() == [-100] * 3 + tokenizer.encode(" cd").ids + [SPECIAL.index("<|im_end|>")]


@pytest.fixture(scope="module")
def chats(tmp_path_factory):
    """A JSONL whose answers repeat the only letter of the question, between words in upper case."""
    path = tmp_path_factory.mktemp("chats") / "chats.jsonl"
    rows = [{"prompt": f"say {letter}{'!' * k}", "completion": f"AY {letter}"} for letter in "abcdef" for k in range(8)]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return path


def test_conversations_are_learnt_and_answered(base, chats, tmp_path, run, monkeypatch):
    """In Python and on the command line, in one piece and line by line."""
    result = finetune(Conversations(chats), tmp_path / "m", FinetuneSettings(base=base, **FULL))
    assert result["conversations"] == {"train": 38, "validation": 5, "test": 5}
    assert result["test_perplexity"] < 1.5 < 20 < result["test_perplexity_before"]
    task, messages = load_task(tmp_path / "m"), [{"role": "user", "content": "say d!!!!"}]
    assert "".join(answer_from(task, messages, 20)) == "AY d"
    out = run("generate", "--base", tmp_path / "m", "--chat", "--prompt", "say d!!!!", "--temperature", 0)
    assert out == "AY d\n"
    monkeypatch.setattr("sys.stdin", io.StringIO("say d!!!!\n\nsay a\n"))
    assert run("chat", "--base", tmp_path / "m", "--temperature", 0).startswith("AY d\nAY")


TUNE = "finetune --data {chats} --out {out} --base {base} --rank 2"
REFUSED = [
    ("generate --base {base} --prompt a --system b", "system: needs --chat"),
    ("generate --chat --prompt a", "model: has no chat template"),
    ("chat --adapter critics licences", "adapter: got 2, expected at most one in a chat"),
    (TUNE.replace("chats", "table"), "row 1, line 2: has 'text', 'label'; expected either prompt"),
    (f"{TUNE} --as-words", "text_column: is missing"),
    (f"{TUNE} --text text", "label_column: is missing"),
    (
        f"{TUNE} --text text --label label --as-words --method head".replace("--rank 2", ""),
        "method: got 'head', expected one of lora, full",
    ),
    (f"{TUNE} --method full --weights blocks", "weights: got 'blocks', expected"),
    (f"{TUNE} --max-tokens 161", "max_tokens: got 161, expected an integer"),
    (f"{TUNE} --max-tokens 5", "no train conversation has an answer within 5 tokens"),
    (f"{TUNE} --threads 0", "threads: got 0"),
    ("generate --base {out}/none.gguf --prompt a", "none.gguf: there is no such file"),
    ("generate --base {table} --prompt a", "table.csv"),
]


@pytest.mark.parametrize("command, says", REFUSED)
def test_what_cannot_be_done(command, says, base, table, chats, tmp_path, fails):
    places = {"base": base, "table": table, "chats": chats, "out": tmp_path / "out"}
    fails(*command.format(**places).split(), says=[says])
    assert not (tmp_path / "out").exists()


def test_mixed_and_merged_classifiers_read_texts_as_before(base, table, tmp_path, run, capsys):
    """Their question, and how much of a text they read, go with them."""
    data = QuestionTable(table, "text", "label", question="\nMark:")
    with pytest.warns(match="tokens per word"):
        finetune(data, tmp_path / "task", FinetuneSettings(base=base, max_tokens=12, epochs=1, **LORA))
    run("mix", tmp_path / "task", "--out", tmp_path / "mixed")
    run("merge", tmp_path / "task", "--out", tmp_path / "merged")
    texts = ["abxcde", "edobca", "a" * 20 + "x"]
    commands = [["predict", "--model", str(tmp_path / name), *texts] for name in ("task", "mixed", "merged")]
    answers = [(main(command), capsys.readouterr()) for command in commands]
    assert answers[0][0] == 0 and "1 of 3 have more than 12 tokens" in answers[0][1].err
    assert answers[0] == answers[1] == answers[2]
    for name in ("mixed", "merged"):
        task = load_task(tmp_path / name)
        assert (task.question, task.max_tokens, task.labels) == ("\nMark:", 12, ["cross", "nought"])
    out = run("export", tmp_path / "task", "--to", "merged", "--out", tmp_path / "hf")
    assert "the model with a text and '\\nMark:'; it was trained to answer with one of ' cross', ' nought'" in out
    assert same_bits(load_hf(tmp_path / "hf").params, load_task(tmp_path / "merged").params)
