"""Validation of the arguments of strategies."""

from __future__ import annotations

from moa_graph.strategies.similarity import INSTALL, is_installed, note


def check_embeddings(what: str, embeddings: object) -> None:
    """Check that a value is None, LangChain embeddings or `"provider:model"`.

    Raises:
        TypeError: If it is not.
    """
    named = isinstance(embeddings, str) and ":" in embeddings
    if not (embeddings is None or named or hasattr(embeddings, "embed_documents")):
        raise TypeError(
            f"{what}(embeddings={embeddings!r}) must be LangChain embeddings, or "
            "'provider:model', such as 'openai:text-embedding-3-small'."
        )


def check_comparable(what: str, embeddings: object) -> None:
    """Check that texts can be compared, with scikit-learn or with embeddings.

    Raises:
        TypeError: If `embeddings` has the wrong type.
        ValueError: If scikit-learn is not installed and no embeddings are given.
    """
    check_embeddings(what, embeddings)
    if embeddings is None:
        if not is_installed():
            raise ValueError(f"{what} compares texts: run {INSTALL}, or give it embeddings=….")
        note(what)


def check_share(what: str, value: object) -> None:
    """Check that a value is a number above 0 and at most 1.

    Raises:
        TypeError: If it is not a number.
        ValueError: If it is out of range.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{what} must be a number such as 0.8, not {value!r}.")
    if not 0 < value <= 1:
        raise ValueError(f"{what} is {value}: it must be above 0 and at most 1.")


def check_whole(what: str, value: object, least: int = 1) -> None:
    """Check that a value is an integer of at least `least`.

    Raises:
        TypeError: If it is not an integer.
        ValueError: If it is less than `least`.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what} must be an integer, not {value!r}.")
    if value < least:
        raise ValueError(f"{what} is {value}: it must be at least {least}.")
