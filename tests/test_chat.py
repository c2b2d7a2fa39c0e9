"""Conversations: read from a file, through a model's chat template, and as rows to train on the answers."""

import json
import re
import subprocess
import sys
from importlib import metadata
from importlib.util import find_spec
from itertools import groupby
from unittest import mock

import numpy as np
import pytest

from lora_np.data import IGNORE_INDEX, decode, load_tokenizer, read_chats
from lora_np.formats import PRETRAINED, Template, chat_rows, chat_template, patterns, render_chat

from .chat_templates import CONVERSATIONS, TEMPLATES, write_tokenizer

pytest.importorskip("tokenizers")
pytest.importorskip("jinja2")

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    return load_tokenizer(folder)


def learnt(tokenizer, row):
    """The texts of the spans of targets that are learnt."""
    ids, targets = row
    assert ids.shape == targets.shape and ids.dtype == targets.dtype == np.int64
    assert all(target in (IGNORE_INDEX, after) for target, after in zip(targets, [*ids[1:], targets[-1]]))
    spans = [list(span) for is_learnt, span in groupby(targets, lambda i: i != IGNORE_INDEX) if is_learnt]
    return [tokenizer.decode(span, skip_special_tokens=False) for span in spans]


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_answers_alone_are_learnt(name, tokenizer):
    """With the token that ends them; tests/oracles compares the ids with those of transformers."""
    template = Template(TEMPLATES[name], SPECIAL)
    result = chat_rows(CONVERSATIONS, tokenizer, template, 1000)
    assert result[1:] == (0, 0)
    for chat, row in zip(CONVERSATIONS, result.rows, strict=True):
        assert row[0].tolist() == tokenizer.encode(render_chat(template, chat), add_special_tokens=False).ids[:-1]
        ends = [re.fullmatch(r"(?s)\s*(.*?)\s*(</s>|<\|\w+\|>|\n\n)", span).groups() for span in learnt(tokenizer, row)]
        assert [answer for answer, _ in ends] == [m["content"].strip() for m in chat if m["role"] == "assistant"]


def test_the_template_alone_puts_tokens_around_a_conversation(tmp_path):
    write_tokenizer(tmp_path, add_bos_token=True, add_eos_token=True)
    rows = chat_rows(CONVERSATIONS[:1], load_tokenizer(tmp_path), Template(TEMPLATES["Llama 2"], SPECIAL), 99).rows
    assert rows[0][0][:2].tolist() != [1, 1] and rows[0][0].tolist().count(2) == 0 and rows[0][1][-1] == 2


def test_a_conversation_that_is_too_long(tokenizer):
    """It is cut on the right; where no part of an answer is left, it is left out."""
    template = Template(TEMPLATES["ChatML"], SPECIAL)
    ids, targets = chat_rows(CONVERSATIONS[:1], tokenizer, template, 1000).rows[0]
    first = int(np.argmax(targets != IGNORE_INDEX))  # the input before the first token of the answer
    for length, n_rows in ((len(ids), 1), (len(ids) - 1, 1), (first + 1, 1), (first, 0), (1, 0)):
        rows, n_cut, n_empty = chat_rows(CONVERSATIONS[:1], tokenizer, template, length)
        assert (len(rows), n_cut, n_empty) == (n_rows, length < len(ids), 1 - n_rows)
        for row in rows:
            assert np.array_equal(row[0], ids[:length]) and np.array_equal(row[1], targets[:length])


def test_a_template_that_does_not_write_from_left_to_right(tokenizer):
    chat = CONVERSATIONS[1]
    for text, k in {
        "{% for m in messages %}{{ loop.revindex }}{{ m.content }}{% endfor %}": 2,
        "{% for m in messages %}{{ m.content if loop.last or m.role == 'user' }}{% endfor %}": 2,
        TEMPLATES["ChatML"].replace("assistant\\n' }}{% endif %}", "assistant\\n<think>' }}{% endif %}"): 2,
    }.items():
        with pytest.raises(ValueError, match=rf"^mine: the chat template .* messages\[{k}\] .* left to right"):
            chat_rows([chat], tokenizer, Template(text, {}), 99, ["mine"])


