"""Chat templates: the text, the ids and the tokens of the answers as transformers has them."""

from datetime import datetime

import numpy as np
import pytest

from lora_np.data import IGNORE_INDEX, load_tokenizer, model_files
from lora_np.formats import chat_rows, chat_template, render_chat

from ..chat_templates import CONVERSATIONS, TEMPLATES, write_tokenizer

transformers = pytest.importorskip("transformers")
pytest.importorskip("jinja2")

pytestmark = pytest.mark.oracle


@pytest.mark.parametrize("name", TEMPLATES)
def test_texts_and_answers(name, tmp_path):
    write_tokenizer(tmp_path, TEMPLATES[name])
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    template, ours = chat_template(model_files(tmp_path)), load_tokenizer(tmp_path, {"model_type": "llama"})
    assert template.special == theirs.special_tokens_map
    for chat in CONVERSATIONS:
        for begins_answer in (False, True):
            text = theirs.apply_chat_template(chat, tokenize=False, add_generation_prompt=begins_answer)
            assert render_chat(template, chat, begins_answer) == text
        expected = theirs.apply_chat_template(chat, return_dict=True, return_assistant_tokens_mask=True)
        [(ids, targets)], *_ = chat_rows([chat], ours, template, 1000)
        assert ids.tolist() == expected["input_ids"][:-1]
        mask = np.array(expected["assistant_masks"][1:], dtype=bool)
        assert targets.tolist() == np.where(mask, expected["input_ids"][1:], IGNORE_INDEX).tolist()
        assert 0 < mask.sum() < len(mask)


def test_the_date(tmp_path):
    write_tokenizer(tmp_path, "{{ strftime_now('%d %b %Y') }}: {{ messages[0].content | tojson(indent=1) }}")
    theirs, template = transformers.AutoTokenizer.from_pretrained(tmp_path), chat_template(model_files(tmp_path))
    chat = CONVERSATIONS[1][2:]
    today = datetime.now()
    assert render_chat(template, chat, now=today) == theirs.apply_chat_template(chat, tokenize=False)
