"""Commands that train and measure on the package's own data: run, experiment, tune, pretrain, gradcheck, bench."""

from ..checked import check_unset, one_of
from .shared import json_writer, print_now


def add_commands(command):
    run = command("run", run_experiment, "compare full fine-tuning and LoRA on real reviews: table, JSON, figures")
    add_experiment(run, "1, with smollm2 3")
    run.add_argument("--json", metavar="FILE", help="also write the numbers there")
    run.set_defaults(name="main_job", draw=False)

    lab = command("experiment", run_experiment, "run an experiment: its figure, its numbers, its verdict")
    lab.add_argument("name", metavar="NAME", help="an experiment; list: show their names; all: run every one")
    add_experiment(lab, "5, with smollm2 3")
    lab.add_argument("--draw", action="store_true", help="only redraw the figure from the numbers in its JSON")
    lab.set_defaults(json=None)

    tune = command("tune", run_tune, "choose the learning rates of the experiments on validation")
    tune.add_argument("--methods", nargs="+", metavar="NAME", help='methods, such as full or "full, 3 passes"')
    tune.add_argument("--out", metavar="FILE", help="file to write (default: the file that the experiments read)")
    add_workers(tune)

    training = command("pretrain", run_pretrain, "pre-train the base language model on IMDb reviews")
    training.add_argument("--out", default="pretrained", metavar="DIR", help="folder to write (default pretrained)")
    training.add_argument("--epochs", type=int, metavar="N", help="epochs over the reviews")
    training.add_argument("--seed", type=int, default=0, metavar="N")
    training.add_argument("--threads", type=int, metavar="N", help="number of shards in parallel (default 2)")
    training.add_argument("--adapters", action="store_true", help="train the included adapters on the base instead")
    training.add_argument("--reviews", type=int, metavar="N", help="use only N reviews, for a trial")
    training.add_argument("--force", action="store_true", help="also replace the included files")

    check = command("gradcheck", run_gradcheck, "check every backward pass against central differences")
    check.add_argument("--json", metavar="FILE", help="also write the rows as JSON")

    timing = command("bench", run_bench, "time lora_np beside PyTorch and JAX on the same work")
    text = "torch, compile, jax (default: those installed); llama.cpp, for a Llama's generation; NAME=DIR, another "
    text += "checkout of lora_np; blocks, recompute, blocks-recompute: lora_np in another mode; no name: no peer"
    timing.add_argument("--peers", nargs="*", action="extend", metavar="PEER", help=text)
    text = "model sizes: a width of the ladder (64 128 256 512 768) or C,layers,heads,T,B,V; for a Llama smollm2, "
    text += "smollm2,B,T or C,layers,heads,T,B,V,K,F; with ,rR for another adapter rank (default: the ladder)"
    timing.add_argument("--rungs", nargs="+", action="extend", metavar="RUNG", help=text)
    text = "kinds of work (default: all but classifier_qv and classifier_all)"
    timing.add_argument("--work", nargs="+", action="extend", metavar="KIND", help=text)
    text = "for every backend (default: one per core; with --llama-cpp 1)"
    timing.add_argument("--threads", type=int, metavar="N", help=text)
    timing.add_argument("--rounds", type=int, default=5, metavar="N", help="rounds (default 5)")
    timing.add_argument("--seed", type=int, default=0, metavar="N")
    text = "instead time SmolLM2 in llama.cpp, with several weight formats, with and without an adapter"
    timing.add_argument("--llama-cpp", action="store_true", help=text)
    text = "do not unset variables that choose a library's kernels, such as OPENBLAS_CORETYPE"
    timing.add_argument("--as-set", action="store_true", help=text)
    timing.add_argument("--json", metavar="FILE", help="also write every number as JSON")


def add_experiment(command, seeds):
    """Add the options of a command that runs experiments; `seeds` describes the default number."""
    text = "the model to fine-tune: pretrained, the small base, or smollm2 (default pretrained)"
    command.add_argument("--base", default="pretrained", metavar="NAME", help=text)
    command.add_argument("--seeds", type=int, metavar="N", help=f"number of seeds per run (default {seeds})")
    command.add_argument("--quick", action="store_true", help="two seeds of shortened runs")
    command.add_argument("--out", metavar="DIR", help="folder to write (default figures, or figures/quick)")
    add_workers(command)


def add_workers(command):
    """Add the options for where runs are computed and stored."""
    text = "folder of finished runs (default out/runs)"
    command.add_argument("--store", default="out/runs", metavar="DIR", help=text)
    where = command.add_mutually_exclusive_group()
    where.add_argument("--jobs", type=int, metavar="N", help="number of processes (default: one per core)")
    where.add_argument("--dask", metavar="ADDRESS", help="a Dask scheduler for the runs (extra: cluster)")


