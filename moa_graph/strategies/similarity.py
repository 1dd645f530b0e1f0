"""Similarity of texts, by shared words or by embeddings.

Comparing words needs scikit-learn: `moa-graph[strategies]`.
"""

from __future__ import annotations

import importlib.util
import math
import re
import unicodedata
from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from moa_graph.calling import sync
from moa_graph.strategies.numerals import exact_number

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings

INSTALL = "pip install 'moa-graph[strategies]'"

_WORD = re.compile(r"\d+(?:[.,:/]\d+)*|[^\W\d_]+(?:['’][^\W\d_]+)?")
WITHOUT_SPACES = re.compile(
    r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u0e00-\u0e7f\U00020000-\U0002ffff]+"
)
"""Characters of scripts that have no spaces between words."""
_NUMBERS = {
    word: str(number)
    for number, word in enumerate(
        [
            "zero",
            "one",
            "two",
            "three",
            "four",
            "five",
            "six",
            "seven",
            "eight",
            "nine",
            "ten",
            "eleven",
            "twelve",
        ]
    )
}
_ANSWERS = {"no", "not", "yes"}  # scikit-learn stop words that may be the whole answer
_ENDINGS = ("ingly", "edly", "ing", "ies", "ied", "es", "ed", "ly", "s")
_SHORTEST_STEM = 4
_AFTER = re.compile(r"(?:the\s+)?(?:final\s+)?answer\s*(?:is|:)\s*", re.IGNORECASE)

_AROUND = " ,;:!?*_`\"'“”‘’$"
_DECIMAL = re.compile(r"\.\d")
_VULGAR = re.compile(r"(\d)([¼-¾⅐-⅞↉])")  # a mixed number: keep its parts separate
_BRACKETS = ("()", "[]", "{}")

Matrix = list[list[float]]
"""Similarities from 0 (nothing in common) to 1 (the same), with one row and column per text."""


def is_installed() -> bool:
    """Return whether scikit-learn is installed, so texts can be compared without embeddings."""
    return importlib.util.find_spec("sklearn") is not None


_noted: ContextVar[list[str] | None] = ContextVar("moa_compares_words", default=None)


@contextmanager
def noting() -> Iterator[list[str]]:
    """Return a list. Strategies that compare words and are made meanwhile are added to it."""
    noted: list[str] = []
    token = _noted.set(noted)
    try:
        yield noted
    finally:
        _noted.reset(token)


def note(what: str) -> None:
    """Note that a strategy compares words."""
    noted = _noted.get()
    if noted is not None:
        noted.append(what)


def prepare() -> None:
    """Import scikit-learn, which takes longer than to compare texts."""
    _by_words(["one word", "another word"], "")


async def similarities(
    texts: Sequence[str], question: str = "", embeddings: Embeddings | str | None = None
) -> Matrix:
    """Return the similarity of each pair of texts.

    Args:
        texts: The texts.
        question: Question that the texts answer. Its words are ignored in the comparison.
        embeddings: Embeddings that compare meaning instead of words, called once. A string
            `"provider:model"` is passed to LangChain's `init_embeddings`.

    Returns:
        Cosine similarities from 0 to 1. Texts that are equal after `normalize` have 1.
    """
    if isinstance(embeddings, str):
        embeddings = await sync.in_thread(_embeddings_of, embeddings)
    if embeddings is not None:
        vectors = await embeddings.aembed_documents(list(texts))
        return await sync.in_thread(_cosines, texts, vectors)
    return await sync.in_thread(_by_words, texts, question)


@lru_cache(maxsize=32)
def _embeddings_of(name: str) -> Embeddings:
    from langchain.embeddings import init_embeddings  # noqa: PLC0415 - imports providers

    return init_embeddings(name)


