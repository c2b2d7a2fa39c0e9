"""The command line: parse, call, print. `python -m lora_np` alone carries out the main job."""

import argparse
import json
import sys

# What a user can get wrong or the world can lack is raised as one of these; others keep their traceback.
USER_ERRORS = (ValueError, TypeError, OSError, FloatingPointError, ModuleNotFoundError)


def main(argv=None):
    """Carry out one command.

    Parameters
    ----------
    argv : list of str, or None for the process's own arguments

    Returns
    -------
    int, the exit code: 0 done, 1 a check or some runs of a sweep failed, 2 unusable input
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    if not argv or (argv[0].startswith("-") and argv[0] not in ("-h", "--help", "--version")):
        argv = ["run", *argv]
    arguments = build_parser().parse_args(argv)
    try:
        return arguments.call(arguments)
    except USER_ERRORS as error:
        print(f"error: {explain(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


def explain(error):
    """The error in one sentence; for a package that is not there, how to get it."""
    if isinstance(error, ModuleNotFoundError):
        return f"the package {error.name} is needed here; install it with: pip install -r requirements.txt"
    return str(error) or type(error).__name__


def build_parser():
    from . import __version__

    parser = argparse.ArgumentParser(
        prog="lora_np", description="LoRA from scratch in NumPy. Without a command: the main job (run)."
    )
    parser.add_argument("--version", action="version", version=f"lora_np {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name, call, text):
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(call=call)
        return sub

    run = command("run", run_main_job, "full fine-tuning next to LoRA on real reviews: table, JSON, figures")
    run.add_argument("--seeds", type=int, default=1, metavar="N", help="seeds of each method (default 1)")
    run.add_argument("--quick", action="store_true", help="one seed, part of the data, at most 30 s")
    run.add_argument("--out", metavar="DIR", help="folder for the figures (default figures, or figures/quick)")
    run.add_argument("--json", metavar="FILE", help="where to write the numbers (default DIR/main_job.json)")
    add_workers(run)

    tune = command("tune", run_tune, "choose each method's learning rate and dropout on validation")
    tune.add_argument("--methods", nargs="+", metavar="KEY", help="only these, such as full or lora_qv_r8")
    tune.add_argument("--seeds", type=int, default=1, metavar="N", help="runs at each setting (default 1)")
    add_workers(tune)
    tune.add_argument("--out", metavar="FILE", help="where to write (default: the file that run reads)")

    pretrain = command("pretrain", run_pretrain, "train the base language model on IMDb reviews")
    pretrain.add_argument("--out", default="pretrained", metavar="DIR", help="folder to write (default pretrained)")
    pretrain.add_argument("--epochs", type=int, metavar="N", help="passes over the reviews")
    pretrain.add_argument("--seed", type=int, default=0, metavar="N")
    pretrain.add_argument("--threads", type=int, default=2, metavar="N", help="shards worked on side by side")
    pretrain.add_argument("--reviews", type=int, metavar="N", help="only so many reviews, for a trial")

    check = command("gradcheck", run_gradcheck, "check every backward pass against centred differences")
    check.add_argument("--json", metavar="FILE", help="also write the rows as JSON")

    timing = command("bench", run_bench, "time lora_np beside PyTorch and JAX on the same work")
    timing.add_argument(
        "--peers", nargs="*", action="extend", metavar="PEER",
        help="torch, compile, jax (default: those installed); none: no peer",
    )  # fmt: skip
    timing.add_argument(
        "--rungs", nargs="+", action="extend", metavar="RUNG",
        help="model sizes: a width of the ladder (64 128 256 512 768), or C,layers,heads,T,B,V (default: the ladder)",
    )  # fmt: skip
    timing.add_argument("--work", nargs="+", action="extend", metavar="KIND", help="kinds of work (default: all seven)")
    timing.add_argument("--threads", type=int, metavar="N", help="of every side (default: one a core)")
    timing.add_argument("--rounds", type=int, default=5, metavar="N", help="turns of each side (default 5)")
    timing.add_argument("--seed", type=int, default=0, metavar="N")
    timing.add_argument(
        "--as-set", action="store_true",
        help="leave variables that pin a library's kernels, such as OPENBLAS_CORETYPE, as they are set",
    )  # fmt: skip
    timing.add_argument("--json", metavar="FILE", help="also write every number as JSON")

    tuning = command("finetune", run_finetune, "train a classifier on your own CSV, TSV or JSONL file")
    tuning.add_argument("--data", required=True, metavar="FILE")
    tuning.add_argument("--text", required=True, metavar="COLUMN", help="the column of texts")
    tuning.add_argument("--label", required=True, metavar="COLUMN", help="the column of labels")
    tuning.add_argument("--out", required=True, metavar="DIR", help="folder to write")
    tuning.add_argument("--test", metavar="FILE", help="a file of its own to test on (default: a tenth of --data)")
    tuning.add_argument("--method", choices=("lora", "full", "head"), default="lora")
    tuning.add_argument("--rank", type=int, default=8, metavar="R", help="LoRA's rank (default 8)")
    tuning.add_argument("--alpha", type=float, metavar="A", help="LoRA's alpha (default twice the rank)")
    tuning.add_argument(
        "--targets", nargs="+", default=["q_proj", "v_proj"], metavar="LAYER",
        help="layers that LoRA adapts: q_proj k_proj v_proj o_proj up_proj down_proj, all-linear, or a "
        "pattern such as 'blocks.0.*' (default q_proj v_proj)",
    )  # fmt: skip
    tuning.add_argument("--dropout", type=float, default=0.0, metavar="P", help="of the model (default 0)")
    tuning.add_argument("--lora-dropout", type=float, default=0.0, metavar="P", help="on the adapter's input")
    tuning.add_argument("--lr", type=float, metavar="RATE", help="peak learning rate (default by method)")
    tuning.add_argument("--epochs", type=int, default=4, metavar="N", help="(default 4)")
    tuning.add_argument("--batch-size", type=int, default=32, metavar="N", help="(default 32)")
    tuning.add_argument("--seed", type=int, default=0, metavar="N")
    tuning.add_argument("--base", metavar="DIR", help="model to start from (default: the one that ships)")

    predict = command("predict", run_predict, "apply what finetune saved to new texts")
    predict.add_argument("--model", required=True, metavar="DIR", help="the folder that finetune wrote")
    predict.add_argument("texts", nargs="*", metavar="TEXT", help="texts to classify")
    predict.add_argument("--data", metavar="FILE", help="a CSV, TSV or JSONL file of texts")
    predict.add_argument("--text", metavar="COLUMN", help="its column of texts")
    predict.add_argument("--out", metavar="FILE", help="write text, label and probability as JSONL")
    return parser


def add_workers(command):
    """Where a sweep's runs are carried out."""
    where = command.add_mutually_exclusive_group()
    where.add_argument("--jobs", type=int, metavar="N", help="processes side by side (default: one a core)")
    where.add_argument(
        "--dask", metavar="ADDRESS", help="of a Dask scheduler, whose workers do the runs (needs the extra cluster)"
    )


