"""Imported tokenizers: ids and greedy text as transformers has them, and files that come back as they were."""

import json
import random

import numpy as np
import pytest

from lora_np.data import FILES, decode, encode, gguf_tokenizer_files, load_tokenizer
from lora_np.formats import load_task
from lora_np.tasks.exchange import export, import_hf
from lora_np.tasks.writing import write_text_from

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

pytestmark = pytest.mark.oracle

POSITIONS, NEW = 48, 8
WORDS = """the film is a fine story of love and war that nobody wanted to see twice but everybody did it's 10/10
well-made naïve café Übung größer 日本語 テスト русский текст 🙂 🎬 … — don't WON'T Movie MOVIE x1 2.50""".split()
SPECIAL = ["<|endoftext|>", "<s>", "<user>", "NASA", "<|pad|>", "[MASK]"]


def texts(n, seed=0):
    """Texts of all kinds; a few are longer than the position table."""
    rng = random.Random(seed)
    pieces = [*WORDS, *SPECIAL, " ", "  ", "\n", "\n\n", "\t", " <s> ", "e\u0301", "\u00a0", "<", "|>", "\x00", "ﬁ"]
    found = ["the film", " leading", "<s>", "\n", "NASA's <user> film<|endoftext|>", "word " * 60]
    while len(found) < n:
        found.append(rng.choice(["", " "]).join(rng.choice(pieces) for _ in range(rng.choice([1, 4, 9, 20]))))
    return found


def trained(**settings):
    """A byte-level BPE tokenizer that has learned from a few hundred words."""
    tokenizer = tokenizers.ByteLevelBPETokenizer(**settings)
    rng = random.Random(1)
    corpus = [" ".join(rng.choices(WORDS, k=12)) for _ in range(60)]
    tokenizer.train_from_iterator(corpus, vocab_size=330, min_frequency=2, show_progress=False)
    return tokenizer._tokenizer


def plain(folder):
    trained().save(str(folder / "tokenizer.json"))


def initial(folder):
    tokenizer = trained()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    ids = [(text, tokenizer.token_to_id(text)) for text in ("<s>", "</s>")]
    around = tokenizers.processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ids)
    tokenizer.post_processor = tokenizers.processors.Sequence([tokenizer.post_processor, around])
    wrapped(tokenizer, bos_token="<s>", eos_token="</s>").save_pretrained(folder)


def added(folder):
    tokenizer = trained(add_prefix_space=True, lowercase=True)
    tokenizer.add_tokens(
        [tokenizers.AddedToken("NASA", single_word=True), tokenizers.AddedToken("<user>", lstrip=True)]
    )
    tokenizer = wrapped(tokenizer, bos_token="<s>", eos_token="<|endoftext|>", pad_token="<|pad|>")
    tokenizer.add_special_tokens({"mask_token": tokenizers.AddedToken("[MASK]", lstrip=True, rstrip=True)})
    tokenizer.save_pretrained(folder)


def sparse(folder):
    """A vocabulary with gaps, at its end too."""
    content = json.loads(trained().to_str())
    ids = np.sort(np.random.default_rng(0).choice(500, len(content["model"]["vocab"]), replace=False))
    order = sorted(content["model"]["vocab"], key=content["model"]["vocab"].get)
    content["model"]["vocab"] = {token: int(i) for token, i in zip(order, ids)}
    (folder / "tokenizer.json").write_text(json.dumps(content), "utf-8")
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": POSITIONS}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def old(folder):
    trained().model.save(str(folder))


def old_with_all(folder):
    """All that an old transformers wrote beside a vocabulary."""
    old(folder)
    bos = {"content": "<s>", "lstrip": False, "normalized": True, "rstrip": True, "single_word": False}
    names = {"bos_token": bos, "eos_token": "</s>", "additional_special_tokens": ["<user>"]}
    size = len(json.loads((folder / "vocab.json").read_text("utf-8")))
    tokens = {"NASA": size, "<s>": size + 1, "</s>": size + 2}
    settings = {"add_bos_token": True, "add_prefix_space": True, "tokenizer_class": "GPT2Tokenizer"}
    for name, value in {"special_tokens_map": names, "added_tokens": tokens, "tokenizer_config": settings}.items():
        (folder / f"{name}.json").write_text(json.dumps(value))


