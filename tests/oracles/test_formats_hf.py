"""Files that go across: transformers reads what `save_hf` wrote, PEFT what `save_peft` wrote, and the other way."""

import contextlib
import json
import logging
import warnings

import numpy as np
import pytest

from lora_np import formats
from lora_np.adapters import Adapter, AdapterConfig, init_adapter, merge
from lora_np.data import encode, load_reviews, load_tokenizer, model_files, normalise
from lora_np.formats import PRETRAINED, load_hf, load_peft, load_pretrained, load_task, save_hf, save_peft
from lora_np.model import GPT2Config, Sampling, forward, generate, next_probabilities
from lora_np.tasks.classifier import without_padding

from ..tiny import edit_fields, random_params
from .comparison import LARGEST, OUTPUT, check, check_all

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

from .hf_model import Logits, hf_model, in_float64  # noqa: E402
from .torch_model import MODELS, model_case  # noqa: E402

pytestmark = pytest.mark.oracle

LOGITS = 4e-6  # of float32 logits: the largest difference over their rms; processors differ by half of it
DORA_LOGITS = 6e-6  # with each row of a weight divided by its norm, which the two sum in other orders
HEADS = pytest.mark.parametrize("n_classes", [0, 5], ids=["language model", "classifier"])
ADAPTERS = {
    "q,v": {"targets": ("q_proj", "v_proj"), "r": 4, "alpha": 8.0},
    "all linear": {"targets": ("all-linear",), "r": 3, "alpha": 6.0},
    "rsLoRA": {"targets": ("all-linear",), "r": 4, "alpha": 2.0, "rslora": True},
    "patterns": {
        "targets": ("all-linear",),
        "r": 2,
        "alpha": 4.0,
        "rank_pattern": {"blocks.1.mlp.up_proj": 5, "o_proj": 3},
        "alpha_pattern": {"blocks.0.mlp.*": 1.0},
    },
    "one layer": {"targets": ("blocks.1.attn.k_proj",), "r": 4, "alpha": 4.0},
    "head alone": {"targets": ()},
    "other scales side by side": {"targets": ("all-linear",), "r": 4, "rank_pattern": {"v_proj": 2}},
    "DoRA": {"targets": ("all-linear",), "r": 3, "alpha": 6.0, "kind": "dora"},
    "DoRA on q,v": {"targets": ("q_proj", "v_proj"), "r": 4, "alpha": 2.0, "kind": "dora", "rslora": True},
    "DoRA, patterns": {
        "targets": ("k_proj", "o_proj", "blocks.1.mlp.*"),
        "r": 2,
        "kind": "dora",
        "norm_gradient": True,
        "rank_pattern": {"down_proj": 5},
        "alpha_pattern": {"o_proj": 1.0},
    },
}


@contextlib.contextmanager
def no_warnings():
    """Fail on any warning of these libraries, by `warnings` or by their loggers."""
    said = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())
    loggers = [logging.getLogger(name) for name in ("transformers", "peft")]
    transformers.utils.logging.disable_progress_bar()
    for logger in loggers:
        logger.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", category=FutureWarning)  # of PEFT's own calls into transformers
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
    assert not said


def odd_config(n_classes=0):
    return GPT2Config(29, 9, 18, 2, 3, 31, n_classes=n_classes)


def random_ids(config, rng, B=4, T=8):
    """Ids without 0, which serves as padding."""
    return rng.integers(1, config.vocab_size, (B, T))


def moved(params, settings, rng):
    """An adapter of ours about as far from its start as a short training goes."""
    start = init_adapter(params, AdapterConfig(**settings), rng)
    weights = {name: a + 0.05 * rng.standard_normal(a.shape) for name, a in start.weights.items()}
    return start._replace(weights={name: a.astype(start.weights[name].dtype) for name, a in weights.items()})


