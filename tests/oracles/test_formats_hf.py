"""Files that go across: transformers reads what `save_hf` wrote, PEFT what `save_peft` wrote, and the other way."""

import contextlib
import json
import logging
import warnings

import numpy as np
import pytest

from lora_np.adapters import Adapter, AdapterConfig, init_adapter, merge
from lora_np.data import Batch, encode, load_reviews, load_tokenizer, model_files, normalise
from lora_np.formats import (
    PRETRAINED,
    load_hf,
    load_peft,
    load_pretrained,
    load_task,
    read_tensors,
    save_hf,
    save_peft,
    shipped_adapters,
    write_tensors,
)
from lora_np.model import (
    ModelConfig,
    Sampling,
    forward,
    generate,
    loss_and_gradients,
    next_probabilities,
)
from lora_np.tasks.classifier import without_padding
from lora_np.training import TrainConfig, model_objective, train

from ..tiny import edit_fields, random_params
from .comparison import GRADIENT, LARGEST, OUTPUT, check, check_all

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

pytestmark = pytest.mark.oracle

LOGITS = 4e-6  # of float32 logits: the largest difference over their rms; processors differ by half of it
DORA_LOGITS = 6e-6  # with each row of a weight divided by its norm, which the two sum in other orders
ZERO = ("k_proj.bias",)
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
    return ModelConfig(29, 9, 18, 2, 3, 31, n_classes=n_classes)


def random_ids(config, rng, B=4, T=8):
    """Ids without 0, which serves as padding."""
    return rng.integers(1, config.vocab_size, (B, T))


def language_batch(config, rng):
    ids = random_ids(config, rng)
    targets = rng.integers(0, config.n_classes or config.vocab_size, len(ids) if config.n_classes else ids.shape)
    return Batch(ids, targets, np.full(len(ids), ids.shape[1]), np.arange(len(ids)))


def trained_here(params, config, settings, rng, steps=8):
    """An adapter after a few AdamW steps of ours."""
    start = init_adapter(params, AdapterConfig(**settings), rng)
    batches = [language_batch(config, rng) for _ in range(steps)]
    objective = model_objective(params, config, start)
    state = train(start.weights, objective, lambda rng: batches, TrainConfig(steps=steps, learning_rate=2e-2))
    moved = [name for name, array in start.weights.items() if not np.array_equal(array, state.best[name])]
    assert set(moved) >= {name for name in start.weights if name.endswith("lora_B")}
    return start._replace(weights=state.best)


def load_in_transformers(folder, config):
    kind = "SequenceClassification" if config.n_classes else "CausalLM"
    model = getattr(transformers, f"AutoModelFor{kind}").from_pretrained(folder)
    model.config.pad_token_id = 0
    return model.eval()


def in_peft(folder, params, config, adapter, tokenizer=None):
    """Base and adapter, exported to a folder and loaded by PEFT without a warning, in the base's dtype."""
    labels = [f"label {k}" for k in range(config.n_classes)] or None
    save_hf(folder / "base", params, config, tokenizer, labels)
    save_peft(folder / "adapter", adapter, params, config)
    with no_warnings():
        base = load_in_transformers(folder / "base", config).to(torch.from_numpy(params["tok_emb.weight"]).dtype)
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
    return {key: (a.dtype, a.shape, a.tobytes()) for key, a in read_tensors(folder / name)[0].items()}


# ---------------------------------------------------------------- GPT-2


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