def changed(make, **settings):
    """The files of `make` with other fields in tokenizer_config.json; a field of None is removed."""

    def made(folder):
        make(folder)
        path = folder / "tokenizer_config.json"
        fields = (json.loads(path.read_text("utf-8")) if path.exists() else {}) | settings
        path.write_text(json.dumps({name: value for name, value in fields.items() if value is not None}))

    return made


def wrapped(tokenizer, **settings):
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **settings)


TOKENIZERS = {"plain": plain, "initial": initial, "added": added, "sparse": sparse, "old": old}
OTHERS = {  # of which only the ids are compared
    "old, with all": old_with_all,
    "special tokens are characters": changed(added, split_special_tokens=True),
    "rebuilt by GPT2Tokenizer": changed(added, tokenizer_class="GPT2TokenizerFast", add_prefix_space=True),
    "rebuilt, no class": changed(initial, tokenizer_class=None),
    "rebuilt, its own names": changed(initial, tokenizer_class=None, added_tokens_decoder=None, bos_token=None),
    "rebuilt, sparse": changed(sparse, tokenizer_class=None),
    "more special tokens": changed(plain, tokenizer_class="TokenizersBackend", extra_special_tokens=["<s>", "the"]),
    "named tokens": changed(plain, unk_token=None, bos_token="<s>", image_token="<user>"),
    "old, a prefix": changed(old, add_bos_token=True, add_eos_token=True, eos_token="the"),
}


def digits(folder):
    """As in SmolLM2: from the metadata of a GGUF file, with tokens of every type and one at each end of a text."""
    content = json.loads(trained().to_str())["model"]
    tokens = [*SPECIAL, *sorted(content["vocab"], key=content["vocab"].get)]
    metadata = {
        "model": "gpt2",
        "pre": "smollm",
        "tokens": tokens,
        "token_type": [3, 3, 4, 3, 2, 4] + [1] * (len(tokens) - 6),
    }
    metadata |= {"merges": [" ".join(pair) for pair in content["merges"]], "bos_token_id": 1, "eos_token_id": 0}
    metadata |= {"unknown_token_id": 4, "add_bos_token": True, "add_eos_token": True}
    for name, data in gguf_tokenizer_files(
        {f"tokenizer.ggml.{name}": value for name, value in metadata.items()}
    ).items():
        (folder / name).write_bytes(data)


def sentencepiece(folder):
    """As in Llama 2: spaces are letters, and unknown characters are bytes."""
    rng = random.Random(1)
    corpus = [" ".join(rng.choices(WORDS, k=12)) for _ in range(60)]
    learner = tokenizers.SentencePieceBPETokenizer()
    learner.train_from_iterator(corpus, vocab_size=330, limit_alphabet=40, show_progress=False)
    learned = json.loads(learner._tokenizer.to_str())["model"]
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    order = [*names, *(token for token in sorted(learned["vocab"], key=learned["vocab"].get) if token not in names)]
    model = {**learned, "vocab": {token: i for i, token in enumerate(order)}, "byte_fallback": True, "fuse_unk": True}
    tokenizer = tokenizers.Tokenizer.from_str(json.dumps({**json.loads(learner._tokenizer.to_str()), "model": model}))
    tokenizer.normalizer = tokenizers.normalizers.Sequence(
        [tokenizers.normalizers.Prepend("\u2581"), tokenizers.normalizers.Replace(" ", "\u2581")]
    )
    tokenizer.pre_tokenizer = None
    tokenizer.add_special_tokens(names[:3])
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))


def without_added(folder):
    sentencepiece(folder)
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {"added_tokens": []}), "utf-8")


LLAMAS = {
    "as in a GGUF file": digits,
    "byte-level, LlamaTokenizer": changed(digits, tokenizer_class="LlamaTokenizerFast"),
    "byte-level, GPT2Tokenizer": changed(digits, tokenizer_class="GPT2Tokenizer"),
    "byte-level, no class": changed(initial, tokenizer_class=None),
    "sentencepiece, the whole file": sentencepiece,
    "sentencepiece, rebuilt": changed(sentencepiece, tokenizer_class="LlamaTokenizerFast", add_bos_token=False),
    "sentencepiece, rebuilt, legacy": changed(sentencepiece, tokenizer_class="LlamaTokenizer", legacy=True),
    "sentencepiece, rebuilt, no prefix": changed(
        sentencepiece, tokenizer_class="LlamaTokenizer", add_prefix_space=False, pad_token="<|pad|>"
    ),
    "sentencepiece, rebuilt, its tokens by default": changed(without_added, tokenizer_class="LlamaTokenizer"),
    "an old GPT2Tokenizer": changed(old, tokenizer_class="GPT2Tokenizer", eos_token="the"),
}