def run_experiment(arguments):
    from ..experiments import laboratory, sweep
    from ..experiments.gallery import folder_of
    from ..experiments.recipes import RECIPES, bases_of, headline
    from ..experiments.runs import BASES

    if arguments.name == "list":
        for number, name in enumerate(RECIPES):
            print(f"{number:>2} {name:<17} {headline(name)} ({', '.join(bases_of(name))})")
        return 0
    base, names = one_of("base", arguments.base, BASES), (arguments.name,)
    if arguments.name == "all":
        names = [name for name in RECIPES if base in bases_of(name)]
    for name in names:
        one_of("base", base, bases_of(name))
    out = arguments.out or ("figures/quick" if arguments.quick else "figures")
    if arguments.draw:
        for name in names:
            if arguments.name != "all" or (folder_of(out, base) / f"{name}.json").exists():
                print(*laboratory.draw_again(name, out, base), sep="\n")
        return 0
    write_as_json = json_writer(arguments.json, (arguments.store,))
    small_job = (arguments.command, base) == ("run", "pretrained")
    seeds = 1 if small_job and arguments.seeds is None else arguments.seeds
    with sweep.open_executor(arguments.jobs, arguments.dask) as executor:
        settings = seeds, arguments.quick, out, arguments.store, executor, print_now, base
        outcomes = {name: laboratory.experiment(name, *settings) for name in names}
    failed = [name for name, outcome in outcomes.items() if "failed" in outcome]
    if failed and len(names) > 1:
        print(f"not finished: {', '.join(failed)}")
    if not failed:
        write_as_json(outcomes[names[0]])
    if small_job and not arguments.quick:
        print("The same on a real language model: python -m lora_np run --base smollm2 (hours; it resumes)")
    return 1 if failed else 0


def run_tune(arguments):
    from ..experiments import sweep, tuning
    from ..experiments.methods import SETTINGS

    out = arguments.out or SETTINGS
    with sweep.open_executor(arguments.jobs, arguments.dask) as executor:
        settings = tuning.tune(arguments.methods, out, arguments.store, executor, report=print_now)
    for name, rate in settings["chosen"].items():
        print(f"{name:<24}{rate:g}")


def run_pretrain(arguments):
    from ..experiments.pretrain import pretrain, train_shipped

    options = {name: getattr(arguments, name) for name in ("epochs", "threads", "reviews")}
    if arguments.adapters:
        check_unset("only applies to the base; the adapters' settings are fixed", **options)
        for name, about in train_shipped(arguments.out, arguments.seed, arguments.force).items():
            perplexity = ", ".join(f"{part} {value:.1f}" for part, value in about["test_perplexity"].items())
            print(f"{name}: test perplexity {perplexity}")
        print(f"saved in {arguments.out}")
        return
    options["max_reviews"] = options.pop("reviews")
    given = {name: value for name, value in options.items() if value is not None}
    log = pretrain(arguments.out, seed=arguments.seed, force=arguments.force, **given)
    print(f"validation loss {log['validation_nats_per_token']:.3f} nats per token; saved in {arguments.out}")


def run_gradcheck(arguments):
    from ..reference import TOLERANCE, failures, format_rows, gradcheck, rows_to_dicts

    write_as_json = json_writer(arguments.json)
    rows = gradcheck()
    write_as_json(rows_to_dicts(rows))
    print(format_rows(rows))
    failed = failures(rows)
    print(f"{len(rows) - len(failed)} of {len(rows)} rows at most {TOLERANCE:g}")
    return 1 if failed else 0


def run_bench(arguments):
    from ..bench import DEFAULT_WORKS, RUNGS, bench, format_tables, parse_peers, parse_rung, to_dicts

    if arguments.llama_cpp:
        unfit = {"peers": arguments.peers, "rungs": arguments.rungs, "work": arguments.work}
        check_unset("does not go with --llama-cpp", **unfit)
        return bench_llama_cpp(arguments)
    peers, absent = parse_peers(arguments.peers)
    rungs = RUNGS if arguments.rungs is None else [parse_rung(text) for text in arguments.rungs]
    checkouts = [f"{peer.partition('=')[2]}/lora_np" for peer in peers if "=" in peer]
    write_as_json = json_writer(arguments.json, checkouts)
    if absent:
        print_now("left out: " + "; ".join(absent))
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
