"""Parse numbers in prose, including separators of thousands, fractions and percentages."""

from __future__ import annotations

import math
import re
import unicodedata
from fractions import Fraction
from typing import NamedTuple

_SPACES = " \u00a0\u2009\u202f"
_VULGAR = "¼-¾⅐-⅞↉"
_SIMPLE = r"\d++(?:[.,]\d++)*+|\.\d++"
_GROUPED = rf"[1-9]\d{{0,2}}(?:[{_SPACES}'’_]\d{{3}})++(?![\d])(?:[.,]\d++)?+"
_FIGURES = rf"(?:(?<![\d][{_SPACES}]){_GROUPED}|{_SIMPLE})(?:[eE][+-]?\d++)?+"
_POWER_OF_TEN = r"(?:\s?[×x·*]\s?10\^\{?(?P<power>[+-]?\d{1,3})\}?)?+"
_PERCENT = r"(?:\s?(?P<percent>[%％‰]|per ?cent\b|pct\b|Prozent\b|pour cent\b|por ciento\b))?+"
_SCALE = (
    r"(?:\s?(?P<words>thousand|million|billion|trillion|bn)\b"
    r"|(?P<letter>(?-i:[kKMB]))(?!\w))?+"
)
_SCALES = {
    "k": 1e3, "thousand": 1e3, "m": 1e6, "million": 1e6, "b": 1e9, "bn": 1e9, "billion": 1e9,
    "trillion": 1e12,
}  # fmt: skip
_FRAC = re.compile(r"\\d?t?frac\s*\{\s*(-?[\d.,]+)\s*\}\s*\{\s*([\d.,]+)\s*\}")  # LaTeX
_NUMBER = re.compile(  # excludes parts of times of day, powers and words
    rf"(?<![\w.,])(?<!\d[:^/])(?<!\d\*\*)(?P<sign>-)?(?:(?P<whole>\d+)[{_SPACES}](?=\d+/\d))?"
    rf"(?P<above>{_FIGURES})(?:\s?/\s?(?P<below>{_FIGURES}))?+"
    rf"{_POWER_OF_TEN}{_SCALE}{_PERCENT}(?![:^]\d|\*\*\d|/\d)"
    r"|(?<=[A-Za-z])(?P<attached>\d+(?:\.\d+)?)",
    re.IGNORECASE,
)
_CURRENCY = "$€£¥₹₽₩ "
_COMMA_DECIMALS = re.compile(  # words of languages with decimal commas: German, French, …
    r"\b(?:der|die|das|und|ist|sind|nicht|ergibt|antwort|beträgt|ungefähr"
    r"|le|les|est|sont|réponse|vaut|environ|el|los|es|son|respuesta|aproximadamente"
    r"|il|gli|è|sono|risposta|circa|os|são|resposta|het|een|niet|antwoord|ongeveer"
    r"|jest|odpowiedź|это|ответ)\b",
    re.IGNORECASE,
)
_ENGLISH = re.compile(
    r"\b(?:the|is|are|was|and|of|answer|result|final|so|it|he|she|they|we|you|there|equals|total|sum"
    r"|in|on|at|to|per|for|with|that|this|has|have|had|get|gets|each|from|left)\b|[$£]",
    re.IGNORECASE,
)
_GROUP = 3  # digits between separators of thousands
_LONGEST = 40  # maximum length of a number that is parsed exactly


class _Convention(NamedTuple):
    """Number format of a text: its decimal separators."""

    decimal: frozenset[str]
    english: bool
    """Whether the words and signs of the text indicate English."""


def last_number(text: str, *, english: bool = False) -> float | None:
    """Return the last number in a text.

    Args:
        english: Whether a number such as 1,234 is parsed in the English format when the text does
            not show which format it uses.
        text: A text such as `"2 + 3 = 5."`, `"It is 3/4."`, `"1.234,5"`, `"1 234"`, `"½"`,
            `"1e3"` or `"50 %"`. Times of day and powers are not numbers.

    Returns:
        For these examples 5.0, 0.75, 1234.5, 1234.0, 0.5, 1000.0 and 0.5. None if there is no
        number, or if a separator may be for thousands or for decimals.
    """
    text = _written_out(text)
    found = list(_NUMBER.finditer(text))
    if not found:
        return None
    return _value(found[-1], _convention(text, english=english))


def exact_number(text: str) -> Fraction | None:
    """Return the exact value of a text that is only a number, with or without a currency sign.

    Args:
        text: See `last_number`.

    Returns:
        The exact value. None if the text has anything else, if its separator is ambiguous, if it
        has more than 40 characters, or if it begins with a zero followed by a digit.
    """
    text = _written_out(text).strip(_CURRENCY)
    match = _NUMBER.fullmatch(text)
    if match is None or match["attached"] or len(text) > _LONGEST:
        return None
    if re.match(r"-?0\d", text):
        return None
    return _fraction(match, _convention(text))


