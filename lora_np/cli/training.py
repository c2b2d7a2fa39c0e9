"""Commands that train: run, experiment, tune, pretrain, finetune; and predict, which uses what finetune saved."""

import json
from pathlib import Path

from ..adapters import VARIANTS, AdapterConfig, variant_config
from ..data import read_table
from ..experiments import laboratory, sweep, tuning
from ..experiments.methods import SETTINGS
from ..experiments.pretrain import EPOCHS, pretrain
from ..experiments.recipes import RECIPES
from ..experiments.shipped import train_shipped
from ..formats import check_file, write_text
from ..tasks.classifier import finetune, load_classifier, predict
from ..tasks.language_model import finetune_text
from .shared import check_unset, print_now


def add_commands(command):
    run = command("run", run_experiment, "compare full fine-tuning and LoRA on real reviews: table, JSON, figures")
    add_experiment(run, seeds=1)
    run.add_argument("--json", metavar="FILE", help="file for the numbers (default DIR/main_job.json)")
    run.set_defaults(name="main_job", draw=False)

    lab = command("experiment", run_experiment, "run an experiment: its figure, its numbers, its verdict")
    lab.add_argument("name", metavar="NAME", help="an experiment; list: show their names; all: run every one")
    add_experiment(lab, seeds=5)
    lab.add_argument("--draw", action="store_true", help="only redraw the figure from the numbers in its JSON")
    lab.set_defaults(json=None)

    tune = command("tune", run_tune, "choose the learning rates of the experiments on validation")
    tune.add_argument("--methods", nargs="+", metavar="NAME", help='only these, such as full or "full, 3 passes"')
    text = "file to write (default: the file that the experiments read)"
    tune.add_argument("--out", default=SETTINGS, metavar="FILE", help=text)
    add_workers(tune)

    base = command("pretrain", run_pretrain, "train the base language model on IMDb reviews")
    base.add_argument("--out", default="pretrained", metavar="DIR", help="folder to write (default pretrained)")
    base.add_argument("--epochs", type=int, metavar="N", help="passes over the reviews")
    base.add_argument("--seed", type=int, default=0, metavar="N")
    base.add_argument("--threads", type=int, default=2, metavar="N", help="number of shards in parallel")
    base.add_argument("--adapters", action="store_true", help="train the shipped adapters on the base instead")
    base.add_argument("--reviews", type=int, metavar="N", help="use only N reviews, for a trial")

    task = command("finetune", run_finetune, "train a classifier on your own table, or a language model on your text")
    source = task.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", metavar="FILE", help="a CSV, TSV or JSONL file, for a classifier")
    text = "a text, for a language model; separated by empty lines, or else by lines"
    source.add_argument("--text-file", metavar="FILE", help=text)
    task.add_argument("--text", metavar="COLUMN", help="the column of texts in --data")
    task.add_argument("--label", metavar="COLUMN", help="the column of labels in --data")
    task.add_argument("--out", required=True, metavar="DIR", help="folder to write")
    task.add_argument("--test", metavar="FILE", help="a separate file to test on (default: a tenth of --data)")
    task.add_argument("--method", choices=("lora", "full", "head"), default="lora")
    variants = ", ".join(variant for variant in VARIANTS if variant != "loftq")  # which needs a quantised base
    task.add_argument("--variant", default="lora", metavar="NAME", help=f"of LoRA: {variants} (default lora)")
    task.add_argument("--rank", type=int, default=8, metavar="R", help="LoRA's rank (default 8)")
    task.add_argument("--alpha", type=float, metavar="A", help="LoRA's alpha (default twice the rank)")
    text = """layers that LoRA adapts: q_proj k_proj v_proj o_proj up_proj down_proj, all-linear, or a pattern such as
    'blocks.0.*' (default q_proj v_proj; all-linear for a language model)"""
    task.add_argument("--targets", nargs="+", metavar="LAYER", help=text)
    task.add_argument("--dropout", type=float, default=0.0, metavar="P", help="of the model (default 0)")
    task.add_argument("--lora-dropout", type=float, default=0.0, metavar="P", help="on the adapter's input")
    text = "peak learning rate (default depends on the method)"
    task.add_argument("--lr", dest="learning_rate", type=float, metavar="RATE", help=text)
    task.add_argument("--epochs", type=int, default=4, metavar="N", help="(default 4)")
    task.add_argument("--batch-size", type=int, metavar="N", help="(default 32; 16 for a language model)")
    task.add_argument("--seed", type=int, default=0, metavar="N")
    task.add_argument("--base", metavar="DIR", help="model to start from (default: the shipped one)")

    predict = command("predict", run_predict, "classify new texts with a model from finetune")
    predict.add_argument("--model", required=True, metavar="DIR", help="the folder that finetune wrote")
    predict.add_argument("texts", nargs="*", metavar="TEXT", help="texts to classify")
    predict.add_argument("--data", metavar="FILE", help="a CSV, TSV or JSONL file of texts")
    predict.add_argument("--text", metavar="COLUMN", help="its column of texts")
    predict.add_argument("--out", metavar="FILE", help="write text, label and probability as JSONL")


