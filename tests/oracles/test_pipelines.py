"""Tasks on SmolLM2, exported: transformers' pipelines give our labels and write our texts."""

import json

import pytest

from lora_np.data import load_reviews
from lora_np.formats import load_task
from lora_np.formats.smollm2 import packaged_model
from lora_np.model import GREEDY
from lora_np.tasks.classifier import finetune, load_classifier, predict
from lora_np.tasks.exchange import export
from lora_np.tasks.language_model import finetune_answers
from lora_np.tasks.writing import answer_from

transformers = pytest.importorskip("transformers")

from .test_formats_hf import no_warnings  # noqa: E402

pytestmark = [pytest.mark.oracle, pytest.mark.real]

N_NEW = 8  # tokens of an answer
WORDS = {1: "wonderful", 0: "terrible"}


@pytest.fixture(scope="module")
def snippets():
    """Film snippets: 64 to learn from, with labels, and 200."""
    try:
        packaged_model()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    splits = load_reviews("rotten_tomatoes")
    step = len(splits.train.texts) // 64
    few = list(zip(splits.train.texts[::step], splits.train.labels[::step]))[:64]
    return few, list(splits.test.texts[:200])


def test_labels(snippets, tmp_path):
    few, texts = snippets
    table = tmp_path / "table.jsonl"
    table.write_text("".join(json.dumps({"text": t, "label": WORDS[int(k)]}) + "\n" for t, k in few))
    finetune(table, "text", "label", tmp_path / "task", base="smollm2", learning_rate=2e-3, epochs=2)
    export(tmp_path / "task", "merged", tmp_path / "merged")
    with no_warnings():
        classify = transformers.pipeline("text-classification", model=str(tmp_path / "merged"), device="cpu")
        theirs = [row["label"] for row in classify(texts, batch_size=20)]
    classifier = load_classifier(tmp_path / "task")
    ours = [label for label, _ in predict(classifier, texts)]
    assert ours == theirs and set(ours) == set(WORDS.values())


def test_chat(snippets, tmp_path):
    few, texts = snippets
    table = tmp_path / "chats.jsonl"
    rows = [{"prompt": text, "completion": f"This review is {WORDS[int(k)]}."} for text, k in few[:32]]
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    finetune_answers(table, tmp_path / "task", base="smollm2", learning_rate=1e-3, epochs=1)
    export(tmp_path / "task", "merged", tmp_path / "merged")
    conversations = [[{"role": "user", "content": text}] for text in texts]
    with no_warnings():
        write = transformers.pipeline("text-generation", model=str(tmp_path / "merged"), device="cpu")
        settings = {"max_new_tokens": N_NEW, "do_sample": False, "return_full_text": False}
        theirs = [write(messages, **settings)[0]["generated_text"] for messages in conversations]
    task = load_task(tmp_path / "task")
    ours = ["".join(answer_from(task, messages, N_NEW, task.adapter, GREEDY, None)) for messages in conversations]
    assert ours == theirs and len(set(ours)) > 1
