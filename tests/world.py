"""Everything that commands read, in one folder: a base, what fine-tuning and exporting make of it, data, exercises."""

import csv
import json
import os
import shutil

import numpy as np

from lora_np.classroom.notebooks import write_notebook
from lora_np.classroom.release import notebook_of
from lora_np.classroom.sets import read_sets
from lora_np.cli import main
from lora_np.data import model_files, new_files, train_tokenizer
from lora_np.formats import PRETRAINED, read_json, save_hf, save_model, write_json
from lora_np.model import BertConfig, GPT2Config, initial_params
from lora_np.reference import MANIFEST, VECTORS, load_case, load_manifest

TEXTS = [f"the quick {animal} jumps over the lazy {thing} , said {who}" for animal in ("fox", "cat", "hen", "owl")
         for thing in ("dog", "log", "bog", "fog") for who in ("he", "she", "they")]  # fmt: skip
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys(" ".join(TEXTS).split())]
CASES = ("linear", "lora", "layer-norm")  # of the reference


def make_world(root):
    """Write everything into a folder `root`, which it returns; outputs go to `root/made`.

    "one", "two" and "dora" are adapters of the language model in "base", "classes" is a classifier's, "full" a whole
    model; "hf", "peft", "classes_peft", "classes_hf" (merged) are exports; "encoded" adapts the BERT in "encoder".
    """
    for name in ("base", "data", "vectors", "port/lora.float64", "exercises", "made", "empty"):
        (root / name).mkdir(parents=True)
    tokenizer = train_tokenizer(TEXTS, 400)
    config = GPT2Config(tokenizer.get_vocab_size(), 24, 16, 1, 2, 32)
    save_model(root / "base", initial_params(config, np.random.default_rng(0)), config)
    for name, content in (model_files(PRETRAINED) | new_files(tokenizer)).items():
        (root / "base" / name).write_bytes(content)
    config = BertConfig(len(WORDS), 24, 16, 1, 2, 32)
    words = {"vocab.txt": "\n".join(WORDS).encode("utf-8")}
    save_hf(root / "encoder", initial_params(config, np.random.default_rng(0)), config, files=words)
    rows = [{"t": text, "l": "abc"[i % 3], "n": i} for i, text in enumerate(TEXTS)]
    for name, delimiter in (("rows.csv", ","), ("rows.tsv", "\t")):
        with open(root / "data" / name, "w", newline="", encoding="utf-8") as file:
            csv.writer(file, delimiter=delimiter).writerows([rows[0], *(row.values() for row in rows)])
    (root / "data" / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (root / "data" / "corpus.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    start = f"finetune --base {root}/base --epochs 2 --lr 0.03"
    for command in (
        f"{start} --text-file {root}/data/corpus.txt --rank 2 --out {root}/one",
        f"{start} --text-file {root}/data/corpus.txt --rank 3 --seed 1 --alpha 1 --out {root}/two",
        f"{start} --text-file {root}/data/corpus.txt --rank 3 --variant dora --out {root}/dora",
        f"{start} --text-file {root}/data/corpus.txt --method full --out {root}/full",
        f"{start} --data {root}/data/rows.csv --text t --label l --out {root}/classes --max-tokens 24",
        f"{start.replace('/base', '/encoder')} --data {root}/data/rows.csv --text t --label l --out {root}/encoded",
        f"export {root}/one --to hf --out {root}/hf",
        f"export {root}/one --to peft --out {root}/peft --base-name some/base",
        f"export {root}/classes --to peft --out {root}/classes_peft",
        f"export {root}/classes --to merged --out {root}/classes_hf",
    ):
        assert main(command.split()) == 0, command
    entries, _ = load_manifest()
    manifest = read_json(VECTORS / MANIFEST)
    write_json(root / "vectors" / MANIFEST, manifest | {"cases": [entries[id] for id in CASES]})
    for id in CASES:
        for name in entries[id]["files"].values():
            shutil.copy(VECTORS / name, root / "vectors")
    shutil.copy(VECTORS / "linear.float64.safetensors", root / "port")
    outputs = load_case(entries["layer-norm"], "float64", VECTORS)
    flat = {name: {"shape": np.shape(array), "values": np.ravel(array).tolist()} for name, array in outputs.items()}
    write_json(root / "port" / "layer-norm.float64.json", {"tensors": flat})
    for name, array in load_case(entries["lora"], "float64", VECTORS).items():
        np.save(root / "port" / "lora.float64" / f"{name}.npy", array)
    write_notebook(root / "exercises" / "07_lora_layer.ipynb", notebook_of(read_sets()["07_lora_layer"], "solutions"))
    (root / "exercises" / "words.csv").write_text("student,item,out_of,points,remark\nada,words_07_lora_layer,4,3,\n")
    (root / "exercises" / "moodle.csv").write_text("Identifier,Grade,Maximum Grade\nParticipant 1,,10\n")
    (root / "exercises" / "canvas.csv").write_text("Student,ID,LoRA (7)\nAda,1,\n")
    return root


def make_traps(root):
    """Put what is no file to read beside everything that commands read."""
    (root / "loop").symlink_to(root / "loop")
    (root / "nowhere").symlink_to(root / "gone")
    (root / "blank.csv").touch()
    os.mkfifo(root / "pipe")


def contents(folder):
    """Path -> size and time of change of each file in a folder; None for each folder."""
    stats = {path: path.lstat() for path in sorted(folder.rglob("*"))}
    return {str(p): None if p.is_dir() else (stat.st_size, stat.st_mtime_ns) for p, stat in stats.items()}
