"""Commands that write pages for a browser: playground, explore."""

import webbrowser
from pathlib import Path

from ..checked import shown
from ..pages import explore, playground
from .shared import MOVED, add_columns, options_of, print_now


def add_commands(command):
    playing = command("playground", run_playground, "open a page that trains a small model with LoRA in the browser")
    playing.add("--out FILE", "the page to write (default playground.html)", default="playground.html")
    playing.add("--no-browser", "only write the page")

    page = command("explore", run_explore, "write an interactive page about an adapter's layers, ranks and answers")
    page.add("adapter ADAPTER", "a folder from finetune, mix or import, or an included adapter's name")
    page.add("--out FILE", "the page to write, an HTML file", required=True)
    page.add("--base DIR", MOVED)
    page.add("--data FILE", "for a classifier: a CSV, TSV or JSONL file of held-out texts to measure losses on")
    add_columns(page, "text", "label")
    page.add("--text-file FILE", "for a language model: a text file; only its last tenth, finetune's test set, is used")
    page.add("--texts N", "measure losses on at most N texts (default 200; 50 with a large base)", dest="n_texts")
    page.add("--prompt TEXT", "a text to continue or classify; repeatable", dest="prompts", action="append", default=[])
    page.add("--chat", "answer the prompts using the model's chat template")


def run_playground(arguments):
    playground(arguments.out)
    print(f"saved in {shown(arguments.out)}")
    if not arguments.no_browser:
        webbrowser.open(Path(arguments.out).resolve().as_uri())


def run_explore(arguments):
    explore(**options_of(arguments), report=print_now)
    print(f"saved in {shown(arguments.out)}")
