"""How much texts have in common: words for words, and without a model.

What compares texts needs `moa-graph[strategies]` (scikit-learn), or embeddings of your own.
"""

from __future__ import annotations

import importlib.util
import math
import re
import unicodedata
from collections import defaultdict
from collections.abc import Hashable, Sequence
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
"""Signs of scripts that write words without spaces between them."""
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
_ANSWERS = {"no", "not", "yes"}  # stop words elsewhere; here they may be the whole answer
_ENDINGS = ("ingly", "edly", "ing", "ies", "ied", "es", "ed", "ly", "s")
_SHORTEST_STEM = 4
_AFTER = re.compile(r"(?:the\s+)?(?:final\s+)?answer\s*(?:is|:)\s*", re.IGNORECASE)

_AROUND = " ,;:!?*_`\"'“”‘’$"
_DECIMAL = re.compile(r"\.\d")
_VULGAR = re.compile(r"(\d)([¼-¾⅐-⅞↉])")  # a mixed number: its parts must stay apart
_BRACKETS = ("()", "[]", "{}")

Matrix = list[list[float]]
"""Similarities from 0 (nothing in common) to 1 (the same), a row and a column for each text."""


def is_installed() -> bool:
    """Return whether texts can be compared here without embeddings."""
    return importlib.util.find_spec("sklearn") is not None


async def similarities(
    texts: Sequence[str], question: str = "", embeddings: Embeddings | str | None = None
) -> Matrix:
    """Return how similar each text is to each.

    Args:
        texts: The texts.
        question: What they answer. Its words say nothing about who agrees with whom.
        embeddings: Compares meanings instead of words; called once. `"provider:model"` is built
            as LangChain's `init_embeddings` does.

    Returns:
        Cosine similarities, from 0 to 1; texts that are equal but for case and spaces have 1.
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
    """Term frequencies, without the inverse ones of documents: among a few answers to one
    question, what most of them say is what they agree on, and no noise.
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
    """The words that say something: neither the question's own, nor such as "the" and "of"."""
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
    """The words of a text in their simplest form; of scripts without spaces, pairs of signs."""
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
    """Return a word without its English ending, where enough of it is left."""
    word = word.replace("’", "'").removesuffix("'s")
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= _SHORTEST_STEM:
            return word[: -len(ending)]
    return word


def normalize(text: str) -> str:
    """Return an answer without what does not count: case, spaces, punctuation around it, `Answer:`.

    Args:
        text: An answer, such as `"The answer is: **42**."`.

    Returns:
        Such as `"42"`. Two short answers are the same if this is. A number is written in one way,
        whether it was `"1,234.50"`, `"1.234,5"` or `"2469/2"`.
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
    """Return how similar each text is to the others, in the mean; 1 where there are no others."""
    others = len(matrix) - 1
    return [(sum(row) - row[i]) / others if others else 1.0 for i, row in enumerate(matrix)]


def most_central(matrix: Matrix) -> int:
    """Return which text has most in common with the others; the first of several."""
    scores = centrality(matrix)
    return max(range(len(scores)), key=lambda i: (round(scores[i], 9), -i))


def majority(
    answers: Sequence[Hashable], weights: Sequence[float] | None = None
) -> tuple[list[int], int]:
    """Return which texts give the most frequent answer.

    Args:
        answers: An answer for each text, in the form in which equal ones are the same.
        weights: What each text's vote counts; 1 by default.

    Returns:
        The places of those texts, of the first such answer, and how many answers are as frequent.
    """
    groups = most_frequent(answers, weights)
    return groups[0], len(groups)


def most_frequent(
    answers: Sequence[Hashable], weights: Sequence[float] | None = None
) -> list[list[int]]:
    """The places of the texts that give the most frequent answer; of every one that is as frequent.

    Args:
        answers: As for `majority`, at least one.
        weights: As for `majority`.

    Returns:
        A list of places for each such answer, in the order in which they first appear.
    """
    votes: defaultdict[Hashable, float] = defaultdict(float)
    places: defaultdict[Hashable, list[int]] = defaultdict(list)
    for i, answer in enumerate(answers):
        votes[answer] += 1 if weights is None else weights[i]
        places[answer].append(i)
    most = max(votes.values())
    return [places[answer] for answer in votes if math.isclose(votes[answer], most, abs_tol=1e-9)]
