"""Commands that train and measure on the package's own data: run, experiment, tune, pretrain, gradcheck, bench."""

from ..checked import check_unset, one_of, shown
from .shared import json_writer, print_now


def add_commands(command):
    run = command("run", run_experiment, "compare full fine-tuning with LoRA on real reviews: table, JSON, figures")
    add_experiment(run, "1", "minilm if it is installed")
    run.add("--json FILE", "also write the results as JSON")
    run.set_defaults(name="main_job", draw=False)

    lab = command("experiment", run_experiment, "run an experiment, and write its figure, results and verdict")
    lab.add("name NAME", "an experiment's name; list: show the names; all: run all experiments")
    add_experiment(lab, "8; 5 with pretrained, 3 with smollm2", "minilm, if the experiment runs on it")
    lab.add("--draw", "only redraw the figure, from the results in the experiment's JSON file")
    lab.set_defaults(json=None)

    tune = command("tune", run_tune, "choose the experiments' learning rates on the validation data")
    tune.add("--methods NAME …", 'methods, such as full or "full, 3 passes"')
    tune.add("--out FILE", "file to write (default: the file that the experiments read)")
    add_workers(tune)

    training = command("pretrain", run_pretrain, "pre-train the base language model on IMDb reviews")
    training.add("--out DIR", "folder to write (default pretrained)", default="pretrained")
    training.add("--epochs N", "number of epochs")
    training.add("--seed N", "random seed (default 0)", default=0)
    training.add("--threads N", "number of shards processed in parallel (default 2)")
    training.add("--adapters", "train the included adapters on the base instead")
    training.add("--reviews N", "use only N reviews, for a trial run")
    training.add("--force", "also replace the included files")

    check = command("gradcheck", run_gradcheck, "check every backward pass against central differences")
    check.add("--json FILE", "also write the results as JSON")

    timing = command("bench", run_bench, "compare the speed of lora_np, PyTorch and JAX on the same work")
    text = "what to compare with: torch, compile, jax (default: those installed); llama.cpp, for Llama generation; "
    text += "NAME=DIR, another checkout of lora_np; the modes blocks, recompute, blocks-recompute; no name: no peer"
    timing.add("--peers PEER", text, nargs="*", action="extend")
    text = "model sizes: a width of the ladder (64 128 256 512 768) or C,layers,heads,T,B,V; smollm2 or minilm, "
    text += "also with ,B,T; for a Llama C,layers,heads,T,B,V,K,F, and for BERT with K = 0; append ,rR for an adapter "
    text += "of rank R (default: the ladder)"
    timing.add("--rungs RUNG …", text, action="extend")
    timing.add("--work KIND …", "kinds of work (default: all except classifier_qv, classifier_all)", action="extend")
    timing.add("--threads N", "number of threads for every backend (default: one per core; with --llama-cpp 1)")
    timing.add("--rounds N", "number of rounds (default 5)", default=5)
    timing.add("--seed N", "random seed (default 0)", default=0)
    timing.add("--llama-cpp", "time SmolLM2 in llama.cpp instead, in several formats, with and without an adapter")
    timing.add("--as-set", "keep environment variables that select kernels, such as OPENBLAS_CORETYPE")
    timing.add("--json FILE", "also write all results as JSON")


def add_experiment(command, seeds, base):
    """Add the options of a command that runs experiments; `seeds` and `base` describe the defaults in its help."""
    command.add("--base NAME", f"minilm, smollm2, or pretrained, the included base (default {base})")
    command.add("--seeds N", f"number of seeds per run (default {seeds})")
    command.add("--quick", "shortened runs")
    command.add("--out DIR", "folder to write (default figures, or figures/quick)")
    add_workers(command)


def add_workers(command):
    """Add the options that determine where runs are computed and stored."""
    command.add("--store DIR", "folder of finished runs (default out/runs)", default="out/runs")
    where = command.add_mutually_exclusive_group()
    where.add_argument("--jobs", type=int, metavar="N", help="number of processes (default: one per core)")
    where.add_argument("--dask", metavar="ADDRESS", help="address of a Dask scheduler for the runs (extra: cluster)")


def workers_of(arguments):
    """Return the value for a sweep's `workers` argument, from the options that `add_workers` added."""
    return arguments.jobs if arguments.dask is None else arguments.dask