def _by_words(texts: Sequence[str], question: str) -> Matrix:
    """Return similarities by term frequency, without inverse document frequency.

    Inverse document frequency would give a low weight to the words that most answers share.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: PLC0415 - optional

    told = [telling_words(text, question) for text in texts]
    if not any(told):
        return _cosines(texts, [[0.0]] * len(texts))
    vectorizer = TfidfVectorizer(analyzer=_as_it_is, use_idf=False, sublinear_tf=True)
    return _cosines(texts, vectorizer.fit_transform(told))


def _as_it_is(words_of_text: list[str]) -> list[str]:
    return words_of_text


def telling_words(text: str, question: str = "") -> list[str]:
    """Return the words of a text without stop words and the words of the question."""
    asked = set(words(question))
    dull = (_stop_words() | asked) - (_ANSWERS | (set(_NUMBERS.values()) - asked))
    said = words(text)
    return [word for word in said if word not in dull] or said


@cache
def _stop_words() -> frozenset[str]:
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS  # noqa: PLC0415 - optional

    return frozenset(stem(word) for word in ENGLISH_STOP_WORDS)


def _cosines(texts: Sequence[str], vectors: Any) -> Matrix:
    from sklearn.metrics.pairwise import cosine_similarity  # noqa: PLC0415

    matrix = cosine_similarity(vectors)
    same = [normalize(text) for text in texts]
    return [
        [
            1.0 if same[i] == same[j] else float(min(1.0, max(0.0, matrix[i][j])))
            for j in range(len(texts))
        ]
        for i in range(len(texts))
    ]


def words(text: str) -> list[str]:
    """Return the stems of the words; pairs of characters for scripts without spaces."""
    text = unicodedata.normalize("NFKC", text).casefold()
    found: list[str] = []
    for word in _WORD.findall(text):
        if run := WITHOUT_SPACES.search(word):
            signs = run[0]
            found += [signs[i : i + 2] for i in range(max(1, len(signs) - 1))]
        else:
            found.append(_NUMBERS.get(word) or stem(word))
    return found


def stem(word: str) -> str:
    """Return a word without its English ending, if the rest is long enough."""
    word = word.replace("’", "'").removesuffix("'s")
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= _SHORTEST_STEM:
            return word[: -len(ending)]
    return word


def normalize(text: str) -> str:
    """Normalize an answer: remove case, extra spaces, outer punctuation and `Answer:`.

    Args:
        text: An answer, such as `"The answer is: **42**."`.

    Returns:
        The normalized answer, such as `"42"`. Two short answers are the same if their normalized
        forms are equal. `"1,234.50"`, `"1.234,5"` and `"2469/2"` have the same form.
    """
    short = _shortened(text)
    number = exact_number(short)
    return short if number is None else str(number)


def _shortened(text: str) -> str:
    text = _VULGAR.sub(r"\1 \2", text)
    text = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    if found := list(_AFTER.finditer(text)):
        text = text[found[-1].end() :] or text
    text = text.strip(_AROUND).rstrip("." + _AROUND)
    text = text if _DECIMAL.match(text) else text.lstrip("." + _AROUND)
    inner = text[1:-1]
    if text[:1] + text[-1:] in _BRACKETS and not set(inner) & set("()[]{},"):
        return inner.strip(_AROUND)
    return text


def centrality(matrix: Matrix) -> list[float]:
    """Return the mean similarity of each text to the others; 1 if there are no others."""
    others = len(matrix) - 1
    return [(sum(row) - row[i]) / others if others else 1.0 for i, row in enumerate(matrix)]


def most_central(matrix: Matrix) -> int:
    """Return the position of the text most similar to the others; the first if there is a tie."""
    scores = centrality(matrix)
    return max(range(len(scores)), key=lambda i: (round(scores[i], 9), -i))


def majority(
    answers: Sequence[Hashable], weights: Sequence[float] | None = None
) -> tuple[list[int], int]:
    """Return the texts with the most frequent answer.

    Args:
        answers: Normalized answer of each text.
        weights: Weight of each text's vote; 1 by default.

    Returns:
        The positions of the texts with that answer, and the number of answers tied for the most
        votes. For a tie, the positions are those of the answer that appears first.
    """
    groups = most_frequent(answers, weights)
    return groups[0], len(groups)


def most_frequent(
    answers: Sequence[Hashable], weights: Sequence[float] | None = None
) -> list[list[int]]:
    """Return the texts with the most frequent answer, for each answer that is tied for first.

    Args:
        answers: See `majority`; at least one.
        weights: See `majority`.

    Returns:
        A list of positions for each of these answers, in order of first appearance.
    """
    votes: defaultdict[Hashable, float] = defaultdict(float)
    places: defaultdict[Hashable, list[int]] = defaultdict(list)
    for i, answer in enumerate(answers):
        votes[answer] += 1 if weights is None else weights[i]
        places[answer].append(i)
    most = max(votes.values())
    return [places[answer] for answer in votes if math.isclose(votes[answer], most, abs_tol=1e-9)]