def run_main_job(arguments):
    from .experiments.main_job import main_job
    from .experiments.sweep import open_executor

    out = arguments.out or ("figures/quick" if arguments.quick else "figures")
    with open_executor(arguments.jobs, arguments.dask) as executor:
        outcome = main_job(arguments.seeds, arguments.quick, out, arguments.json, executor, report=print_now)
    return 1 if outcome["failed"] else 0


def run_tune(arguments):
    from .experiments.methods import SETTINGS
    from .experiments.sweep import open_executor
    from .experiments.tune import tune

    out = arguments.out or SETTINGS
    with open_executor(arguments.jobs, arguments.dask) as executor:
        outcome = tune(arguments.methods, arguments.seeds, out, executor, report=print_now)
    for key, chosen in outcome["chosen"].items():
        print(f"{key:<14} lr {chosen['learning_rate']:<8g} dropout {chosen['dropout']:g}")
    return 1 if outcome["failed"] else 0


def run_pretrain(arguments):
    from .experiments.pretrain import EPOCHS, pretrain

    log = pretrain(
        arguments.out,
        EPOCHS if arguments.epochs is None else arguments.epochs,
        arguments.seed,
        arguments.threads,
        arguments.reviews,
    )
    print(f"validation loss {log['validation_nats_per_token']:.3f} nats per token; saved in {arguments.out}")
    return 0


