"""Conversations as a model reads them: through the chat template in its files, or plainly one text after the other.

A template is a program in Jinja's language from a file that anyone may have written. It runs in a process of its own
(`templates.py`), with limits on time, memory and the length of what it writes.
"""

import re
import sys
from importlib import metadata
from typing import NamedTuple

import numpy as np

from ..checked import shown, whole_number
from ..data import IGNORE_INDEX
from ..data.tokenizer import CHUNK, check_texts, library
from ..data.tokenizer_files import NAMES, SETTINGS, TEMPLATE, json_object
from . import templates
from .patterns import in_a_child

JINJA = (3, 1, 6)  # ways out of the sandbox of older ones are known
SECONDS, SECONDS_EACH = 5.0, 0.01  # for all texts of a call, and more for each
LONGEST = 10**7  # characters of all texts together, and 20 for each that was given


class Template(NamedTuple):
    text: str
    special: dict  # name, such as "eos_token" -> text


class Rows(NamedTuple):
    """Conversations to train on. A row has (T,) ids and (T,) targets, as in `Batch`."""

    rows: list[tuple[np.ndarray, np.ndarray]]
    n_cut: int  # conversations of which the end did not fit
    n_empty: int  # conversations that were left out, because they have nothing to learn, or nothing that fits


def chat_template(files):
    """The chat template among a model's files, name -> bytes; None if it has none.

    Raises
    ------
    ValueError
        If a file is damaged, or has several templates and none of the name "default".
    """
    settings = {**json_object(NAMES, files.get(NAMES)), **json_object(SETTINGS, files.get(SETTINGS))}
    text = settings.get("chat_template")
    if TEMPLATE in files:
        text = files[TEMPLATE].decode("utf-8", "replace")
    if isinstance(text, list):
        text = {one.get("name"): one.get("template") for one in text if isinstance(one, dict)}.get("default", 0)
    if text is not None and not isinstance(text, str):
        raise ValueError(f"{SETTINGS}: chat_template is no text, and no list with a template named 'default'")
    tokens = {name: value for name, value in settings.items() if name.endswith("_token")}
    tokens = {name: value.get("content") if isinstance(value, dict) else value for name, value in tokens.items()}
    return text and Template(text, {name: value for name, value in tokens.items() if isinstance(value, str)})


def render_chat(template, messages, begins_answer=False, now=None):
    """The text of one conversation.

    Parameters
    ----------
    template : Template
    messages : list of dict with role and content
    begins_answer : bool, whether to add what an answer begins with (``add_generation_prompt``)
    now : datetime.datetime, for a template that writes the date, or None: such a template takes its default or fails

    Raises
    ------
    ValueError
        If the template is not well formed, refuses the messages, takes too long or writes too much, or jinja2 is
        missing.
    """
    return render(template, [(messages, begins_answer)], now, ["messages"])[0]


def render(template, jobs, now, places):
    """The texts of many (messages, begins_answer) in one process; `places` names each in an error."""
    try:
        version = metadata.version("jinja2")
    except metadata.PackageNotFoundError:
        version = ""
    if tuple(map(int, re.findall(r"\d+", version)[:3])) < JINJA:
        needed = ".".join(map(str, JINJA))
        raise ValueError(
            f"a chat template needs jinja2 >= {needed}, found {version or 'none'}; install it with: pip install jinja2"
        )
    if not jobs:
        return []
    seconds = SECONDS + SECONDS_EACH * len(jobs)
    longest = LONGEST + 20 * sum(len(str(messages)) for messages, _ in jobs)
    given = {"template": template.text, "special": template.special, "now": now and now.isoformat()}
    lines = in_a_child(templates.__file__, {**given, "path": sys.path, "jobs": jobs, "longest": longest}, seconds)
    if lines and isinstance(lines[-1], list):
        problem = ": ".join(filter(None, lines.pop()))
        raise ValueError(f"{places[len(lines)]}: the chat template fails: {shown(problem)}")
    if len(lines) < len(jobs):
        limits = f"{seconds:.0f} s or {templates.MEMORY // 2**20} MB"
        raise ValueError(f"{places[len(lines)]}: the chat template needs more than {limits}, or brings Python down")
    return lines