def in_transformers(folder, config, **settings):
    """The model of a folder as transformers reads it, without a warning."""
    kind = "SequenceClassification" if config.n_classes else "CausalLM"
    with no_warnings():
        model = getattr(transformers, f"AutoModelFor{kind}").from_pretrained(folder, **settings)
    model.config.pad_token_id = 0
    return model.eval()


def in_peft(folder, params, config, adapter, tokenizer=None):
    """Base and adapter, exported to a folder and loaded by PEFT without a warning, in the base's dtype."""
    labels = [f"label {k}" for k in range(config.n_classes)] or None
    save_hf(folder / "base", params, config, tokenizer, labels)
    save_peft(folder / "adapter", adapter, params, config)
    with no_warnings():
        base = in_transformers(folder / "base", config).to(torch.from_numpy(params["tok_emb.weight"]).dtype)
        assert labels is None or base.config.id2label == dict(enumerate(labels))
        return peft.PeftModel.from_pretrained(base, folder / "adapter").eval()


def hf_logits(model, ids):
    with torch.no_grad():
        return model(input_ids=torch.tensor(ids)).logits.numpy()


def agree(group, got, expected, tolerance=LOGITS):
    """The largest difference is at most `tolerance` of the expected numbers' rms; in float64, `check` them."""
    assert got.shape == expected.shape and got.dtype == expected.dtype
    if got.dtype == np.float64:
        return check(group, "logits", got, expected, OUTPUT)
    error = float(np.abs(got - expected).max() / np.sqrt(np.mean(expected.astype(np.float64) ** 2)))
    group = f"float32 logits, max over rms: {group}"
    if error > LARGEST.get(group, (-1.0,))[0]:
        LARGEST[group] = (error, "logits", tolerance)
    assert got.dtype == np.float32 and error <= tolerance


def agree_by_kind(what, adapter, got, expected):
    """`agree` with the tolerance of the adapter's kind."""
    dora = adapter.config.kind == "dora"
    agree(f"DoRA {what}" if dora else what, got, expected, DORA_LOGITS if dora else LOGITS)


def file_bytes(folder, name="adapter_model.safetensors"):
    return {key: (a.dtype, a.shape, a.tobytes()) for key, a in formats.read_tensors(folder / name)[0].items()}


# ---------------------------------------------------------------- Hugging Face's directories


@pytest.mark.parametrize("form", ["shipped", "new", "of a folder with tokenizer.json alone"])
def test_transformers_reads_texts_as_we_do(form, tmp_path):
    """The shipped model with its tokenizer: the same ids, and the same greedy text."""
    params, config = load_pretrained()
    tokenizer = load_tokenizer(PRETRAINED)
    files = model_files(PRETRAINED) if form != "new" else {}
    if form not in ("shipped", "new"):
        files = {"tokenizer.json": files["tokenizer.json"]}
        tokenizer.encode_special_tokens = False
    save_hf(tmp_path, params, config, tokenizer, None, files)
    texts = ["", "a <|endoftext|> in<|pad|>side"]
    texts += ["A fine film, isn't it?", 'He said: "No..." <br /> -- and left (early)!', "naïve café 10/10"]
    texts += [text[:300] for source in ("imdb", "rotten_tomatoes") for text in load_reviews(source).test.texts[:100]]
    with no_warnings():
        model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
        theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
        assert theirs(texts)["input_ids"] == [ids.tolist() for ids in encode(tokenizer, texts)]
        for text, ids in zip(texts, encode(tokenizer, texts)):
            if tokenizer.encode_special_tokens or "<|" not in text:
                assert theirs.decode(ids, skip_special_tokens=True) == normalise(tokenizer, text)
        assert theirs.pad_token_id == 1 and theirs.eos_token_id == 0
        prompt = theirs("the film", return_tensors="pt")
        text = model.generate(**prompt, max_new_tokens=12, do_sample=False)
    ours = generate(params, prompt["input_ids"].numpy(), config, 12)
    assert text.numpy().tolist() == ours.tolist()


