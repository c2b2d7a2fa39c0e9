"""BERT against transformers, PEFT and sentence-transformers."""

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest

from lora_np.adapters import AdapterConfig, init_adapter
from lora_np.data import encode, load_reviews
from lora_np.formats import load_hf, load_peft, read_model, save_hf, save_peft
from lora_np.formats.names import stored_tensors
from lora_np.formats.packaged import packaged_model
from lora_np.model import BertConfig, forward, loss_and_gradients
from lora_np.training import AdamW, TrainConfig, model_objective, train

from ..tiny import random_params, same_bits
from .comparison import GRADIENT, OUTPUT, TRAINED, check, check_all

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

from .test_training_torch import torch_train  # noqa: E402
from .torch_model import loss_of, random_batch  # noqa: E402

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore::FutureWarning")]  # of PEFT's own calls
POOLINGS = pytest.mark.parametrize("pooling", ["mean", "cls"])
ZERO = ("key.bias",)  # softmax does not change if the same number is added to every score


def odd_case(pooling, seed, n_classes=5):
    rng = np.random.default_rng(seed)
    n_heads = int(rng.integers(1, 5))
    sizes = {"d_model": n_heads * int(rng.integers(2, 8)), "d_ff": int(rng.integers(3, 40)), "n_heads": n_heads}
    sizes |= {"n_layers": int(rng.integers(1, 4)), "n_types": int(rng.integers(1, 4)), "layer_norm_eps": 1e-3}
    config = BertConfig(int(rng.integers(5, 60)), 11, pooling=pooling, n_classes=n_classes, **sizes)
    lengths = (11, 1, *rng.integers(1, 11, 3))
    return rng, config, random_params(config, np.float64, rng, spread=0.3), random_batch(config, rng, lengths)


def stored(arrays, config):
    """The arrays under the names of `Encoder`."""
    named = dict(stored_tensors(arrays, config, "hf"))
    return {n if n.startswith(("bert.", "classifier.")) else f"bert.{n}": array for n, array in named.items()}


class Encoder(torch.nn.Module):
    """transformers' BERT under its own names, with either pooling, called as `TorchModel` is."""

    def __init__(self, params, config):
        super().__init__()
        self.pooling = config.pooling
        theirs = transformers.BertConfig(
            vocab_size=config.vocab_size, hidden_size=config.d_model, num_hidden_layers=config.n_layers,
            num_attention_heads=config.n_heads, intermediate_size=config.d_ff, type_vocab_size=config.n_types,
            max_position_embeddings=config.n_positions, layer_norm_eps=config.layer_norm_eps, hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0, num_labels=config.n_classes, attn_implementation="eager",
        )  # fmt: skip
        self.bert = transformers.BertModel(theirs, add_pooling_layer=self.pooling == "cls")
        self.bert.embeddings.word_embeddings.padding_idx = None  # id 0 is a token like any other here
        self.classifier = torch.nn.Linear(config.d_model, config.n_classes)
        self.double().load_state_dict({n: torch.tensor(a) for n, a in stored(params, config).items()})

    def forward(self, ids, lengths):
        real = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
        output = self.bert(input_ids=ids, attention_mask=real)
        if self.pooling == "cls":
            return self.classifier(output.pooler_output)
        weights = real.double() / lengths[:, None]
        return self.classifier((output.last_hidden_state * weights[..., None]).sum(dim=1))


@pytest.mark.parametrize("seed", range(8))
@POOLINGS
def test_logits_and_all_gradients(pooling, seed):
    _, config, params, batch = odd_case(pooling, seed)
    model = Encoder(params, config)
    logits = model(torch.tensor(batch.ids), torch.tensor(batch.lengths))
    check(
        "BERT, logits", "logits", forward(params, batch.ids, config, lengths=batch.lengths)[0], logits.detach(), OUTPUT
    )
    loss_of(logits, batch.targets).backward()
    ours = stored(loss_and_gradients(params, batch, config, wanted=tuple(params)).grads, config)
    check_all("BERT, gradients", ours, {n: p.grad for n, p in model.named_parameters()}, GRADIENT, ZERO)


@POOLINGS
def test_a_hundred_steps_of_adamw(pooling):
    rng, config, params, _ = odd_case(pooling, 3)
    batches = [random_batch(config, rng, (7, 2, 5)) for _ in range(4)]
    settings = TrainConfig(
        100, 0.01, schedule="cosine", warmup_steps=10, optimiser=AdamW(weight_decay=0.1), clip_norm=1.0
    )
    model = Encoder(params, config)
    theirs, *_ = torch_train(model, dict(model.named_parameters()), batches, settings, lambda step, batch: {})
    state = train(params, model_objective(params, config, None), lambda rng: batches, settings)
    check_all("BERT, 100 steps", stored(state.trainable, config), theirs, TRAINED, ZERO)


# ---------------------------------------------------------------- files


def trained(params, settings, seed=1):
    """An adapter of ours after a short training, as far as its numbers go."""
    adapter, rng = (
        init_adapter(params, AdapterConfig(**settings), np.random.default_rng(0)),
        np.random.default_rng(seed),
    )
    return adapter._replace(weights={n: a + 0.05 * rng.standard_normal(a.shape) for n, a in adapter.weights.items()})


