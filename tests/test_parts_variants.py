"""Every variant of LoRA by the commands: taught, saved, read again, and used in all the ways that an adapter is."""

import json
from dataclasses import replace

import numpy as np
import pytest

from lora_np.adapters import VARIANTS, AdapterConfig, init_adapter, trained_weights, variant_config
from lora_np.adapters.starts import STARTS
from lora_np.cli import main
from lora_np.formats import load_peft, load_task, read_json, save_task, write_json
from lora_np.model import forward
from lora_np.tasks import classifier, finetuning
from lora_np.tasks.language import TextFile
from lora_np.tasks.settings import FinetuneSettings
from lora_np.tasks.table import LabelledTable

TAUGHT = [variant for variant in VARIANTS if variant != "loftq"]
KIND = {variant: variant_config(variant).kind for variant in VARIANTS}
# In the quick run the last variant of each kind: of LoRA itself, one that takes its start out of the base.
QUICK = {KIND[variant]: variant for variant in TAUGHT}.values()
EACH = pytest.mark.parametrize(
    "variant", [pytest.param(v, marks=[] if v in QUICK else pytest.mark.slow) for v in TAUGHT]
)
TEXTS = [f"the {animal} {verb} the {thing}" for animal in ("fox", "cat", "hen", "owl") for verb in ("likes", "hates")
         for thing in ("dog", "log", "bog", "fog", "frog", "hog")]  # fmt: skip
IDS = np.array([[0, 5, 7, 11], [3, 4, 1999, 7000]])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A table, a table to test on, and a text."""
    folder = tmp_path_factory.mktemp("files")
    rows = [json.dumps({"t": text, "l": text.split()[2]}) for text in TEXTS]
    (folder / "rows.jsonl").write_text("\n".join(rows[:36]), encoding="utf-8")
    (folder / "test.jsonl").write_text("\n".join(rows[36:]), encoding="utf-8")
    (folder / "corpus.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def taught(files, tiny_base):
    """Function (variant) -> folder of a language model's adapter and of a classifier's."""

    def teach(variant):
        folder = files / variant
        if not folder.exists():
            common = ["--base", str(tiny_base), "--variant", variant, "--rank", "2", "--lr", "0.02"]
            text = ["finetune", "--text-file", str(files / "corpus.txt"), "--epochs", "2"]
            assert main([*text, "--out", str(folder / "text"), *common]) == 0
            table = ["finetune", "--data", str(files / "rows.jsonl"), "--test", str(files / "test.jsonl")]
            table += ["--text", "t", "--label", "l", "--epochs", "8", "--targets", "all-linear"]
            assert main([*table, "--out", str(folder / "classes"), *common]) == 0
        return folder

    return teach


def logits(task):
    return forward(task.params, IDS, task.config, adapter=task.adapter)[0]


@EACH
def test_what_is_read_again_is_what_was_taught(variant, files, taught, tiny_base):
    """On the base as it was given, with the loss and the accuracy that were measured when it was trained."""
    folder, base = taught(variant), load_task(tiny_base)
    for name in ("text", "classes"):
        task = load_task(folder / name)
        assert all(np.array_equal(task.params[key], base.params[key]) for key in base.params)
        assert not np.array_equal(logits(task), logits(task._replace(adapter=None)))
    facts = read_json(folder / "classes" / "task.json")
    splits, _ = LabelledTable(files / "rows.jsonl", "t", "l", files / "test.jsonl").split(seed=0)
    validation, test = (classifier.class_probabilities(task, split.texts) for split in splits[1:])
    its_labels = [[task.labels.index(label) for label in split.labels] for split in splits[1:]]
    loss = -np.log(validation[np.arange(len(validation)), its_labels[0]]).mean()
    assert loss == pytest.approx(min(facts["validation"]["loss"]), rel=1e-4)
    assert (test.argmax(axis=1) == its_labels[1]).mean() == facts["test_accuracy"]
    settings = variant_config(variant, AdapterConfig(r=2, alpha=4.0, targets=("all-linear",)))
    fresh = init_adapter(task.params, replace(settings, init="kaiming"), np.random.default_rng(0))
    assert facts["trainable"] == sum(array.size for array in trained_weights(fresh).values())
    if settings.init in STARTS:  # LoRA of twice the rank, for the base that was given
        layers = ("q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj")
        settings = AdapterConfig(r=4, alpha=4.0, targets=layers)
    assert task.adapter.config == settings


@EACH
def test_generate_predict_merge_and_inspect(variant, taught, tmp_path, run):
    """An adapter and the model that it is merged into say the same."""
    folder = taught(variant)
    for name in ("text", "classes"):
        run("merge", folder / name, "--out", tmp_path / name)
        merged = load_task(tmp_path / name)
        expected = logits(load_task(folder / name))
        np.testing.assert_allclose(logits(merged), expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    texts = ["the fox likes the dog", "the owl hates the bog"]
    answers = [run("predict", "--model", f / "classes", *texts) for f in (folder, tmp_path)]
    assert answers[0] == answers[1]
    prompt = ["generate", "--prompt", "the fox", "--tokens", 6, "--temperature", 0]
    text = run(*prompt, "--adapter", folder / "text")
    assert text == run(*prompt, "--model", tmp_path / "text")
    assert "blocks.0.mlp.up_proj" in run("inspect", folder / "text")


@EACH
def test_export_and_mix(variant, taught, tmp_path, run, fails):
    """To PEFT and back where PEFT has the same; merged into a GPT-2 always; mixed where factors add up."""
    folder = taught(variant)
    run("export", folder / "text", "--to", "merged", "--out", tmp_path / "merged")
    mix = ["mix", folder / "text", "--weights", 1, "--out", tmp_path / "mix"]
    export = ["export", folder / "text", "--to", "peft", "--out", tmp_path / "peft"]
    task = load_task(folder / "text")
    if KIND[variant] == "lora":
        run(*mix)
        np.testing.assert_allclose(logits(load_task(tmp_path / "mix")), logits(task), rtol=0, atol=1e-5)
    else:
        assert f"is of kind '{KIND[variant]}', expected 'lora'" in fails(*mix)
    if KIND[variant] in ("lora", "dora", "qalora"):
        run(*export)
        back = load_peft(tmp_path / "peft", task.params, task.config)
        np.testing.assert_allclose(logits(task._replace(adapter=back)), logits(task), rtol=0, atol=1e-5)
    else:
        message = f"adapter: got kind '{KIND[variant]}', expected 'lora' or 'dora'; export it with --to merged"
        assert message in fails(*export) and not (tmp_path / "peft").exists()


def test_inspect_counts_adalora_s_singular_values(taught, tmp_path, run):
    folder = taught("adalora")
    run("inspect", folder / "text", "--json", tmp_path / "report.json")
    weights = load_task(folder / "text").adapter.weights
    for row in read_json(tmp_path / "report.json")["adapters"]:
        A, E, B = (weights[f"{row['layer']}.lora_{x}"].astype(float) for x in "AEB")
        assert row["kind"] == "adalora" and row["rank"] == np.count_nonzero(E)
        assert row["norm_update"] == pytest.approx(np.linalg.norm(row["scale"] * B @ np.diag(E) @ A))


def test_inspect_does_not_take_a_column_of_qalora_s_A_for_an_input(taught, tmp_path, run):
    """Neither in a file of ours nor in one of PEFT's, which we do not read."""
    folder = taught("qalora")
    run("inspect", folder / "text", "--json", tmp_path / "report.json")
    report = read_json(tmp_path / "report.json")
    assert report["adapters"] == [] and len(report["tensors"]) == 12
    peft = tmp_path / "peft"
    peft.mkdir()
    (peft / "adapter_model.safetensors").write_bytes((folder / "text" / "adapter.safetensors").read_bytes())
    for fields, n_layers in (({}, 6), ({"use_qalora": True, "qalora_group_size": 16}, 0)):
        write_json(peft / "adapter_config.json", {"peft_type": "LORA", **fields})
        run("inspect", peft, "--json", tmp_path / "peft.json")
        assert len(read_json(tmp_path / "peft.json")["adapters"]) == n_layers