def test_one_process_for_all_conversations(tokenizer, monkeypatch):
    runs = mock.Mock(wraps=subprocess.run)
    monkeypatch.setattr(subprocess, "run", runs)
    assert len(chat_rows(200 * CONVERSATIONS[:1], tokenizer, Template(TEMPLATES["ChatML"], {}), 99).rows) == 200
    assert chat_rows([], tokenizer, Template(TEMPLATES["ChatML"], {}), 99) == ([], 0, 0)
    assert runs.call_count == 1


HOSTILE = {
    "{{ ''.__class__.__mro__ }}": "SecurityError",
    "{{ cycler.__init__.__globals__.os.system('exit') }}": "SecurityError",
    "{{ ('%s' | format(raise_exception)).__class__.__base__.__subclasses__() }}": "SecurityError",
    "{% set n = namespace() %}{% set n.__class__ = 1 %}": "SecurityError",
    "{{ namespace({'__call__': 1}) }}": "SecurityError",
    "{{ messages.append(1) }}": "SecurityError",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}": "RecursionError",
    "{{ " + "(" * 9999 + "1" + ")" * 9999 + " }}": "RecursionError",
    "{{ [9] * 10**12 }}": "MemoryError",
    "{% for i in range(99999) %}{{ 'long' * 99 }}{% endfor %}": "its output is too long",
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}": "needs more than 1 s or 1024 MB",
    "{{ ([9] * 3 * 10**8) | length }}": "MemoryError",
    "{% include '/etc/passwd' %}": "no loader",
    "{% if %}": "TemplateSyntaxError: Expected an expression",
    "{{ nothing() }}": "UndefinedError: 'nothing' is undefined",
    "{{ raise_exception('no ' * 10**6 + '\n') }}": "TemplateError: no no no",
    "{{ strftime_now('%d') }}": "'strftime_now' is undefined",
}


@pytest.mark.slow
@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_template_that_fails(text, monkeypatch):
    if "10**8" in text and sys.platform != "linux":
        pytest.skip("only Linux limits the memory of a process")
    monkeypatch.setattr("lora_np.formats.chat.SECONDS", 1.0 if "1 s" in HOSTILE[text] else 20.0)
    with pytest.raises(ValueError, match=re.escape(HOSTILE[text])) as caught:
        render_chat(Template(text, SPECIAL), CONVERSATIONS[0])
    message = str(caught.value)
    assert message.startswith("messages: the chat template ") and len(message) < 300 and "\n" not in message


@pytest.mark.parametrize("version, found", [("", "none"), ("3.1.5", "3.1.5"), ("2.11.3", "2.11.3")])
def test_a_jinja_that_is_missing_or_unsafe(version, found, monkeypatch):
    answer = version or metadata.PackageNotFoundError("jinja2")
    monkeypatch.setattr(metadata, "version", mock.Mock(side_effect=[answer]))
    with pytest.raises(ValueError, match=f"jinja2 >= 3.1.6, found {found}: pip install -U jinja2"):
        render_chat(Template("", {}), [])


def test_a_process_that_ends_early(tmp_path):
    """What it wrote until then is read."""
    script = tmp_path / "script.py"
    script.write_text("import sys\nprint('1')\nprint('[2', end='')\nsys.exit(3)")
    assert patterns.in_a_child(str(script), None, 20) == [1]


def test_the_template_in_a_models_files():
    special = {"special_tokens_map.json": json.dumps({"bos_token": "<s>", "eos_token": "?"}).encode()}
    named = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "named"}]

    def read(template="old", **more):
        settings = {"chat_template": template, "eos_token": {"content": "</s>"}, "add_bos_token": True}
        return chat_template(special | {"tokenizer_config.json": json.dumps(settings).encode()} | more)

    assert read() == ("old", {"bos_token": "<s>", "eos_token": "</s>"})
    assert read(named).text == "named" and read(None) is None and chat_template({}) is None
    assert read(named, **{"chat_template.jinja": "ä".encode()}).text == "ä"
    for wrong in (named[:1], 3):
        with pytest.raises(ValueError, match="^tokenizer_config.json: chat_template is "):
            read(wrong)