def make_model(folder, make, vocab_size=520):
    """A random GPT-2 that transformers saved, with a tokenizer; some 30 ids end a text."""
    torch.manual_seed(0)
    ends = np.random.default_rng(1).choice(vocab_size, 30, replace=False).tolist()
    config = transformers.GPT2Config(
        vocab_size=vocab_size, n_positions=POSITIONS, n_embd=32, n_layer=2, n_head=4,
        initializer_range=0.3, bos_token_id=None, eos_token_id=ends,
    )  # fmt: skip
    model = transformers.GPT2LMHeadModel(config).eval()
    model.save_pretrained(folder)
    make(folder)
    return model, transformers.AutoTokenizer.from_pretrained(folder)


def kept(folder):
    """The bytes of the files that a tokenizer and `generate` depend on."""
    return {name: (folder / name).read_bytes() for name in FILES if (folder / name).exists()}


@pytest.mark.parametrize("name", [*TOKENIZERS, *OTHERS])
def test_ids_and_files(name, tmp_path):
    """The same ids; and after import and export the same files, with which transformers has the same ids again."""
    _, theirs = make_model(tmp_path / "hf", (TOKENIZERS | OTHERS)[name])
    import_hf(tmp_path / "hf", tmp_path / "task")
    export(tmp_path / "task", "hf", tmp_path / "back")
    sample = [*texts(200), ""]
    expected = theirs(sample)["input_ids"]
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / "back")(sample)["input_ids"]
    assert again == expected
    for folder in ("hf", "task", "back"):
        ours = load_tokenizer(tmp_path / folder)
        assert [ids.tolist() for ids in encode(ours, sample)] == expected
        assert kept(tmp_path / folder) == kept(tmp_path / "hf")
    cut = theirs(sample, truncation=True, max_length=9)["input_ids"]
    assert [ids.tolist() for ids in encode(ours, sample, 9)] == cut


@pytest.mark.parametrize("name", LLAMAS)
def test_the_folder_of_a_llama(name, tmp_path):
    """The same ids, and the same text again."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 1000}))
    LLAMAS[name](tmp_path)
    theirs, ours = transformers.AutoTokenizer.from_pretrained(tmp_path), load_tokenizer(tmp_path)
    sample = [*texts(200), ""]
    expected = theirs(sample)["input_ids"]
    assert [ids.tolist() for ids in encode(ours, sample)] == expected
    assert [decode(ours, np.array(ids, dtype=int)) for ids in expected] == theirs.batch_decode(
        expected, skip_special_tokens=True
    )


@pytest.mark.parametrize("name", TOKENIZERS)
def test_greedy_text(name, tmp_path):
    """Ids without a token are never chosen here; transformers is asked not to."""
    model, theirs = make_model(tmp_path / "hf", TOKENIZERS[name])
    import_hf(tmp_path / "hf", tmp_path / "task")
    task = load_task(tmp_path / "task")
    gaps = sorted(set(range(task.config.vocab_size)) - set(theirs.get_vocab().values()))
    fits = [text for text in texts(200) if text.strip() and 0 < len(theirs(text)["input_ids"]) <= POSITIONS - NEW]
    sample = fits[:80]
    lengths = set()
    for text in sample:
        given = theirs(text, return_tensors="pt")["input_ids"]
        ids = model.generate(
            given, attention_mask=torch.ones_like(given), max_new_tokens=NEW, do_sample=False, suppress_tokens=gaps
        )
        lengths.add(ids.shape[1] - given.shape[1])
        assert "".join(write_text_from(task, text, NEW)) == theirs.decode(ids[0], skip_special_tokens=True)
    assert len(sample) == 80 and len(lengths) > 2, "some texts ended early"