def random_gpt2(n_classes, dtype, seed=0, bare=False):
    torch.manual_seed(seed)
    config = transformers.GPT2Config(
        vocab_size=31, n_positions=11, n_embd=15, n_layer=3, n_head=3, n_inner=37, num_labels=n_classes or 2,
        initializer_range=0.3, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    kind = transformers.GPT2Model if bare else transformers.GPT2LMHeadModel
    model = transformers.GPT2ForSequenceClassification(config) if n_classes else kind(config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or ".ln_" in name:  # 0 and 1 throughout in a fresh model
            parameter.data += 0.3 * torch.randn_like(parameter)
    return model.to(dtype).eval()


@HEADS
@pytest.mark.parametrize("seed", [0, 1])
def test_logits_and_gradients_of_a_gpt2_of_odd_sizes(n_classes, seed, tmp_path):
    """n_inner is not 4C, three heads, an odd vocabulary: in float64."""
    model = random_gpt2(n_classes, torch.float64, seed)
    model.save_pretrained(tmp_path)
    params, config, labels = load_hf(tmp_path, np.float64)
    assert config.d_ff == 37 and config.n_heads == 3 and config.vocab_size == 31 and bool(labels) == bool(n_classes)
    rng = np.random.default_rng(seed)
    batch = language_batch(config, rng)
    logits = model(input_ids=torch.tensor(batch.ids)).logits
    flat = logits.reshape(-1, logits.shape[-1])
    torch.nn.functional.cross_entropy(flat, torch.tensor(batch.targets).reshape(-1)).backward()
    check("GPT-2 of odd sizes", "logits", forward(params, batch.ids, config)[0], logits, OUTPUT)
    grads = loss_and_gradients(params, batch, config, wanted=tuple(params)).grads
    # Our own reader takes their gradients across: they have their parameters' names and layout.
    theirs = {name: p.grad.numpy() for name, p in model.named_parameters()}
    write_tensors(tmp_path / "model.safetensors", theirs)
    check_all("GPT-2 of odd sizes", grads, load_hf(tmp_path, np.float64).params, GRADIENT, ZERO)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("how", ["whole", "bare", "shards"])
def test_any_gpt2_directory(how, dtype, tmp_path):
    """Bare names or prefixed ones, one file or shards with an index, any of the three dtypes: the same numbers."""
    model = random_gpt2(0, dtype, bare=how == "bare")
    model.save_pretrained(tmp_path, max_shard_size="9KB" if how == "shards" else "1GB")
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (how == "shards")
    params, config, _ = load_hf(tmp_path)
    body = model if how == "bare" else model.transformer
    weight = body.h[1].attn.c_attn.weight.float().detach().numpy()  # (C, 3C)
    assert np.array_equal(params["blocks.1.attn.k_proj.weight"], weight[:, 15:30].T)
    assert all(array.dtype == np.float32 for array in params.values())
    ids = random_ids(config, np.random.default_rng(0))
    with torch.no_grad():
        h = body.float()(torch.tensor(ids)).last_hidden_state.numpy()
    agree("GPT-2 imported", forward(params, ids, config)[0], h @ params["tok_emb.weight"].T)


OTHER_MODELS = [  # fields with which transformers computes or generates something else, and which we refuse
    {"is_causal": False}, {"sliding_window": 3}, {"attention_chunk_size": 3}, {"tie_word_embeddings": False},
    {"layer_types": ["sliding_attention"] * 3, "sliding_window": 3}, {"num_attention_heads": 5},
    {"num_hidden_layers": 2}, {"scale_attn_weights": False}, {"scale_attn_by_inverse_layer_idx": True},
]  # fmt: skip
THIS_MODEL = [  # and fields that change nothing, or only rounding
    {"num_attention_heads": 3, "n_head": "absent"}, {"hidden_size": 15}, {"layer_types": ["full_attention"] * 3},
    {"attn_implementation": "eager", "reorder_and_upcast_attn": True}, {"chunk_size_feed_forward": 2}, {"n_ctx": 3},
    {"is_decoder": False}, {"use_cache": False}, {"summary_type": "mean"}, {"initializer_range": 9.0},
]  # fmt: skip


@pytest.mark.parametrize("changes", OTHER_MODELS + THIS_MODEL, ids=str)
def test_fields_that_change_what_a_gpt2_computes(changes, tmp_path):
    random_gpt2(0, torch.float32).save_pretrained(tmp_path)
    params, config, _ = load_hf(tmp_path)
    ids = random_ids(config, np.random.default_rng(0), 1, 5)
    logits, _ = forward(params, ids, config)
    text = generate(params, ids, config, 6)
    edit_fields(tmp_path / "config.json", **changes)
    torch.manual_seed(0)  # of a head that the file does not have
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    options = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    same = np.allclose(hf_logits(model, ids), logits, atol=1e-4)
    same = same and model.generate(torch.tensor(ids), **options).tolist() == text.tolist()
    assert same == (changes in THIS_MODEL)
    if same:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            again = load_hf(tmp_path)
        assert again.config == config and np.array_equal(forward(again.params, ids, again.config)[0], logits)
    else:
        with pytest.raises(ValueError, match="expected|missing"):
            load_hf(tmp_path)


def test_a_classifier_reads_the_last_token_that_is_not_padding(tmp_path):
    """Also where a text itself ends with that token, or consists of it."""
    model = random_gpt2(4, torch.float32)
    model.save_pretrained(tmp_path)
    params, config, _ = load_hf(tmp_path)
    ids = np.array([[3, 7, 0, 4, 9], [3, 7, 0, 0, 0], [0, 0, 5, 0, 0], [0, 0, 0, 0, 0]])  # pad_token_id is 0
    lengths = [len(row) for row in without_padding(list(ids), config)]
    assert lengths == [5, 2, 3, 1]
    agree("GPT-2 imported", forward(params, ids, config, lengths=np.array(lengths))[0], hf_logits(model, ids))


# ---------------------------------------------------------------- PEFT


@HEADS
@pytest.mark.parametrize("name", ADAPTERS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
def test_peft_loads_an_adapter_that_was_trained_here(dtype, name, n_classes, tmp_path):
    """The same logits, merged or not; in float64 to the last digits. Back here, the same bytes."""
    if name == "head alone" and not n_classes:
        pytest.skip("a language model has no head to train")
    config, rng = odd_config(n_classes), np.random.default_rng(0)
    params = random_params(config, dtype, spread=0.2)
    adapter = trained_here(params, config, ADAPTERS[name], rng)
    model = in_peft(tmp_path, params, config, adapter)
    ids = random_ids(config, rng)
    expected, _ = forward(params, ids, config, adapter=adapter)
    base, _ = forward(params, ids, config)
    assert np.abs(expected - base).max() > 1e-3 * np.abs(base).max()  # or else there is nothing to be seen
    agree_by_kind("to PEFT", adapter, hf_logits(model, ids), expected)
    merged, _ = forward(merge(params, adapter), ids, config)
    agree_by_kind("to PEFT, merged", adapter, hf_logits(model.merge_and_unload(), ids), merged)

    back = load_peft(tmp_path / "adapter", params)
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


ALL = ["c_attn", "c_proj", "c_fc"]
PEFT_CONFIGS = {
    "q,k,v": {"r": 4, "lora_alpha": 8, "target_modules": ["c_attn"]},
    "all linear": {"r": 3, "lora_alpha": 6, "target_modules": ALL},
    "rsLoRA": {"r": 4, "lora_alpha": 2, "target_modules": ["c_attn", "c_fc"], "use_rslora": True},
    "patterns": {
        "r": 2,
        "target_modules": ["c_attn", "attn.c_proj", "c_fc"],
        "rank_pattern": {"c_fc": 5, r"h\.1\.attn\.c_attn": 3},
        "alpha_pattern": {"h.0.attn.c_attn": 2, "transformer.h.1.attn.c_proj": 7},
    },
    "DoRA": {"r": 3, "lora_alpha": 6, "target_modules": ALL, "use_dora": True},
    "DoRA, rsLoRA": {"r": 4, "lora_alpha": 2, "target_modules": ["c_attn"], "use_dora": True, "use_rslora": True},
    "DoRA, one projection": {"target_modules": ["c_attn", "mlp.c_proj"], "use_dora": True},
    "a pattern": {"target_modules": r".*\.(0|1)\.attn\.c_attn|.*c_fc"},
    "groups": {"target_modules": r"(transformer\.)?h\.(\d)\.(attn|mlp)\.(c_(attn|fc))"},
    "look-ahead": {"target_modules": r".*\.h\.(?!0)\d\.(?:attn|mlp)\.c_(?=attn|proj).*"},
    "any case": {"target_modules": "(?i).*C_ATTN", "exclude_modules": r".*(1)\.attn\..*"},
    "a back-reference": {"target_modules": r".*\.c_(.)(.)\2.*"},
    "patterns of ranks": {
        "target_modules": ALL,
        "rank_pattern": {r"(attn|mlp)\.c_proj": 1, r"h\.(0|7)\.(?:\w+\.)+c_\w+": 3},  # PEFT saves them sorted
        "alpha_pattern": {r"(?!transformer).*c_fc": 9, r"c_[a-f]{1,4}t+n": 5},
    },
    "blocks by groups": {"target_modules": ["c_fc"], "layers_to_transform": [1], "layers_pattern": ["x|y", "(h)+"]},
    "a saved module": {"target_modules": ["c_attn", "c_proj"], "modules_to_save": [r"mlp\.c_proj"]},
    "all-linear": {"target_modules": "all-linear"},
    "one block": {"target_modules": ["c_attn", "c_fc"], "layers_to_transform": 1},
    "blocks by pattern": {"target_modules": ["c_attn"], "layers_to_transform": [0], "layers_pattern": "h"},
    "except": {"target_modules": ALL, "exclude_modules": ["mlp.c_proj"]},
    "except a text": {"target_modules": ALL, "exclude_modules": "lm_head"},
    "except a pattern": {"target_modules": ["c_attn", "c_proj"], "exclude_modules": r".*1\.mlp.*"},
    "no task": {"target_modules": ["c_attn"], "task_type": None},
    "negative alpha": {"target_modules": ["c_attn"], "lora_alpha": -3},
    "gaussian": {"target_modules": ["c_attn", "c_proj"], "init_lora_weights": "gaussian"},
    "fresh": {"target_modules": ["c_attn"], "init_lora_weights": True},
}


def made_by_peft(base, config, **settings):
    """PEFT's adapter, not yet trained, on a base of transformers'."""
    torch.manual_seed(0)
    task = "SEQ_CLS" if config.n_classes else "CAUSAL_LM"
    fields = {"task_type": task, "r": 2, "lora_alpha": 4, "lora_dropout": 0.0, "fan_in_fan_out": True, **settings}
    with no_warnings():
        return peft.get_peft_model(base, peft.LoraConfig(**fields))


@HEADS
@pytest.mark.parametrize("name", PEFT_CONFIGS)
def test_an_adapter_that_peft_trained(name, n_classes, tmp_path):
    """A few real AdamW steps there; the same logits here, of padded rows too, and the same bytes after the way back."""
    config, rng = odd_config(n_classes), np.random.default_rng(1)
    params = random_params(config, np.float32, spread=0.2)
    save_hf(tmp_path / "base", params, config)
    model = made_by_peft(load_in_transformers(tmp_path / "base", config), config, **PEFT_CONFIGS[name])
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-2)
    for _ in range(0 if name == "fresh" else 6):
        batch = language_batch(config, rng)
        logits = model(input_ids=torch.tensor(batch.ids)).logits
        loss = torch.nn.functional.cross_entropy(
            logits.reshape(-1, logits.shape[-1]), torch.tensor(batch.targets).reshape(-1)
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    model.eval().save_pretrained(tmp_path / "adapter")

    adapter = load_peft(tmp_path / "adapter", params)
    ids, lengths = random_ids(config, rng, 5, 8), np.array([8, 7, 3, 1, 5])
    ids[np.arange(8) >= lengths[:, None]] = 0
    with torch.no_grad():
        mask = torch.tensor((ids != 0).astype(np.int64))
        theirs = model(input_ids=torch.tensor(ids), attention_mask=mask).logits.numpy()
    ours, _ = forward(params, ids, config, lengths=lengths, adapter=adapter)
    real = slice(None) if n_classes else ids != 0
    agree_by_kind("from PEFT", adapter, ours[real], theirs[real])
    assert ("head.weight" in adapter.weights) == (bool(n_classes) and name != "no task")
    save_peft(tmp_path / "again", adapter, params, config)
    first, again = file_bytes(tmp_path / "adapter"), file_bytes(tmp_path / "again")
    assert first == {key: again[key] for key in first}
    assert set(again) == set(first) or name == "no task", "a head is written also where PEFT left it out"
    again = json.loads((tmp_path / "again" / "adapter_config.json").read_text())
    assert again["peft_version"] == peft.__version__, "what means nothing here is saved again"
    assert list(again) == sorted(again)


def test_an_adapter_of_a_bare_model(tmp_path):
    """GPT2Model has no `transformer.` in its names; ours writes it, for a model with a head."""
    config, rng = odd_config(), np.random.default_rng(3)
    params = random_params(config, np.float32, spread=0.2)
    save_hf(tmp_path / "base", params, config)
    bare = transformers.GPT2Model.from_pretrained(tmp_path / "base")
    settings = {"target_modules": ["c_attn", "c_fc"], "task_type": None, "init_lora_weights": False}
    model = made_by_peft(bare, config, **settings).eval()
    for key, parameter in model.named_parameters():
        if "lora_B" in key:
            parameter.data *= 0.1  # as large as training leaves it
    model.save_pretrained(tmp_path / "adapter")
    ids = random_ids(config, rng)
    with torch.no_grad():
        h = model(torch.tensor(ids)).last_hidden_state.numpy()
    adapter = load_peft(tmp_path / "adapter", params)
    agree("from PEFT, by any name", forward(params, ids, config, adapter=adapter)[0], h @ params["tok_emb.weight"].T)


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


@pytest.mark.parametrize("name", shipped_adapters())
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
