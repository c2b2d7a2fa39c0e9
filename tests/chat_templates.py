"""Chat templates of several families, in our own words, and a small tokenizer that has their tokens.

``{% generation %}`` marks what an answer is, for transformers; our own code does not read it.
"""

from tokenizers.pre_tokenizers import ByteLevel

from lora_np.data import gguf_tokenizer_files

ANSWER = "{% generation %}{{ m['content'] + '<|im_end|>' }}{% endgeneration %}"
TEMPLATES = {
    "ChatML": (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' }}{% if m['role'] == 'assistant' %}"
        + ANSWER
        + "{{ '\\n' }}"
        "{% else %}{{ m['content'] + '<|im_end|>\\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    ),
    "ChatML with a system default, over many lines": """
{%- if messages and messages[0].role == 'system' %}
    {%- set system, rest = messages[0].content, messages[1:] %}
{%- else %}
    {%- set system, rest = 'You are "helpful".', messages %}
{%- endif %}
{{- '<|im_start|>system\\n' ~ (system | tojson) ~ '<|im_end|>\\n' }}
{%- for m in rest %}
    {%- if m.role not in ('user', 'assistant') %}
        {%- continue %}
    {%- endif %}
<|im_start|>{{ m.role }}
    {% if m.role == 'assistant' %}
{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}

    {% else %}
{{ m.content }}<|im_end|>
    {% endif %}
{%- endfor %}
{% if add_generation_prompt %}
<|im_start|>assistant
{% endif %}""",
    "Llama 2": (
        "{% set ns = namespace(system='') %}{% for m in messages %}"
        "{% if m.role == 'system' %}{% set ns.system = '<<SYS>>\\n' + m.content + '\\n<</SYS>>\\n\\n' %}"
        "{% elif m.role == 'user' %}{{ bos_token + '[INST] ' + ns.system + m.content | trim + ' [/INST]' }}"
        "{% set ns.system = '' %}"
        "{% else %}{% if loop.first %}{{ raise_exception('begin with the user') }}{% endif %}"
        "{% generation %}{{ ' ' + m.content | trim + ' ' + eos_token }}{% endgeneration %}{% endif %}{% endfor %}"
    ),
    "Llama 3, which strips": (
        "{{ bos_token }}{% for m in messages %}{{ '<|header|>' + m['role'] + '<|/header|>\\n\\n' }}"
        "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'].strip() }}<|eot|>{% endgeneration %}"
        "{% else %}{{ m['content'].strip() }}<|eot|>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|header|>assistant<|/header|>\\n\\n' }}{% endif %}"
    ),
    "no token ends an answer": (
        "{% for m in messages %}{% if m.role == 'assistant' %}### Answer: {% generation %}{{ m.content }}\\n\\n"
        "{% endgeneration %}{% else %}### {{ m.role }}: {{ m.content }}\\n\\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}### Answer: {% endif %}"
    ).replace("\\n", "\n"),
}
CONVERSATIONS = [
    [("user", "Hi, it's 12 o'clock"), ("assistant", "Hello!")],
    [("system", "Be brief."), ("user", " two\n lines "), ("assistant", " yes \n"), ("user", "日本 🙂")]
    + [("assistant", "🙂 é\n\nno")],
    [("user", "a\n"), ("assistant", "<s> is a token"), ("user", "and?")],
]
CONVERSATIONS = [[{"role": role, "content": text} for role, text in chat] for chat in CONVERSATIONS]
LETTERS = sorted(ByteLevel.alphabet())  # which byte-level BPE writes for the 256 bytes
SPECIAL = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|header|>", "<|/header|>", "<|eot|>"]


def metadata(**changes):
    """Fields of a GGUF file with these tokens, all bytes, and a few merges; of `changes`, None removes a field."""
    merges = ["Ġ y", "e s", "Ġy es", "Ċ Ċ", "h e", "l l", "he ll", "hell o", ". Ċ", "1 2", "l o"]
    tokens = [*SPECIAL, *LETTERS, *(merge.replace(" ", "") for merge in merges)]
    tokens = changes.get("tokens") or tokens
    fields = {"model": "gpt2", "pre": "smollm", "tokens": tokens, "merges": merges}
    fields |= {"token_type": [2] + [3] * (len(SPECIAL) - 1) + [1] * (len(tokens) - len(SPECIAL))}
    fields |= {"unknown_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "padding_token_id": 2}
    fields = {f"tokenizer.ggml.{name}": value for name, value in (fields | changes).items()}
    return {name: value for name, value in fields.items() if value is not None}


def write_tokenizer(folder, template=None, **changes):
    """Write the files of such a tokenizer into a folder."""
    for name, content in gguf_tokenizer_files(metadata(**changes)).items():
        (folder / name).write_bytes(content)
    if template:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8", newline="")