def run_gradcheck(arguments):
    from .formats import check_file, write_text
    from .reference import TOLERANCE, failures, format_rows, gradcheck, rows_to_dicts

    if arguments.json:
        check_file(arguments.json, "json")
    rows = gradcheck()
    print(format_rows(rows))
    if arguments.json:
        write_text(arguments.json, json.dumps(rows_to_dicts(rows), indent=2) + "\n")
    failed = failures(rows)
    print(f"{len(rows) - len(failed)} of {len(rows)} rows at most {TOLERANCE:g}")
    return 1 if failed else 0


def run_bench(arguments):
    from .bench import RUNGS, WORKS, bench, format_tables, parse_peers, parse_rung, to_dicts
    from .formats import check_file, write_json

    peers, absent = parse_peers(arguments.peers)
    rungs = RUNGS if arguments.rungs is None else [parse_rung(text) for text in arguments.rungs]
    if arguments.json:
        check_file(arguments.json, "json")
    if absent:
        print_now("left out: " + "; ".join(absent))
    rows, setting = bench(
        rungs,
        tuple(WORKS) if arguments.work is None else arguments.work,
        peers,
        arguments.threads,
        arguments.rounds,
        arguments.seed,
        arguments.as_set,
        report=print_now,
    )
    print("\n" + format_tables(rows, setting, peers))
    if arguments.json:
        write_json(arguments.json, to_dicts(rows, setting, peers))
    return 1 if any(row.failed for row in rows) else 0


def run_finetune(arguments):
    from .adapters import AdapterConfig
    from .experiments.user_task import finetune
    from .formats import PRETRAINED

    adapter_config = AdapterConfig(
        r=arguments.rank,
        alpha=2.0 * arguments.rank if arguments.alpha is None else arguments.alpha,
        targets=tuple(arguments.targets),
        dropout=arguments.lora_dropout,
    )
    result = finetune(
        arguments.data,
        arguments.text,
        arguments.label,
        arguments.out,
        method=arguments.method,
        adapter_config=adapter_config,
        learning_rate=arguments.lr,
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        seed=arguments.seed,
        base=arguments.base or PRETRAINED,
        dropout=arguments.dropout,
        test_data=arguments.test,
    )
    rows = result["rows"]
    print(f"labels: {', '.join(result['labels'])}")
    print(f"rows: {rows['train']} to train, {rows['validation']} to choose the best, {rows['test']} to test")
    if rows["left_out"]:
        print(f"      {rows['left_out']} of {arguments.data} left out: their texts are in {arguments.test}")
    if result["longer_texts"]:
        longer, n = result["longer_texts"], result["n_positions"]
        print(f"      {longer} texts have more than {n} tokens; what follows is not read")
    print(f"trained {result['trainable']:,} parameters ({result['percent']:.3f} %)")
    print(
        f"test accuracy {100 * result['test_accuracy']:.1f} % "
        f"(always answering the commonest label: {100 * result['commonest_label_share']:.1f} %)"
    )
    print(f"saved in {arguments.out}")
    return 0


def run_predict(arguments):
    from .data import read_table
    from .experiments.user_task import load_classifier, predict
    from .formats import check_file, write_text

    if bool(arguments.texts) == bool(arguments.data):
        raise ValueError("give either texts to classify or --data FILE with --text COLUMN")
    if arguments.data and not arguments.text:
        raise ValueError("--data also needs --text, the name of its column of texts")
    if arguments.out:
        check_file(arguments.out, "out")
    texts = read_table(arguments.data, arguments.text, None).texts if arguments.data else arguments.texts
    found = predict(load_classifier(arguments.model), texts)
    if arguments.out:
        lines = (
            json.dumps({"text": text, "label": label, "probability": round(p, 6)}, ensure_ascii=False)
            for text, (label, p) in zip(texts, found)
        )
        write_text(arguments.out, "\n".join(lines) + "\n")
        print(f"{len(texts)} texts; saved in {arguments.out}")
    else:
        for text, (label, p) in zip(texts, found):
            print(f"{label}\t{p:.3f}\t{' '.join(text.split())[:100]}")
    return 0


def print_now(line):
    """Print at once, also into a pipe: a long job shows its results as they come."""
    print(line, flush=True)