def test_a_prompt_and_its_completion(tokenizer, tmp_path):
    """Without a template the texts are put together, and the tokenizer's last token is learnt too."""
    ours = load_tokenizer(PRETRAINED)
    chats = [[{"role": "user", "content": "The film is"}, {"role": "assistant", "content": " Fine,  really!"}]]
    [(ids, targets)], *_ = chat_rows(chats, ours, None, 99)
    assert ids[0] == ours.token_to_id("<|endoftext|>")
    assert decode(ours, np.append(ids, targets[-1])) == "the film is fine , really !"
    assert learnt(ours, (ids, targets)) == ["fine , really !"]
    write_tokenizer(tmp_path, add_bos_token=True, add_eos_token=True)
    [row], *_ = chat_rows(chats, load_tokenizer(tmp_path), None, 99)
    assert row[0][0] == 1 and learnt(tokenizer, row) == [" Fine,  really!</s>"]
    nothing = [[{"role": "user", "content": ""}, {"role": "assistant", "content": "a"}]]
    assert chat_rows(nothing, tokenizer, None, 99) == ([], 0, 1), "the first token is nobody's target"
    with pytest.raises(ValueError, match="conversation 2: the model has no chat template; give a prompt and a comple"):
        chat_rows([*chats, CONVERSATIONS[1]], ours, None, 99)


def test_conversations_of_a_file(tmp_path):
    path = tmp_path / "chats.jsonl"
    rows = [{"prompt": "a", "completion": " b", "id": 3}, {"messages": CONVERSATIONS[1]}]
    path.write_text("\n\n".join(map(json.dumps, rows)))
    conversations, places = read_chats(path)
    assert conversations[0] == [{"role": "user", "content": "a"}, {"role": "assistant", "content": " b"}]
    assert conversations[1] == CONVERSATIONS[1]
    assert places == [f"{path}, row 1, line 1", f"{path}, row 2, line 3"]


USER, ANSWER = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
WRONG = {
    "has 'text'; expected either prompt and completion, or messages": {"text": "a"},
    "has 'prompt', 'messages'; expected either": {"prompt": "a", "messages": [ANSWER]},
    "completion is missing, expected a string": {"prompt": "a"},
    "prompt is 3, expected a string": {"prompt": 3, "completion": "b"},
    "messages is 'a', expected a list": {"messages": "a"},
    "messages[1] is 'b', expected an object": {"messages": [USER, "b"]},
    "messages[2]: role: got 'robot', expected one of system, user, assistant": {
        "messages": [USER, ANSWER, {"role": "robot"}]
    },
    "messages[0]: role: got None, expected": {"messages": [{"content": "a"}]},
    "messages[0]: content is ['a'], expected a string": {"messages": [{"role": "user", "content": ["a"]}]},
    "messages[0]: content is missing, expected": {"messages": [{"role": "user"}]},
    "messages[1]: content has a lone surrogate": {"messages": [USER, {"role": "assistant", "content": "\ud800"}]},
    "has no answer to train on": {"messages": [USER]},
    "has no answer to train on; expected a completion": {"prompt": "a", "completion": " "},
}


@pytest.mark.parametrize("message", WRONG)
def test_a_row_that_is_refused(message, tmp_path):
    path = tmp_path / "chats.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ({"messages": [USER, ANSWER]}, WRONG[message])))
    with pytest.raises(ValueError, match=re.escape(f"chats.jsonl, row 2, line 2: {message}")):
        read_chats(path)


@pytest.mark.slow
@pytest.mark.skipif(not find_spec("resource"), reason="the system cannot limit CPU time")
@pytest.mark.parametrize("work, lines", [("time.sleep(1.1)", [3]), ("sum(1 for _ in iter(int, 1))", [])])
def test_a_child_is_limited_in_cpu_time_not_in_waiting(work, lines, tmp_path):
    """On a busy machine, even a template of one line may wait for seconds."""
    script = tmp_path / "script.py"
    script.write_text(f"import json, sys, time\nv = json.load(sys.stdin)\n{work}\nprint(json.dumps(v))\n")
    assert patterns.in_a_child(str(script), 3, 1.0) == lines