@HEADS
@pytest.mark.parametrize(
    "form, dtype",
    [("one file", "float64"), ("one file", "float16"), ("shards", "float32"), ("old fields", "bfloat16"),
     ("bare", "float64")],
)  # fmt: skip
@pytest.mark.parametrize("name", MODELS)
def test_any_directory(name, form, dtype, n_classes, tmp_path, monkeypatch):
    """The same configuration, numbers and logits, whatever the files are like.

    The old fields are those of transformers 4; the body alone has no prefix in its names, and a tied head.
    """
    in_float64(monkeypatch)
    dtype = getattr(torch, dtype)
    _, config, params, batch = model_case(name, n_classes, 0)
    labels = {"id2label": dict(enumerate("vwxyz"))} if n_classes else {}
    model = hf_model(params, config, **labels).to(dtype)
    if form == "bare":
        if "head.weight" in params:
            pytest.skip("the body has no head")
        model = model.transformer if name == "GPT-2" else model.model
    model.save_pretrained(tmp_path, max_shard_size="3KB" if form == "shards" else "1GB")
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (form == "shards")
    if form == "old fields" and name != "GPT-2":
        theta = json.loads((tmp_path / "config.json").read_text("utf-8"))["rope_parameters"]["rope_theta"]
        edit_fields(tmp_path / "config.json", rope_parameters="absent", rope_theta=theta, rope_scaling=None)
    ours = load_hf(tmp_path, np.float64)
    assert ours.config == config and ours.labels == (list("vwxyz") if n_classes else None)
    rounded = {key: torch.tensor(array).to(dtype).double() for key, array in params.items()}
    check_all("imported, weights", ours.params, rounded, 0.0)
    if form != "bare":
        model = in_transformers(tmp_path, config)
        expected = Logits(model.double(), n_classes)(torch.tensor(batch.ids), torch.tensor(batch.lengths))
        logits, _ = forward(ours.params, batch.ids, ours.config, lengths=batch.lengths)
        check("imported, logits", "logits", logits, expected, OUTPUT)


TIED = "H/K = 3, tied"
REFUSED_FIELDS = {  # with which transformers computes or generates something else
    "GPT-2": [
        {"is_causal": False}, {"sliding_window": 3}, {"attention_chunk_size": 3}, {"tie_word_embeddings": False},
        {"layer_types": ["sliding_attention"] * 2, "sliding_window": 3}, {"num_attention_heads": 3},
        {"num_hidden_layers": 1}, {"scale_attn_weights": False}, {"scale_attn_by_inverse_layer_idx": True},
    ],
    TIED: [
        {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 500.0, "factor": 4.0}},
        {"rope_parameters": "absent", "rope_theta": 500.0, "rope_scaling": {"type": "dynamic", "factor": 4.0}},
        {"hidden_act": "gelu"}, {"model_type": "qwen2"}, {"tie_word_embeddings": False},
        {"num_key_value_heads": 3}, {"num_hidden_layers": 1}, {"attention_bias": True}, {"head_dim": "absent"},
    ],
}  # fmt: skip
OTHER_NUMBERS = {  # with which both compute something else
    "GPT-2": [{"layer_norm_epsilon": 0.5}],
    TIED: [
        {"rope_parameters": {"rope_type": "default", "rope_theta": 7.0}}, {"rms_norm_eps": 0.5},
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0}},
        {"rope_parameters": "absent", "rope_theta": 500.0, "rope_scaling": {"type": "linear", "factor": 4.0}},
        {"rope_parameters": "absent"},  # then the base is 10,000
        {"num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 12},
    ],
}  # fmt: skip
SAME_MODEL = {  # that change nothing
    "GPT-2": [
        {"num_attention_heads": 2, "n_head": "absent"}, {"hidden_size": 12}, {"layer_types": ["full_attention"] * 2},
        {"attn_implementation": "eager", "reorder_and_upcast_attn": True}, {"chunk_size_feed_forward": 2},
        {"n_ctx": 3}, {"is_decoder": False}, {"use_cache": False}, {"summary_type": "mean"}, {"initializer_range": 9.0},
    ],
    TIED: [
        {"num_key_value_heads": 2}, {"use_cache": False}, {"pretraining_tp": 2}, {"initializer_range": 0.5},
        {"rope_scaling": None}, {"attention_dropout": 0.5}, {"max_position_embeddings": 100}, {"is_decoder": False},
        {"rope_parameters": "absent", "rope_theta": 500.0}, {"rope_parameters": {"rope_theta": 500.0}},
        {"rope_parameters": "absent", "rope_theta": 500.0, "rope_scaling": {"rope_type": "default"}},
        {"layer_types": ["full_attention"] * 2}, {"attention_bias": "absent"}, {"model_type": "mistral"},
    ],
}  # fmt: skip
FIELDS = [(name, kind, changes) for kind, table in (
    ("refused", REFUSED_FIELDS), ("other", OTHER_NUMBERS), ("same", SAME_MODEL)
) for name in table for changes in table[name]]  # fmt: skip