def _written_out(text: str) -> str:
    """Return the text with Unicode and LaTeX fractions, signs and digits as plain ASCII."""
    text = re.sub(rf"(\d)([{_VULGAR}])", r"\1 \2", text)
    folded = "".join(
        unicodedata.normalize("NFKC", c) if c not in _SPACES and not c.isascii() else c
        for c in text
    )
    folded = _FRAC.sub(r"\1/\2", folded.replace("−", "-").replace("⁄", "/"))
    return re.sub(r"(?<![\w\s])–(?=\d)|(?<!\S)–(?=\d)", "-", folded)


def _value(match: re.Match[str], convention: _Convention) -> float | None:
    if attached := match["attached"]:
        return float(attached)
    try:
        above = _figures(match["above"], convention)
        below = "1" if match["below"] is None else _figures(match["below"], convention)
        if above is None or below is None or not float(below):
            return None
        value = float(match["whole"] or 0) + float(above) / float(below)
        value *= 10.0 ** int(match["power"] or 0)
    except OverflowError:
        return None
    value *= _scale(match) / _divisor(match)
    if not math.isfinite(value):
        return None
    return -value if match["sign"] else value


def _scale(match: re.Match[str]) -> float:
    return _SCALES.get((match["words"] or match["letter"] or "").lower(), 1.0)


def _fraction(match: re.Match[str], convention: _Convention) -> Fraction | None:
    above = _figures(match["above"], convention)
    below = "1" if match["below"] is None else _figures(match["below"], convention)
    exponents = [int(e) for e in re.findall(r"[eE]([+-]?\d+)", match[0])]
    if above is None or below is None or any(abs(e) > _LONGEST for e in exponents):
        return None
    if not Fraction(below):
        return None
    value = Fraction(match["whole"] or 0) + Fraction(above) / Fraction(below)
    value *= Fraction(10) ** int(match["power"] or 0)
    value = value * int(_scale(match)) / _divisor(match)
    return -value if match["sign"] else value


def _divisor(match: re.Match[str]) -> int:
    sign = match["percent"]
    return 1 if sign is None else 1000 if sign == "‰" else 100


def _figures(written: str, convention: _Convention) -> str | None:
    """Return a number with a decimal point and no thousands separators; None if ambiguous."""
    mantissa, e, exponent = written.partition("e") if "e" in written else written.partition("E")
    if re.match(r"\d{3} ", mantissa):
        return None  # 100 200 may be two numbers
    mantissa = re.sub(rf"[{_SPACES}'’_]", "", mantissa)
    decimal = _decimal_of(mantissa)
    if decimal == "?":
        decimal = _decided(mantissa, convention)
    if decimal is None:
        return None
    for separator in ".,":
        mantissa = mantissa.replace(separator, "." if separator == decimal else "")
    return mantissa + e + exponent


def _decimal_of(mantissa: str) -> str | None:
    """Return the decimal separator of a number.

    Returns:
        `"."` or `","`; `""` if there are no decimals, `"?"` if the rest of the text must decide,
        None if the digits are not a valid number.
    """
    separators = [c for c in mantissa if c in ".,"]
    if not separators:
        return ""
    last = separators[-1]
    groups = re.split(r"[.,]", mantissa)
    if len(set(separators)) > 1:
        thousands = mantissa.rpartition(last)[0]
        return last if last not in thousands and _is_grouped(re.split(r"[.,]", thousands)) else None
    if len(separators) > 1:
        return "" if _is_grouped(groups) else None
    before, after = groups
    return "?" if len(after) == _GROUP and re.fullmatch(r"[1-9]\d{0,2}", before) else last


def _is_grouped(groups: list[str]) -> bool:
    """Return whether digits are grouped by thousands, or by Indian lakhs and crores."""
    first, *others = groups
    if not re.fullmatch(r"[1-9]\d{0,2}", first) or not others or len(others[-1]) != _GROUP:
        return False
    return all(len(g) == _GROUP for g in others) or all(len(g) == 2 for g in others[:-1])  # noqa: PLR2004


def _decided(mantissa: str, convention: _Convention) -> str | None:
    """Return the decimal separator of a number such as 1.234, from the format of the text."""
    separator = "." if "." in mantissa else ","
    if len(convention.decimal) > 1:
        return None
    if convention.decimal:
        return separator if separator in convention.decimal else ""
    if not convention.english:
        return None
    return "." if separator == "." else ""


def _convention(text: str, *, english: bool = False) -> _Convention:
    """Return the number format of a text, from its unambiguous numbers."""
    decimal = set()
    for match in _NUMBER.finditer(text):
        for written in (match["above"], match["below"]):
            mantissa = re.split(r"[eE]", written or "")[0]
            plain = re.sub(rf"[{_SPACES}'’_]", "", mantissa)
            found = _decimal_of(plain)
            if found == "" and len(set(plain) & set(".,")) == 1:
                # The number has several groups of thousands, so the other character is decimal.
                decimal.add("," if "." in plain else ".")
            elif found == "?" and plain != mantissa:
                decimal.add("." if "." in plain else ",")
            elif found in (".", ","):
                decimal.add(found)
    others, own = len(_COMMA_DECIMALS.findall(text)), len(_ENGLISH.findall(text))
    return _Convention(frozenset(decimal), own > others or (english and own == others))