def run_experiment(arguments):
    from ..experiments import laboratory
    from ..experiments.gallery import folder_of
    from ..experiments.recipes import RECIPES, recipe
    from ..experiments.runs import BASES
    from ..tasks.settings import default_base

    if arguments.name == "list":
        for name in RECIPES:
            print(f"{name:<14} {recipe(name).question} ({', '.join(recipe(name).bases)})")
        return 0
    is_run, base = arguments.command == "run", arguments.base
    if base is not None:
        one_of("base", base, BASES)
    every = arguments.name == "all"
    names = [name for name in RECIPES if base in (None, *recipe(name).bases)] if every else [arguments.name]
    # By default, each experiment runs on the first of its bases.
    if is_run and base is None:
        base = default_base("classifier", print_now) or "pretrained"
    bases = {name: base or recipe(name).bases[0] for name in names}
    for name in names:
        one_of("base", bases[name], recipe(name).bases)
    out = arguments.out or ("figures/quick" if arguments.quick else "figures")
    if arguments.draw:
        for name in names:
            if not every or (folder_of(out, bases[name]) / f"{name}.json").exists():
                print(*laboratory.draw_again(name, bases[name], out), sep="\n")
        return 0
    write_as_json = json_writer(arguments.json, (arguments.store,))
    seeds = 1 if is_run and arguments.seeds is None else arguments.seeds
    settings = seeds, arguments.quick, out, arguments.store, workers_of(arguments), print_now
    outcomes = {name: laboratory.experiment(name, *settings, bases[name]) for name in names}
    failed = [name for name, outcome in outcomes.items() if "failed" in outcome]
    if failed and len(names) > 1:
        print(f"not finished: {', '.join(failed)}")
    if not failed:
        write_as_json(outcomes[names[0]])
    return 1 if failed else 0


def run_tune(arguments):
    from ..experiments import tuning
    from ..experiments.methods import SETTINGS

    out = arguments.out or SETTINGS
    settings = tuning.tune(arguments.methods, out, arguments.store, workers_of(arguments), report=print_now)
    for name, rate in settings["chosen"].items():
        print(f"{name:<28} {rate:g}")


def run_pretrain(arguments):
    from ..experiments.pretrain import pretrain, train_shipped

    options = {name: getattr(arguments, name) for name in ("epochs", "threads", "reviews")}
    if arguments.adapters:
        check_unset("applies only to the base; the adapters' settings are fixed", **options)
        for name, about in train_shipped(arguments.out, arguments.seed, arguments.force).items():
            perplexity = ", ".join(f"{part} {value:.1f}" for part, value in about["test_perplexity"].items())
            print(f"{name}: test perplexity {perplexity}")
        print(f"saved in {shown(arguments.out)}")
        return
    options["max_reviews"] = options.pop("reviews")
    given = {name: value for name, value in options.items() if value is not None}
    log = pretrain(arguments.out, seed=arguments.seed, force=arguments.force, **given)
    print(f"validation loss {log['validation_nats_per_token']:.3f} nats per token; saved in {shown(arguments.out)}")


def run_gradcheck(arguments):
    from ..reference import TOLERANCE, failures, format_rows, gradcheck, rows_to_dicts

    write_as_json = json_writer(arguments.json)
    rows = gradcheck()
    write_as_json(rows_to_dicts(rows))
    print(format_rows(rows))
    failed = failures(rows)
    print(f"{len(rows) - len(failed)} of {len(rows)} rows have an error of at most {TOLERANCE:g}")
    return 1 if failed else 0


def run_bench(arguments):
    from ..bench import DEFAULT_WORKS, RUNGS, bench, format_tables, parse_peers, parse_rung, to_dicts

    if arguments.llama_cpp:
        unfit = {"peers": arguments.peers, "rungs": arguments.rungs, "work": arguments.work}
        check_unset("cannot be combined with --llama-cpp", **unfit)
        return bench_llama_cpp(arguments)
    peers, absent = parse_peers(arguments.peers)
    rungs = RUNGS if arguments.rungs is None else [parse_rung(text) for text in arguments.rungs]
    checkouts = [f"{peer.partition('=')[2]}/lora_np" for peer in peers if "=" in peer]
    write_as_json = json_writer(arguments.json, checkouts)
    if absent:
        print_now("not compared: " + "; ".join(absent))
    what = rungs, arguments.work or DEFAULT_WORKS, peers
    how = arguments.threads, arguments.rounds, arguments.seed, arguments.as_set
    rows, setting = bench(*what, *how, report=print_now)
    write_as_json(to_dicts(rows, setting, peers))
    print("\n" + format_tables(rows, setting, peers))
    return 1 if any(row.failed for row in rows) else 0


def bench_llama_cpp(arguments):
    from ..bench.llama_cpp import format_times, time_llama_cpp

    write_as_json = json_writer(arguments.json)
    threads = 1 if arguments.threads is None else arguments.threads
    try:
        rows = time_llama_cpp(threads, arguments.rounds, report=print_now)
    except RuntimeError as error:
        raise ValueError(f"llama.cpp: {error}") from None
    write_as_json(rows)
    print("\n" + format_times(rows))