def theirs_of(model, batch):
    real = torch.tensor((np.arange(batch.ids.shape[1]) < batch.lengths[:, None]).astype(int))
    with torch.no_grad():
        return model(input_ids=torch.tensor(batch.ids), attention_mask=real).logits


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), ("all-linear",)], ids=["q,v", "all linear"])
def test_classifiers_and_adapters_of_transformers_and_peft(targets, kind, tmp_path):
    """A whole model and an adapter, from here to there and back."""
    _, config, params, batch = odd_case("cls", 5)
    adapter = trained(params, {"r": 3, "alpha": 6.0, "targets": targets, "kind": kind})
    save_hf(tmp_path / "base", params, config)
    save_peft(tmp_path / "adapter", adapter, params, config)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "base", dtype=torch.float64
    ).eval()
    model.base_model.embeddings.word_embeddings.padding_idx = None
    check(
        "BERT, files",
        "logits",
        forward(params, batch.ids, config, lengths=batch.lengths)[0],
        theirs_of(model, batch),
        OUTPUT,
    )
    model = peft.PeftModel.from_pretrained(model, tmp_path / "adapter").eval()
    expected = forward(params, batch.ids, config, lengths=batch.lengths, adapter=adapter)[0]
    check("BERT, to PEFT", "logits", expected, theirs_of(model, batch), OUTPUT)
    model.save_pretrained(tmp_path / "again")
    back = load_peft(tmp_path / "again", params, config)
    assert back.weights.keys() == adapter.weights.keys() >= {"head.weight", "head.bias"}
    got = forward(params, batch.ids, config, lengths=batch.lengths, adapter=back)[0]
    check("BERT, from PEFT", "logits", got, expected, OUTPUT)


@pytest.mark.parametrize("n_classes", [0, 5])
def test_an_adapter_of_a_mean_pooled_encoder_in_peft(n_classes, tmp_path):
    """It fits transformers' encoder, as it is and in `SentenceTransformer`; the head is in the base's directory."""
    _, config, params, batch = odd_case("mean", 5, n_classes)
    adapter = trained(params, {"r": 3, "alpha": 6.0, "targets": ("all-linear",), "train_head": False})
    save_hf(tmp_path / "base", params, config)
    save_peft(tmp_path / "adapter", adapter, params, config)
    real = torch.tensor((np.arange(batch.ids.shape[1]) < batch.lengths[:, None]).astype(int))
    model = transformers.AutoModel.from_pretrained(tmp_path / "base", dtype=torch.float64, add_pooling_layer=False)
    model.embeddings.word_embeddings.padding_idx = None
    with warnings.catch_warnings():
        warnings.filterwarnings("error", category=UserWarning)
        model = peft.PeftModel.from_pretrained(model, tmp_path / "adapter").eval()
    with torch.no_grad():
        x = model(input_ids=torch.tensor(batch.ids), attention_mask=real).last_hidden_state
    h = ((x * real[..., None]).sum(1) / real.sum(1)[:, None]).numpy()
    ours = forward(params, batch.ids, config, lengths=batch.lengths, adapter=adapter, head=False)[0]
    check("BERT, to PEFT, mean", "h", ours, h, OUTPUT)
    assert same_bits(load_peft(tmp_path / "adapter", params, config).weights, adapter.weights)


# ---------------------------------------------------------------- sentence-transformers


@pytest.fixture(scope="module")
def texts():
    odd = ["", "a", "Ünïcödé naïve 中文字 [SEP] [MASK]", "İstanbul ﷺ", "hello\tworld\n🙂", "word " * 600]
    return [*load_reviews("rotten_tomatoes").test.texts[: 200 - len(odd)], *odd]


def quietly(folder):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        return sentence_transformers.SentenceTransformer(str(folder), device="cpu")


def vectors(model, texts):
    """Our vectors of texts (N, C), of length 1, one text at a time."""
    limit = model.config.extra["sentence_transformers"]["max_seq_length"]
    ids = encode(model.tokenizer, texts, limit)
    h = np.concatenate([forward(model.params, row[None], model.config, head=False)[0] for row in ids])
    return h / np.linalg.norm(h, axis=1, keepdims=True)


@pytest.mark.real
def test_minilms_embeddings(texts):
    theirs = quietly(packaged_model("minilm")).encode(texts)
    ours = vectors(read_model("minilm"), texts)
    assert np.abs(ours - theirs).max() <= 1e-5 * np.sqrt(np.mean(theirs**2))


@pytest.mark.real
def test_a_classifier_as_a_directory_of_sentence_transformers(texts, tmp_path):
    """A Dense module is the head; the labels are in config.json."""
    model = read_model("minilm")
    config, rng = replace(model.config, n_classes=3), np.random.default_rng(0)
    head = {"head.weight": rng.normal(size=(3, 384)), "head.bias": rng.normal(size=3)}
    params = model.params | {name: array.astype(np.float32) for name, array in head.items()}
    save_hf(tmp_path / "x", params, config, model.tokenizer, ["a", "b", "c"], model.files)
    theirs = quietly(tmp_path / "x").encode(texts)
    ids = encode(model.tokenizer, texts, 256)
    ours = np.concatenate([forward(params, row[None], config)[0] for row in ids])
    assert np.abs(ours - theirs).max() <= 1e-5 * np.sqrt(np.mean(theirs**2))
    assert json.loads((tmp_path / "x" / "config.json").read_text())["id2label"] == {"0": "a", "1": "b", "2": "c"}
    assert load_hf(tmp_path / "x").labels == ["a", "b", "c"]


def test_ids_are_transformers(texts):
    ours = encode(read_model("minilm").tokenizer, texts)
    theirs = transformers.AutoTokenizer.from_pretrained(packaged_model("minilm"))
    assert [ids.tolist() for ids in ours] == theirs(texts)["input_ids"]