@pytest.mark.parametrize("name, kind, changes", FIELDS, ids=str)
@pytest.mark.filterwarnings("ignore")
def test_fields_that_change_what_a_model_computes(name, kind, changes, tmp_path, monkeypatch):
    in_float64(monkeypatch)
    _, config, params, batch = model_case(name, 0, 0, (3,) * 40)
    dtype = np.float32 if name == "GPT-2" else np.float64  # which may not be upcast
    params = {key: array.astype(dtype) for key, array in params.items()}
    hf_model(params, config, use_cache=True).save_pretrained(tmp_path)
    first, text = forward(params, batch.ids, config)[0], generate(params, batch.ids, config, 4)
    edit_fields(tmp_path / "config.json", **changes)
    if kind == "refused":
        with pytest.raises(ValueError, match="expected|missing|unexpected|must be equal") as refusal:
            load_hf(tmp_path)
        assert "\n" not in str(refusal.value)
        if name != "GPT-2":
            return
    torch.manual_seed(0)  # of a head that the file does not have
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    theirs = hf_logits(model, batch.ids)
    options = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    same = np.allclose(theirs, first, rtol=0, atol=1e-4)
    same = same and model.generate(torch.tensor(batch.ids), **options).tolist() == text.tolist()
    assert same == (kind == "same")
    if kind != "refused":
        ours = load_hf(tmp_path, dtype)
        agree("imported", forward(ours.params, batch.ids, ours.config)[0], theirs)


def test_a_classifier_reads_the_last_token_that_is_not_padding(tmp_path):
    """Also where a text itself ends with that token, or consists of it."""
    _, config, params, _ = model_case("GPT-2", 4, 0)
    hf_model(params, config).save_pretrained(tmp_path)
    ours = load_hf(tmp_path, np.float64)
    ids = np.array([[3, 7, 0, 4, 9], [3, 7, 0, 0, 0], [0, 0, 5, 0, 0], [0, 0, 0, 0, 0]])  # pad_token_id is 0
    lengths = [len(row) for row in without_padding(list(ids), ours.config)]
    assert lengths == [5, 2, 3, 1]
    logits, _ = forward(ours.params, ids, ours.config, lengths=np.array(lengths))
    check("imported, logits", "logits", logits, hf_logits(hf_model(params, config), ids), OUTPUT)


# ---------------------------------------------------------------- PEFT


