"""Generation with kept keys and values, against the whole model run anew for every token; and how tokens are drawn."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from lora_np.adapters import KINDS
from lora_np.model import Sampling, empty_cache, forward, generate, make_decoder, next_logits, next_probabilities
from lora_np.model.sampling import draw

from .tiny import LLAMA, tiny_config, tiny_llama

LANGUAGES = {
    "GPT-2": tiny_config(),
    "H/K = 1": tiny_llama(n_heads=2, **LLAMA),
    "H/K = 2": tiny_llama(n_heads=4, tied=False, **LLAMA),
    "H/K = 3": tiny_llama(tied=False, **LLAMA),
}
PROMPTS = np.array([[3, 1, 4], [1, 5, 9], [2, 6, 5]])


@pytest.fixture(params=LANGUAGES.values(), ids=LANGUAGES)
def language(request):
    return request.param


def greedy_text(params, config, n_new, adapter=None):
    """PROMPTS continued by whole passes; a full table of positions goes on from its last half."""
    text, start = PROMPTS, 0
    for _ in range(n_new):
        if text.shape[1] - start > config.n_positions:
            start = text.shape[1] - config.n_positions // 2
        logits, _ = forward(params, text[:, start:], config, adapter=adapter)
        text = np.concatenate([text, logits[:, -1].argmax(axis=-1)[:, None]], axis=1)
    return text


@pytest.mark.parametrize("dtype, tolerance", [(np.float64, 1e-12), (np.float32, 3e-6)])
@pytest.mark.parametrize("kind", [None, *KINDS])
def test_logits_with_a_past_are_those_without(language, random_params, random_adapter, dtype, tolerance, kind):
    """Whatever the pieces in which a text is read: all at once, token by token, or in between."""
    params = random_params(language, dtype)
    adapter = kind and random_adapter(params, kind=kind)
    ids = np.random.default_rng(0).integers(0, language.vocab_size, (3, 7))
    expected, _ = forward(params, ids, language, adapter=adapter)
    decoder = make_decoder(params, language, adapter)
    for cuts in [(7,), (1,) * 7, (3, 1, 2, 1), (2, 5)]:
        past, end = empty_cache(decoder, 3), 0
        for n in cuts:
            logits, past = next_logits(decoder, ids[:, end : end + n], past)
            end += n
            assert past.length == end and logits.dtype == dtype and logits.shape == (3, language.vocab_size)
            np.testing.assert_allclose(logits, expected[:, end - 1], rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("adapted", [False, True])
def test_greedy_tokens_are_those_of_the_whole_model(language, random_params, random_adapter, adapted):
    params = random_params(language)
    adapter = random_adapter(params) if adapted else None
    text = generate(params, PROMPTS, language, 4, adapter)
    assert text.dtype == PROMPTS.dtype and text.tolist() == greedy_text(params, language, 4, adapter).tolist()
    assert len({tuple(row) for row in text[:, 3:].tolist()}) > 1  # or else nothing depends on the prompt


def test_a_prompt_of_a_narrow_type(language, random_params):
    """The tokens that come may be larger than it can hold."""
    wide = replace(language, vocab_size=1000)
    params = random_params(wide)
    text = generate(params, PROMPTS.astype(np.uint8), wide, 4)
    assert text.dtype == np.int64 and text.max() > 255
    assert text.tolist() == generate(params, PROMPTS, wide, 4).tolist()


# ---------------------------------------------------------------- drawing tokens


LOGITS = np.log(np.array([[0.1, 0.4, 0.2, 0.05, 0.25], [0.6, 0.1, 0.1, 0.1, 0.1]]))  # (2, 5)
SEEN = np.array([[1, 1], [3, 0]])
CHOICES = {
    "temperature": [0.0, 0.5, 1.0, 1.7],
    "top_k": [None, 1, 2, 4, 99],
    "top_p": [None, 0.2, 0.5, 0.9, 1.0],
    "repetition_penalty": [1.0, 0.5, 2.0, 8.0],
}


def defined_probabilities(logits, seen, settings):
    """One row of `next_probabilities` by the definitions, one step after the other."""
    scores = logits.copy()
    for i in set(seen):  # once for a token that was seen twice
        scores[i] *= settings.repetition_penalty ** (-1 if scores[i] > 0 else 1)
    if settings.temperature == 0:
        return np.eye(len(scores))[scores.argmax()]
    scores /= settings.temperature
    if settings.top_k is not None and settings.top_k < len(scores):  # equal ones stay
        scores[scores < np.sort(scores)[-settings.top_k]] = -np.inf
    probabilities = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
    if settings.top_p is not None and settings.top_p < 1:  # the fewest that add up to p
        order = np.argsort(-probabilities)
        probabilities[order[1 + np.sum(np.cumsum(probabilities[order]) < settings.top_p) :]] = 0
    return probabilities / probabilities.sum()


@pytest.mark.parametrize("seed", range(200))
def test_probabilities_are_as_defined(seed):
    """For any settings together; without top p, some logits are equal. Logits and their type stay as they are."""
    rng = np.random.default_rng(seed)
    chosen = {name: values[rng.integers(len(values))] for name, values in CHOICES.items()}
    settings = Sampling(**{name: value if value is None else np.array(value)[()] for name, value in chosen.items()})
    logits, seen = 2 * rng.standard_normal((3, 9)), rng.integers(0, 9, (3, 4))
    logits = logits if settings.top_p else np.round(logits)
    for dtype, tolerance in ((np.float64, 1e-12), (np.float32, 1e-5)):
        given = logits.astype(dtype)
        probabilities = next_probabilities(given, seen, settings)
        assert probabilities.dtype == dtype and np.array_equal(given, logits.astype(dtype))
        expected = [defined_probabilities(*row, settings) for row in zip(given, seen)]
        np.testing.assert_allclose(probabilities, expected, rtol=tolerance, atol=tolerance / 100)


def test_draws_follow_their_probabilities():
    probs = np.repeat(next_probabilities(LOGITS, SEEN, Sampling(top_p=0.66))[:1], 20_000, axis=0)
    drawn = np.bincount(draw(probs, np.random.default_rng(0)), minlength=5) / 20_000
    np.testing.assert_allclose(drawn, probs[0], atol=0.01)
    assert drawn[0] == drawn[3] == 0  # what was cut is never drawn


@pytest.mark.parametrize("edge, drawn", [(0.0, 1), (np.nextafter(1.0, 0.0), 2)])
def test_the_ends_of_a_draw(edge, drawn):
    """Neither the least number nor the greatest that a generator gives draws a token of probability 0."""
    probs = np.array([[0.0, 0.3, 0.7, 0.0]], dtype=np.float32)
    assert draw(probs, SimpleNamespace(random=lambda n: np.full(n, edge))).tolist() == [drawn]


def test_a_sample_depends_on_its_generator_alone(language, random_params):
    params = random_params(language)
    settings = {"sampling": Sampling(temperature=1.5)}
    texts = [generate(params, PROMPTS, language, 4, **settings, rng=np.random.default_rng(s)) for s in (0, 0, 1)]
    assert texts[0].tolist() == texts[1].tolist() != texts[2].tolist()


def test_a_stop_token_ends_its_row(language, random_params):
    """The other rows go on; when all have ended the text does."""
    params = random_params(language)
    whole = generate(params, PROMPTS, language, 4)
    stop = int(whole[0, 4])  # the first row's second new token, which may be its first too
    end = 4 + whole[0, 3:].tolist().index(stop)
    text = generate(params, PROMPTS, language, 4, stop=(stop,))
    assert text[0, :end].tolist() == whole[0, :end].tolist() and set(text[0, end - 1 :].tolist()) == {stop}
    for row in (1, 2):
        n = 3 + [*whole[row, 3:].tolist(), stop].index(stop)
        assert text[row, : n + 1].tolist() == whole[row, : n + 1].tolist()
    for stops in ((stop,), stop):  # one needs no tuple
        assert generate(params, PROMPTS[:1], language, 4, stop=stops).tolist() == [whole[0, :end].tolist()]


def test_rows_with_adapters_of_their_own(language, random_params, random_adapter):
    params = random_params(language)
    adapters = [random_adapter(params, 1), None, random_adapter(params, 2, targets=("q_proj",))]
    text = generate(params, PROMPTS, language, 4, adapters)
    for row, adapter in enumerate(adapters):
        assert generate(params, PROMPTS[row : row + 1], language, 4, adapter).tolist() == [text[row].tolist()]
    assert text.tolist() != generate(params, PROMPTS, language, 4).tolist()


def test_a_text_longer_than_the_position_table_slides(language, random_params):
    """A full table goes on from its last half, a long prompt from its last n_positions tokens."""
    params = random_params(language)  # 7 positions
    text = generate(params, PROMPTS, language, 12, slide=True)
    assert text[:, :7].tolist() == generate(params, PROMPTS, language, 4).tolist()
    assert text.tolist() == greedy_text(params, language, 12).tolist()
    long = np.random.default_rng(0).integers(0, 13, (2, 20))
    longer = generate(params, long, language, 1, slide=True)
    assert longer[:, :20].tolist() == long.tolist()
    assert longer[:, 20:].tolist() == generate(params, long[:, -7:], language, 1, slide=True)[:, 7:].tolist()


@pytest.mark.parametrize("temperature", [1e-300, 1e-40, 1e-3])
def test_the_colder_the_greedier(temperature):
    """Down to where dividing by the temperature overflows."""
    for dtype in (np.float64, np.float32):
        probs = next_probabilities((1000 * LOGITS).astype(dtype), SEEN, Sampling(temperature=temperature))
        assert probs.tolist() == [[0, 1, 0, 0, 0], [1, 0, 0, 0, 0]]


def test_top_p_of_one_is_off():
    """Whatever the sum of many small probabilities rounds to."""
    logits = np.random.default_rng(147).normal(size=(1, 8000)).astype(np.float32) * 3
    assert (next_probabilities(logits, SEEN[:1], Sampling(top_p=1.0)) > 0).all()
