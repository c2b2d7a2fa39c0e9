"""The dialect experiment: its texts, its runs, its figure and its samples."""

import json

import numpy as np
import pytest

from lora_np.adapters import AdapterConfig
from lora_np.data import corpus_digest, load_licences, read_texts, text_digest
from lora_np.data.licences import distinct_paragraphs, licence_files, paragraphs
from lora_np.experiments import pretrain
from lora_np.experiments.methods import SETTINGS
from lora_np.experiments.recipes import dialect
from lora_np.experiments.runs import dialect as dialect_run
from lora_np.experiments.runs.dialect import DialectRun, adapter_of
from lora_np.formats import PRETRAINED, read_json, shipped_adapters
from lora_np.model import GPT2Config, initial_params
from lora_np.training import language_loss, train

from .tiny import copies, same_bits

SENTENCE = "the copyright holder grants to any person a free and perpetual licence to use this software for any purpose"


@pytest.mark.slow
def test_a_limited_domain_begins_as_the_whole_one():
    some, whole = dialect_run.load_domain("critics", limit=50), dialect_run.load_domain("critics")
    assert all(np.array_equal(one, other[:50]) for one, other in zip(some, whole))


@pytest.mark.slow
def test_licences_are_in_fixed_parts_without_repeats():
    files = licence_files()
    assert files and all(path.is_file() for path in files) and len(files) == len(set(files))
    parts, again = load_licences(), load_licences()
    assert parts == again and corpus_digest(parts) == corpus_digest(again)
    digests = [{text_digest(text) for text in part} for part in parts]
    assert sum(map(len, digests)) == len(set().union(*digests)) == sum(map(len, parts))
    assert len(parts.train) > len(parts.test) > len(parts.validation) > 0
    text = " ".join(parts.train)
    assert "warranty" in text.lower() and "  " not in text and "\n" not in text


def test_paragraphs_lose_their_frames():
    text = "# One line\n# and its second.\n#\n# /* Another */\n\n  * a list\n\n\n----\n"
    assert list(paragraphs(text)) == ["One line and its second.", "Another", "a list"]