def chat_rows(conversations, tokenizer, template, length, places=None, now=None):
    """Conversations as ids and targets, to train on the answers alone.

    A target is the next token where that belongs to an answer, and IGNORE_INDEX elsewhere. The token that ends the
    answer belongs to it, such as ``<|im_end|>``; white space after that and what the answer begins with, such as
    ``<|im_start|>assistant``, do not. A token with characters of both sides belongs to the answer.

    Parameters
    ----------
    conversations : list of lists of messages, dicts with role and content
    tokenizer : Tokenizer
    template : Template; or None, for conversations of one prompt and its completion: their texts are put together as
        they are, with the tokens that the tokenizer puts around a text
    length : int, most tokens in a row, T
    places : list of str, what to call each conversation in an error, or None
    now : datetime.datetime or None, see `render_chat`

    Returns
    -------
    Rows

    Raises
    ------
    ValueError
        See `render_chat`; or if the template does not write a conversation from left to right, so that it cannot be
        said what belongs to an answer; or without a template, if a conversation is of another form.
    """
    length = whole_number("length", length)
    places = places or [f"conversation {i}" for i in range(1, len(conversations) + 1)]
    find = plain_texts if template is None else rendered_texts
    texts, spans = find(conversations, places, template, now)
    check_texts(texts)
    marks = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    rows, n_cut, n_empty = [], 0, 0
    for start in range(0, len(texts), CHUNK):
        with library("a conversation: the tokenizer cannot encode it"):
            found = tokenizer.encode_batch(texts[start : start + CHUNK], add_special_tokens=template is None)
        for row, encoding in enumerate(found, start):
            ids = np.array(encoding.ids, dtype=np.int64)
            learnt = is_answer(encoding, texts[row], spans[row], marks)
            n_cut += len(ids) > length + 1
            ids, learnt = ids[: length + 1], learnt[: length + 1]
            if learnt[1:].any():
                rows.append((ids[:-1], np.where(learnt[1:], ids[1:], IGNORE_INDEX)))
            else:
                n_empty += 1
    return Rows(rows, n_cut, n_empty)


def is_answer(encoding, text, spans, marks):
    """Whether each token of a text belongs to an answer, (T,) bool.

    A token belongs where it ends. (Where some tokenizers say it begins is after its space.)
    """
    ends = np.array([end for _, end in encoding.offsets], dtype=np.int64)  # (T,)
    added = np.array(encoding.special_tokens_mask, dtype=bool)  # (T,) what the tokenizer put around the text
    learnt = np.zeros(len(ends), dtype=bool)
    for start, end in spans:
        without_space = text[start:end].rstrip()
        if without_space.endswith(tuple(marks)):
            end = start + len(without_space)
        learnt |= (ends > start) & (ends <= end) & ~added
    last = len(added) - np.argmin(added[::-1]) if len(added) else 0  # after the last token of the text itself
    learnt[last:] = True
    return learnt


def plain_texts(conversations, places, template, now):
    """The texts of prompts and completions put together, and where the completions are in them."""
    for messages, place in zip(conversations, places):
        if [message["role"] for message in messages] != ["user", "assistant"]:
            raise ValueError(f"{place}: the model has no chat template; give a prompt and a completion, not messages")
    pairs = [(messages[0]["content"], messages[1]["content"]) for messages in conversations]
    return ["".join(pair) for pair in pairs], [[(len(first), len(first + second))] for first, second in pairs]


def rendered_texts(conversations, places, template, now):
    """The texts of conversations through a template, and where the answers are in them, as [(start, end)].

    An answer begins where the text of the messages before it ends, with what an answer begins with; and it ends where
    the text of the messages up to it ends. Both must be beginnings of the whole text.
    """
    answers = [
        [k for k, message in enumerate(messages) if message["role"] == "assistant"] for messages in conversations
    ]
    jobs, whose = [], []
    for messages, ks, place in zip(conversations, answers, places):
        beginnings = [((messages[:k], True), (messages[: k + 1], False)) for k in ks]
        jobs += [(messages, False), *sum(beginnings, ())]
        whose += [place] * (1 + 2 * len(ks))
    rendered = iter(render(template, jobs, now, whose))
    texts, spans = [], []
    for ks, place in zip(answers, places):
        texts.append(next(rendered))
        spans.append([])
        for k in ks:
            beginnings = next(rendered), next(rendered)
            if not all(map(texts[-1].startswith, beginnings)):
                raise ValueError(
                    f"{place}: the chat template writes what is before or in the answer messages[{k}] in another way "
                    "when more follows; to train on answers alone it has to write a conversation from left to right"
                )
            spans[-1].append(tuple(map(len, beginnings)))
    return texts, spans