@pytest.mark.parametrize(
    "more, message",
    [
        (["--variant", "qlora"], f"variant: got 'qlora', expected one of {', '.join(TAUGHT)}"),
        (["--variant", "loftq"], f"variant: got 'loftq', expected one of {', '.join(TAUGHT)}"),
        (["--variant", "vera", "--alpha", "2"], "alpha: got 2, but vera has no alpha"),
        (["--variant", "dora", "--method", "full"], "adapter: needs method 'lora', got method 'full'"),
        (["--variant", "pissa", "--alpha", "-1"], "alpha: got -1.0, expected a number above 0 for init 'pissa'"),
        (["--variant", "adalora", "--rank", "17"], "r: got 17, expected at most min(out, in) = 16"),
        (["--variant", "vera", "--targets", "w_proj"], "targets: 'w_proj' matches no layer"),
    ],
)
@pytest.mark.parametrize("kind", ["text", "table"])
def test_options_that_do_not_go_together(kind, more, message, files, tiny_base, tmp_path, fails):
    source = ["--text-file", files / "corpus.txt"]
    if kind == "table":
        source = ["--data", files / "rows.jsonl", "--text", "t", "--label", "l"]
    fails("finetune", *source, "--base", tiny_base, "--out", tmp_path / "out", *more, says=[message])
    assert not (tmp_path / "out").exists()


def test_a_start_that_could_not_be_saved_is_refused_before_the_training(files, tiny_base, tmp_path):
    for config, message in (
        (AdapterConfig(r=2, kind="dora", init="pissa"), "init: 'pissa' needs kind 'lora', got 'dora'"),
        (AdapterConfig(r=2, init="loftq"), "init: got 'loftq', which needs a quantised base; expected another init"),
    ):
        for data in (LabelledTable(files / "rows.jsonl", "t", "l"), TextFile(files / "corpus.txt")):
            with pytest.raises(ValueError, match=message):
                finetuning.finetune(data, tmp_path / "out", FinetuneSettings(adapter=config, base=tiny_base))


def test_a_refused_task_leaves_the_one_that_was_there(taught, tiny_base, tmp_path, run):
    folder = taught("olora")
    run("mix", folder / "text", "--out", tmp_path / "task")
    before = {path.name: path.read_bytes() for path in (tmp_path / "task").iterdir()}
    task = load_task(tmp_path / "task")
    config = replace(task.adapter.config, init="olora")
    with pytest.raises(ValueError, match="init: got 'olora', .*expected one of kaiming, gaussian"):
        save_task(tmp_path / "task", task._replace(adapter=task.adapter._replace(config=config)), tiny_base, {})
    assert {path.name: path.read_bytes() for path in (tmp_path / "task").iterdir()} == before
