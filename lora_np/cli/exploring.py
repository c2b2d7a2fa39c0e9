"""The command explore, which writes a page about an adapter."""

from ..tasks.explore import explore
from .shared import add_columns, options_of, print_now


def add_commands(command):
    page = command("explore", run_explore, "write a page to look through: an adapter's layers, ranks and answers")
    text = "a folder from finetune, mix or import, or a shipped adapter's name"
    page.add_argument("adapter", metavar="ADAPTER", help=text)
    page.add_argument("--out", required=True, metavar="FILE", help="the page to write, an HTML file")
    text = "its base, if that has moved (default: the one that it was trained on)"
    page.add_argument("--base", metavar="DIR", help=text)
    text = "for a classifier: a CSV, TSV or JSONL file to measure losses on, which it was not trained on"
    page.add_argument("--data", metavar="FILE", help=text)
    add_columns(page, "text", "label")
    text = "for a language model: a text whose end losses are measured on; finetune tests on its last tenth"
    page.add_argument("--text-file", metavar="FILE", help=text)
    text = "measure on at most N texts (default 200; 50 with a large base)"
    page.add_argument("--texts", dest="n_texts", type=int, metavar="N", help=text)
    text = "a text to continue or classify at several scales; can be repeated"
    page.add_argument("--prompt", dest="prompts", action="append", default=[], type=str, metavar="TEXT", help=text)
    page.add_argument("--chat", action="store_true", help="answer the prompts, through the model's chat template")


def run_explore(arguments):
    explore(**options_of(arguments), report=print_now)
    print(f"saved in {arguments.out}")