def add_experiment(command, seeds):
    """Options of a command that runs experiments; `seeds` is their default number."""
    command.add_argument("--seeds", type=int, default=seeds, metavar="N", help=f"seeds of each run (default {seeds})")
    command.add_argument("--quick", action="store_true", help="two seeds of shortened runs, at most 30 s")
    command.add_argument("--out", metavar="DIR", help="folder to write (default figures, or figures/quick)")
    add_workers(command)


def add_workers(command):
    """Options for where runs are computed and stored."""
    text = "folder of finished runs (default out/runs)"
    command.add_argument("--store", default="out/runs", metavar="DIR", help=text)
    where = command.add_mutually_exclusive_group()
    where.add_argument("--jobs", type=int, metavar="N", help="number of processes (default: one per core)")
    where.add_argument("--dask", metavar="ADDRESS", help="a Dask scheduler whose workers do the runs (extra: cluster)")


def run_experiment(arguments):
    if arguments.name == "list":
        for number, name in enumerate(RECIPES):
            print(f"{number:>2} {name:<17} {laboratory.headline(name)}")
        return 0
    names = RECIPES if arguments.name == "all" else (arguments.name,)
    for name in names:
        laboratory.recipe(name)
    out = arguments.out or ("figures/quick" if arguments.quick else "figures")
    if arguments.draw:
        for name in names:
            if arguments.name != "all" or (Path(out) / f"{name}.json").exists():
                print(*laboratory.draw_again(name, out), sep="\n")
        return 0
    with sweep.open_executor(arguments.jobs, arguments.dask) as executor:
        settings = arguments.seeds, arguments.quick, out, arguments.store, executor, print_now, arguments.json
        failed = [name for name in names if "failed" in laboratory.experiment(name, *settings)]
    if failed and len(names) > 1:
        print(f"not finished: {', '.join(failed)}")
    return 1 if failed else 0


def run_tune(arguments):
    with sweep.open_executor(arguments.jobs, arguments.dask) as executor:
        settings = tuning.tune(arguments.methods, arguments.out, arguments.store, executor, report=print_now)
    for name, rate in settings["chosen"].items():
        print(f"{name:<24}{rate:g}")


def run_pretrain(arguments):
    if arguments.adapters:
        check_unset(arguments, ["epochs", "reviews"], "only applies to the base; the adapters' settings are fixed")
        for name, about in train_shipped(arguments.out, arguments.seed).items():
            perplexity = ", ".join(f"{part} {value:.1f}" for part, value in about["test_perplexity"].items())
            print(f"{name}: test perplexity {perplexity}")
        print(f"saved in {arguments.out}")
        return
    epochs = EPOCHS if arguments.epochs is None else arguments.epochs
    log = pretrain(arguments.out, epochs, arguments.seed, arguments.threads, arguments.reviews)
    print(f"validation loss {log['validation_nats_per_token']:.3f} nats per token; saved in {arguments.out}")


