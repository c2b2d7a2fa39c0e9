"""Commands that train: run, tune, pretrain, finetune; and predict, which uses what finetune saved."""

import json

from ..adapters import VARIANTS, AdapterConfig, variant_config
from ..data import read_table
from ..formats import PRETRAINED, check_file, write_text
from ..tasks.classifier import finetune, load_classifier, predict
from ..tasks.language_model import finetune_text
from .shared import add_out, add_workers, check_unset, figures_folder, print_now


def add_commands(command):
    run = command("run", run_main_job, "compare full fine-tuning and LoRA on real reviews: table, JSON, figures")
    run.add_argument("--seeds", type=int, default=1, metavar="N", help="seeds of each method (default 1)")
    run.add_argument("--quick", action="store_true", help="two seeds, part of the data, at most 30 s")
    run.add_argument("--out", metavar="DIR", help="folder for the figures (default figures, or figures/quick)")
    run.add_argument("--json", metavar="FILE", help="file for the numbers (default DIR/main_job.json)")
    add_workers(run)

    tune = command("tune", run_tune, "choose the learning rates of the experiments on validation")
    tune.add_argument("--methods", nargs="+", metavar="NAME", help='only these, such as full or "full, 3 passes"')
    tune.add_argument("--out", metavar="FILE", help="file to write (default: the file that the experiments read)")
    add_workers(tune)

    pretrain = command("pretrain", run_pretrain, "train the base language model on IMDb reviews")
    pretrain.add_argument("--out", default="pretrained", metavar="DIR", help="folder to write (default pretrained)")
    pretrain.add_argument("--epochs", type=int, metavar="N", help="passes over the reviews")
    pretrain.add_argument("--seed", type=int, default=0, metavar="N")
    pretrain.add_argument("--threads", type=int, default=2, metavar="N", help="number of shards in parallel")
    pretrain.add_argument("--adapters", action="store_true", help="train the shipped adapters on the base instead")
    pretrain.add_argument("--reviews", type=int, metavar="N", help="use only N reviews, for a trial")

    tuning = command("finetune", run_finetune, "train a classifier on your own table, or a language model on your text")
    source = tuning.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", metavar="FILE", help="a CSV, TSV or JSONL file, for a classifier")
    text = "a text, for a language model; separated by empty lines, or else by lines"
    source.add_argument("--text-file", metavar="FILE", help=text)
    tuning.add_argument("--text", metavar="COLUMN", help="the column of texts in --data")
    tuning.add_argument("--label", metavar="COLUMN", help="the column of labels in --data")
    add_out(tuning)
    tuning.add_argument("--test", metavar="FILE", help="a separate file to test on (default: a tenth of --data)")
    tuning.add_argument("--method", choices=("lora", "full", "head"), default="lora")
    variants = ", ".join(variant for variant in VARIANTS if variant != "loftq")  # which needs a quantised base
    tuning.add_argument("--variant", default="lora", metavar="NAME", help=f"of LoRA: {variants} (default lora)")
    tuning.add_argument("--rank", type=int, default=8, metavar="R", help="LoRA's rank (default 8)")
    tuning.add_argument("--alpha", type=float, metavar="A", help="LoRA's alpha (default twice the rank)")
    text = """layers that LoRA adapts: q_proj k_proj v_proj o_proj up_proj down_proj, all-linear, or a pattern such as
    'blocks.0.*' (default q_proj v_proj; all-linear for a language model)"""
    tuning.add_argument("--targets", nargs="+", metavar="LAYER", help=text)
    tuning.add_argument("--dropout", type=float, default=0.0, metavar="P", help="of the model (default 0)")
    tuning.add_argument("--lora-dropout", type=float, default=0.0, metavar="P", help="on the adapter's input")
    tuning.add_argument("--lr", type=float, metavar="RATE", help="peak learning rate (default depends on the method)")
    tuning.add_argument("--epochs", type=int, default=4, metavar="N", help="(default 4)")
    tuning.add_argument("--batch-size", type=int, metavar="N", help="(default 32; 16 for a language model)")
    tuning.add_argument("--seed", type=int, default=0, metavar="N")
    tuning.add_argument("--base", metavar="DIR", help="model to start from (default: the shipped one)")

    predict = command("predict", run_predict, "classify new texts with a model from finetune")
    predict.add_argument("--model", required=True, metavar="DIR", help="the folder that finetune wrote")
    predict.add_argument("texts", nargs="*", metavar="TEXT", help="texts to classify")
    predict.add_argument("--data", metavar="FILE", help="a CSV, TSV or JSONL file of texts")
    predict.add_argument("--text", metavar="COLUMN", help="its column of texts")
    predict.add_argument("--out", metavar="FILE", help="write text, label and probability as JSONL")


def run_main_job(arguments):
    from ..experiments.laboratory import experiment
    from ..experiments.sweep import open_executor

    seeds, quick, store = arguments.seeds, arguments.quick, arguments.store
    out = figures_folder(arguments)
    with open_executor(arguments.jobs, arguments.dask) as executor:
        outcome = experiment("main_job", seeds, quick, out, store, executor, print_now, arguments.json)
    return 1 if "failed" in outcome else 0


def run_tune(arguments):
    from ..experiments.methods import SETTINGS
    from ..experiments.sweep import open_executor
    from ..experiments.tuning import tune

    out = arguments.out or SETTINGS
    with open_executor(arguments.jobs, arguments.dask) as executor:
        settings = tune(arguments.methods, out, arguments.store, executor, report=print_now)
    for name, rate in settings["chosen"].items():
        print(f"{name:<24}{rate:g}")


def run_pretrain(arguments):
    from ..experiments.pretrain import EPOCHS, pretrain, train_shipped

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
    settings = {
        "method": arguments.method,
        "adapter_config": adapter_config(arguments, ("all-linear",) if is_text else ("q_proj", "v_proj")),
        "learning_rate": arguments.lr,
        "epochs": arguments.epochs,
        "seed": arguments.seed,
        "base": arguments.base or PRETRAINED,
        "dropout": arguments.dropout,
    }
    if arguments.batch_size is not None:
        settings["batch_size"] = arguments.batch_size
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