@HEADS
@pytest.mark.parametrize("name", ADAPTERS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
def test_peft_loads_an_adapter_of_ours(dtype, name, n_classes, tmp_path):
    """The same logits, merged or not; in float64 to the last digits. Back here, the same bytes."""
    if name == "head alone" and not n_classes:
        pytest.skip("a language model has no head to train")
    config, rng = odd_config(n_classes), np.random.default_rng(0)
    params = random_params(config, dtype, spread=0.2)
    adapter = moved(params, ADAPTERS[name], rng)
    model = in_peft(tmp_path, params, config, adapter)
    ids = random_ids(config, rng)
    expected, _ = forward(params, ids, config, adapter=adapter)
    base, _ = forward(params, ids, config)
    assert np.abs(expected - base).max() > 1e-3 * np.abs(base).max()  # or else there is nothing to be seen
    agree_by_kind("to PEFT", adapter, hf_logits(model, ids), expected)
    merged, _ = forward(merge(params, adapter), ids, config)
    agree_by_kind("to PEFT, merged", adapter, hf_logits(model.merge_and_unload(), ids), merged)

    back = load_peft(tmp_path / "adapter", params, config)
    assert list(back.weights) == list(adapter.weights)
    if name == "other scales side by side":  # q, k and v have one scale in PEFT; B takes what is left
        agree("to PEFT and back", forward(params, ids, config, adapter=back)[0], expected)
        return
    for key, array in adapter.weights.items():
        assert back.weights[key].tobytes() == array.tobytes(), key
    save_peft(tmp_path / "again", back, params, config)
    assert file_bytes(tmp_path / "again") == file_bytes(tmp_path / "adapter")
    again, first = (tmp_path / folder / "adapter_config.json" for folder in ("again", "adapter"))
    assert again.read_text() == first.read_text()


@pytest.mark.parametrize("seed", range(40))
def test_sampling_is_transformers(seed):
    """Penalty, temperature, top-k and top-p in that order, over many settings, in float64."""
    from transformers.generation import logits_process

    rng = np.random.default_rng(seed)
    logits, ids = 3 * rng.standard_normal((3, 50)), rng.integers(0, 50, (3, 8))
    settings = Sampling(
        temperature=float(rng.choice([0.3, 1.0, 2.0])),
        top_k=[None, 1, 7, 60][rng.integers(4)],
        top_p=[None, 0.3, 0.9, 1.0][rng.integers(4)],
        repetition_penalty=float(rng.choice([1.0, 1.3, 0.7])),
    )
    chain = [logits_process.RepetitionPenaltyLogitsProcessor(settings.repetition_penalty)]
    chain += [logits_process.TemperatureLogitsWarper(settings.temperature)]
    chain += [logits_process.TopKLogitsWarper(settings.top_k)] if settings.top_k else []
    chain += [logits_process.TopPLogitsWarper(settings.top_p)] if settings.top_p else []
    scores = torch.tensor(logits)
    for process in chain:
        scores = process(torch.tensor(ids), scores)
    check("sampling", "probabilities", next_probabilities(logits, ids, settings), scores.softmax(-1), OUTPUT)


@pytest.mark.parametrize("name", formats.shipped_adapters())
def test_a_shipped_adapter_at_real_size(name, tmp_path):
    """Two million logits: the same numbers in float64; in float32 each side has its own rounding."""
    task = load_task(name)
    model = in_peft(tmp_path, task.params, task.config, task.adapter, task.tokenizer)
    ids = random_ids(task.config, np.random.default_rng(0), 4, 64)
    ours, _ = forward(task.params, ids, task.config, adapter=task.adapter)
    wide = {key: array.astype(np.float64) for key, array in task.params.items()}
    wide_adapter = Adapter(task.adapter.config, {k: a.astype(np.float64) for k, a in task.adapter.weights.items()})
    truth, _ = forward(wide, ids, task.config, adapter=wide_adapter)
    theirs = hf_logits(model, ids)
    check("shipped adapter by PEFT", "logits", truth, hf_logits(model.double(), ids), OUTPUT)
    truth = truth.astype(np.float32)
    agree("shipped model, lora_np against its float64", ours, truth, 1e-5)
    agree("shipped model, PEFT against lora_np's float64", theirs, truth, 1e-5)
    agree("shipped model, to PEFT", theirs, ours, 1e-5)
