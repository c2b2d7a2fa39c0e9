"""SmolLM2, fine-tuned and exported: transformers' pipelines and llama.cpp give our labels and write our texts."""

import json

import pytest

from lora_np.adapters import merge
from lora_np.data import load_reviews
from lora_np.formats import load_task
from lora_np.formats.packaged import packaged_model
from lora_np.tasks.classifier import load_classifier, predict
from lora_np.tasks.exchange import export
from lora_np.tasks.finetuning import finetune
from lora_np.tasks.label_words import label_ids, prompt_ids
from lora_np.tasks.language import Conversations
from lora_np.tasks.settings import FinetuneSettings
from lora_np.tasks.table import LabelledTable, QuestionTable
from lora_np.tasks.writing import answer_from

transformers = pytest.importorskip("transformers")

from .llama_cpp import log_probabilities, need_llama_cpp  # noqa: E402
from .test_formats_hf import no_warnings  # noqa: E402

pytestmark = [pytest.mark.oracle, pytest.mark.real]

N_NEW = 8  # tokens of an answer
WORDS = {1: "wonderful", 0: "terrible"}


@pytest.fixture(scope="module")
def snippets(tmp_path_factory):
    """Film snippets: the file and the rows of a table of 64, and 200 texts."""
    try:
        packaged_model()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    splits = load_reviews("rotten_tomatoes")
    step = len(splits.train.texts) // 64
    few = list(zip(splits.train.texts[::step], splits.train.labels[::step]))[:64]
    rows = [{"text": text, "label": WORDS[int(k)]} for text, k in few]
    path = tmp_path_factory.mktemp("table") / "table.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path, rows, list(splits.test.texts[::5])


def fine_tune(data, folder, form, **settings):
    """SmolLM2, fine-tuned into `folder/task` and exported to `folder/out.FORM`."""
    finetune(data, folder / "task", FinetuneSettings(base="smollm2", **settings))
    export(folder / "task", form, folder / f"out.{form}")


@pytest.mark.nightly
def test_labels(snippets, tmp_path):
    table, _, texts = snippets
    texts = texts[::3]
    fine_tune(LabelledTable(table, "text", "label"), tmp_path, "merged", learning_rate=2e-3, epochs=2)
    with no_warnings():
        classify = transformers.pipeline("text-classification", model=str(tmp_path / "out.merged"), device="cpu")
        theirs = [row["label"] for row in classify(texts, batch_size=20)]
    classifier = load_classifier(tmp_path / "task")
    ours = [label for label, _ in predict(classifier, texts)]
    assert ours == theirs and set(ours) == set(WORDS.values())


@pytest.mark.parametrize("n", [16, pytest.param(200, marks=pytest.mark.stress)])
def test_chat(n, snippets, tmp_path):
    _, rows, texts = snippets
    chats = [{"prompt": row["text"], "completion": f"This review is {row['label']}."} for row in rows[:32]]
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps(chat) + "\n" for chat in chats))
    fine_tune(Conversations(tmp_path / "chats.jsonl"), tmp_path, "merged", learning_rate=1e-3, epochs=1)
    conversations = [[{"role": "user", "content": text}] for text in texts[:n]]
    with no_warnings():
        write = transformers.pipeline("text-generation", model=str(tmp_path / "out.merged"), device="cpu")
        settings = {"max_new_tokens": N_NEW, "do_sample": False, "return_full_text": False}
        theirs = [write(messages, **settings)[0]["generated_text"] for messages in conversations]
    task = load_task(tmp_path / "task")
    task = task._replace(params=merge(task.params, task.adapter))  # once, and not for each conversation
    ours = ["".join(answer_from(task, messages, N_NEW)) for messages in conversations]
    assert ours == theirs and len(set(ours)) > 1


@pytest.mark.nightly
def test_labels_as_words_in_llama_cpp(snippets, tmp_path):
    """The likeliest of the labels' first tokens, after the text and the question."""
    need_llama_cpp()
    table, _, texts = snippets
    texts = texts[::10]
    data = QuestionTable(table, "text", "label", question="\nThis film is")
    fine_tune(data, tmp_path, "gguf", learning_rate=1e-3, epochs=2)
    export("smollm2", "gguf", tmp_path / "base.gguf")
    classifier = load_classifier(tmp_path / "task")
    first = [int(ids[0]) for ids in label_ids(classifier.tokenizer, classifier.labels)]
    rows = prompt_ids(classifier.tokenizer, texts, classifier.question, classifier.config.n_positions)
    adapters = [(tmp_path / "out.gguf", 1.0)]
    likely = [row[-1][first] for row in log_probabilities(tmp_path / "base.gguf", rows, tmp_path, adapters=adapters)]
    theirs = [classifier.labels[row.argmax()] for row in likely]
    assert theirs == [label for label, _ in predict(classifier, texts)] and set(theirs) == set(WORDS.values())
