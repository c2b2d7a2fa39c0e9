"""The commands that generate text: generate and chat."""

import re
import sys

import numpy as np

from ..checked import check_unset, seed_number, shown, whole_number
from ..data.tokenizer import SURROGATE
from ..model import Sampling, check_writes
from ..tasks.adapter_set import load_adapter_set, mixed
from ..tasks.finetuning import naming_model
from ..tasks.writing import answer_from, write_text_from
from ..training import blas_threads, worthwhile_threads

TEXT_TOKENS, CHAT_TOKENS = 60, 400  # defaults for the maximum number of new tokens

# Control characters, and those that change the direction of the text after them.
CONTROL = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]|\r(?!\n)")


def add_commands(command):
    write = command("generate", run_generate, "continue a prompt with the base, an adapter, or several adapters")
    write.add("--prompt TEXT", "start of the text", required=True)
    write.add("--chat", "answer the prompt using the model's chat template")
    talk = command("chat", run_chat, "chat with a model in the terminal")
    for both in (write, talk):
        text = "the language model: smollm2, a GGUF file, or a folder (default: the included base; for chat smollm2)"
        both.add_argument("--base", "--model", dest="model", metavar="DIR", help=text)
        text = "an adapter's folder, critics or licences (included), or base for no adapter; generate accepts several"
        both.add("--adapter DIR …", text, action="extend", default=[])
        both.add("--system MESSAGE", "in a chat: the system message")
        both.add("--tokens N", f"maximum number of new tokens (default {TEXT_TOKENS}, in a chat {CHAT_TOKENS})")
        both.add("--temperature T", "sampling temperature; 0: always the most likely token (default 0.8)", default=0.8)
        both.add("--top-k K", "sample from the K most likely tokens")
        both.add("--top-p P", "sample from the fewest most likely tokens with a total probability of at least P")
        both.add("--repetition-penalty X", "above 1: penalise repeated tokens (default 1)", default=1.0)
        both.add("--seed N", "random seed (default 0)", default=0)
    write.add("--weights W …", "mix the adapters with these weights")
    write.add("--ignore-end", "continue after the end-of-text token")


def run_generate(arguments):
    if not arguments.chat:
        check_unset("needs --chat", system=arguments.system)
    sampling = sampling_of(arguments)
    loaded = load_adapter_set(arguments.adapter, arguments.model)
    adapters = loaded.adapters or {"base": None}
    if arguments.weights is not None:
        adapters = {"mix": mixed(loaded, arguments.weights)[0]}
    n_new = arguments.tokens or (CHAT_TOKENS if arguments.chat else TEXT_TOKENS)
    n_threads = worthwhile_threads(loaded.task.params)
    for name, adapter in adapters.items():
        with blas_threads(n_threads), naming_model(name if adapter is not None else loaded.base):
            if len(adapters) > 1:
                print(f"[{shown(name)}]")
            settings = n_new, adapter, sampling, np.random.default_rng(arguments.seed)
            if arguments.chat:
                messages = [*system_messages(arguments), {"role": "user", "content": arguments.prompt}]
                pieces = answer_from(loaded.task, messages, *settings)
            else:
                pieces = write_text_from(loaded.task, arguments.prompt, *settings, arguments.ignore_end)
            print_pieces(pieces)


def run_chat(arguments):
    sampling, rng = sampling_of(arguments), np.random.default_rng(arguments.seed)
    if len(arguments.adapter) > 1:
        raise ValueError(f"adapter: got {len(arguments.adapter)}, expected at most one in a chat")
    base = arguments.model or (None if arguments.adapter else "smollm2")
    loaded = load_adapter_set(arguments.adapter, base)
    check_writes(loaded.task.config)
    adapter = next(iter(loaded.adapters.values()), None)
    messages = system_messages(arguments)
    while line := next_line():
        messages.append({"role": "user", "content": line})
        with blas_threads(worthwhile_threads(loaded.task.params)), naming_model(loaded.base):
            n_new = arguments.tokens or CHAT_TOKENS
            text = print_pieces(answer_from(loaded.task, messages, n_new, adapter, sampling, rng))
        messages.append({"role": "assistant", "content": text})


def next_line():
    """Return the next non-blank line of the input, or "" at its end."""
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "")
        except EOFError:
            return ""
        if SURROGATE.search(line):
            print("warning: the line is not UTF-8 and is ignored; type it again", file=sys.stderr, flush=True)
        elif line.strip():
            return line


def sampling_of(arguments):
    """Check the options of `generate` and `chat`, and return a Sampling."""
    seed_number("seed", arguments.seed)
    if arguments.tokens is not None:
        whole_number("tokens", arguments.tokens)
    return Sampling(arguments.temperature, arguments.top_k, arguments.top_p, arguments.repetition_penalty)


def system_messages(arguments):
    """Return the messages at the start of a chat: the system message, if there is one."""
    return [] if arguments.system is None else [{"role": "system", "content": arguments.system}]


def printable(text):
    """Escape characters that a terminal would act on, except line breaks and tabs."""
    return CONTROL.sub(lambda found: shown(found[0]), text)


def print_pieces(pieces):
    """Print the pieces of a text as they are generated, and return the text."""
    text = ""
    try:
        for piece in pieces:
            text += piece
            print(printable(piece), end="", flush=True)
    finally:
        print()
    return text