def test_what_is_nearly_a_repeat_is_left_out(tmp_path):
    """A licence that quotes another with a name changed is no new text."""
    backwards = " ".join(reversed(SENTENCE.split()))
    texts = {
        "a.txt": f"{SENTENCE}\n\ntoo short to be kept\n",
        "b.txt": f"{SENTENCE.replace('software', 'font')}\n\n{backwards}\n",
        "c.txt": f"{SENTENCE.upper()}!\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    assert list(distinct_paragraphs([tmp_path / name for name in texts]).values()) == [SENTENCE, backwards]


def test_texts_of_a_file(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(b"one\nstill one\r\n \r\ntwo\n\n\n\nthree\n")
    assert read_texts(path) == ["one still one", "two", "three"]
    path.write_text("\n a  b \nc\n")
    assert read_texts(path) == ["a b", "c"]


@pytest.fixture
def on_tiny(monkeypatch):
    """Runs with a tiny model in the shipped one's place, and random tokens for every domain."""
    config = GPT2Config(50, dialect_run.LENGTH, 12, 1, 2, 16)
    tiny = initial_params(config, np.random.default_rng(0)), config
    tokens = np.random.default_rng(0).integers(0, 50, 400)
    part = dialect_run.Splits(tokens, tokens[:60], tokens[60:160])
    monkeypatch.setattr(dialect_run, "load_base", lambda name: (*tiny, None, None))
    monkeypatch.setattr(dialect_run, "load_domain", lambda *_: part)
    return tiny


def test_perplexity_of_a_model_that_knows_nothing(on_tiny):
    params, config = on_tiny
    flat = {**params, "tok_emb.weight": np.zeros_like(params["tok_emb.weight"])}
    assert np.exp(language_loss(flat, config, np.arange(30))) == pytest.approx(50, rel=1e-6)


@pytest.mark.parametrize("method", ["full", "lora_r4"])
def test_a_run_leaves_the_base_as_it_was_and_gives_the_same_twice(method, on_tiny):
    """Everything that a run promises to look at; its steps are in proportion to its epochs."""
    params, _ = on_tiny
    before = copies(params)
    (numbers, arrays), again, twice = (DialectRun("critics", method, 0, 1e-2, n).carry_out() for n in (1, 1, 2))
    assert numbers["base_untouched"] and numbers["removed_bit_for_bit"] == (None if method == "full" else True)
    assert json.loads(json.dumps(numbers)) == numbers and arrays == {} and again == (numbers, arrays)
    assert twice[0]["steps"] == 2 * numbers["steps"] and numbers["moved"] > 0 and same_bits(params, before)


def test_a_base_that_was_changed_is_found_out(on_tiny, monkeypatch):
    def careless(**plan):
        state = train(**plan)
        on_tiny[0]["ln_f.bias"][0] += np.float32(1e-6)
        return state

    monkeypatch.setattr(dialect_run, "train", careless)
    numbers, _ = DialectRun("critics", "lora_r4", 0, 1e-2, 1).carry_out()
    assert numbers["base_untouched"] is False and numbers["removed_bit_for_bit"] is False


def test_the_test_parts_are_not_read_while_rates_are_chosen(on_tiny, monkeypatch):
    part = dialect_run.load_domain("critics")._replace(test=None)
    monkeypatch.setattr(dialect_run, "load_domain", lambda *_: part)
    numbers, _ = DialectRun("critics", "lora_r1", 0, 1e-2, 1, test=False).carry_out()
    assert "new" not in numbers and "old" not in numbers and numbers["validation_loss"] > 0
    with pytest.raises(ValueError, match="stream: got shape"):
        DialectRun("critics", "lora_r1", 0, 1e-2, 1).carry_out()


def test_removal_is_really_compared(on_tiny, random_adapter):
    """An adapter that changes nothing is found out."""
    params, config = on_tiny
    adapter = random_adapter(params, train_head=False)
    nothing = adapter._replace(weights={name: 0 * array for name, array in adapter.weights.items()})
    for which, restores in ((adapter, True), (nothing, False)):
        assert dialect_run.removal_restores(params, params, config, which, np.arange(8)) is restores


def test_domains_have_their_epochs_and_methods_their_rates(monkeypatch):
    monkeypatch.setattr(dialect, "licences_digest", lambda: "0")
    assert adapter_of("full") is None
    assert adapter_of("lora_r16") == AdapterConfig(r=16, alpha=32.0, targets=("all-linear",))
    assert adapter_of("lora_r4_qv") == AdapterConfig(r=4, alpha=8.0, targets=("q_proj", "v_proj"))
    chosen = read_json(SETTINGS)["chosen"]
    runs = dialect.runs([0, 1], False)
    assert len(set(runs.values())) == len(runs) == 2 * 4 * 2
    assert {run.method for run in runs.values()} == {"full", "lora_r16"}
    for (_, name, _), run in runs.items():
        assert run.epochs == {"critics": 1, "licences": 3}[run.domain] and run.test
        assert run.learning_rate == chosen[f"{run.domain}, {run.method}"] * (0.5 if name.endswith("half") else 1)


@pytest.mark.slow
def test_shipped_adapters_speak_their_dialects():
    """Each takes its own domain's words for likelier than the base and the other do."""
    samples = dialect.samples()
    assert list(samples["texts"]) == ["base", *shipped_adapters()] == ["base", "critics", "licences"]
    legal = ("license", "software", "copyright", "warranty", "font")
    counts = {name: sum(" ".join(texts).count(word) for word in legal) for name, texts in samples["texts"].items()}
    assert counts["licences"] >= 5 and counts["base"] == counts["critics"] == 0
    lengths = {name: sum(len(text) for text in texts) for name, texts in samples["texts"].items()}
    assert lengths["critics"] < 0.8 * lengths["base"]  # snippets are short and end


def test_shipped_adapters_are_what_their_recipe_says():
    """Their learning rates are fixed there: to choose the experiment's anew changes no adapter that ships."""
    assert set(pretrain.RATES) == set(pretrain.ADAPTER_EPOCHS) == set(pretrain.SOURCES) == set(shipped_adapters())
    for name in shipped_adapters():
        about = read_json(PRETRAINED / "adapters" / name / "task.json")
        assert about["learning_rate"] == pretrain.RATES[name] and about["epochs"] == pretrain.ADAPTER_EPOCHS[name]
        assert about["data"] == pretrain.SOURCES[name]