def run_finetune(arguments):
    is_text = arguments.text_file is not None
    # An option that is not given has the default of `finetune` or `finetune_text`.
    names = ("method", "learning_rate", "epochs", "batch_size", "seed", "base", "dropout")
    settings = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    settings["adapter_config"] = adapter_config(arguments, ("all-linear",) if is_text else ("q_proj", "v_proj"))
    if is_text:
        check_unset(arguments, ["text", "label", "test"], "needs --data; a --text-file has its own test part")
        result = finetune_text(arguments.text_file, arguments.out, **settings)
        data, test = about_tokens(result)
    else:
        for name in ("text", "label"):
            if getattr(arguments, name) is None:
                raise ValueError(f"{name}: is missing; --data needs --text and --label, the names of its columns")
        table = arguments.data, arguments.text, arguments.label
        result = finetune(*table, arguments.out, test_data=arguments.test, **settings)
        data, test = about_rows(result, arguments)
    for line in (*data, f"trained {result['trainable']:,} parameters ({result['percent']:.3f} %)", test):
        print(line)
    print(f"saved in {arguments.out}")


def adapter_config(arguments, targets):
    """The AdapterConfig for the options; `targets` are used if the options name none."""
    if arguments.variant != "lora" and arguments.method != "lora":
        raise ValueError(f"variant: {arguments.variant!r} needs --method lora, got --method {arguments.method}")
    config = AdapterConfig(
        r=arguments.rank,
        alpha=2.0 * arguments.rank if arguments.alpha is None else arguments.alpha,
        targets=tuple(arguments.targets or targets),
        dropout=arguments.lora_dropout,
    )
    config = variant_config(arguments.variant, config)
    if arguments.alpha is not None and config.kind == "vera":
        raise ValueError(f"alpha: got {arguments.alpha:g}, and vera has none: its trained vectors are its scale")
    return config


def about_tokens(result):
    """Lines about the data of `finetune_text`, and a line about its test."""
    n = result["tokens"]
    data = f"tokens: {n['train']:,} for training, {n['validation']:,} for validation, {n['test']:,} for testing"
    before, after = result["test_perplexity_before"], result["test_perplexity"]
    return [data], f"test perplexity {after:.1f} (before: {before:.1f})"


def about_rows(result, arguments):
    """Lines about the data of `finetune`, and a line about its test."""
    n, longer = result["rows"], result["longer_texts"]
    data = [f"labels: {', '.join(result['labels'])}"]
    data.append(f"rows: {n['train']} for training, {n['validation']} for validation, {n['test']} for testing")
    if n["left_out"]:
        data.append(f"      {n['left_out']} of {arguments.data} left out, because their texts are in {arguments.test}")
    if longer:
        data.append(f"      {longer} texts have more than {result['n_positions']} tokens and are cut there")
    accuracy, share = 100 * result["test_accuracy"], 100 * result["commonest_label_share"]
    return data, f"test accuracy {accuracy:.1f} % (always predicting the commonest label: {share:.1f} %)"


def run_predict(arguments):
    if bool(arguments.texts) == bool(arguments.data):
        raise ValueError("give either texts to classify or --data FILE with --text COLUMN")
    if arguments.data and not arguments.text:
        raise ValueError("--data also needs --text, the name of its column of texts")
    if arguments.out:
        check_file(arguments.out, "out")
    texts = read_table(arguments.data, arguments.text, None).texts if arguments.data else arguments.texts
    answers = predict(load_classifier(arguments.model), texts)
    if arguments.out:
        rows = [{"text": text, "label": label, "probability": round(p, 6)} for text, (label, p) in zip(texts, answers)]
        write_text(arguments.out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        print(f"{len(texts)} texts; saved in {arguments.out}")
    else:
        for text, (label, p) in zip(texts, answers):
            print(f"{label}\t{p:.3f}\t{' '.join(text.split())[:100]}")
