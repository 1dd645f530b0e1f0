"""Value objects whose errors are for people: the argument, the value, the rule, the fix."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from typing import Any, ParamSpec, TypeVar, dataclass_transform

from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

T = TypeVar("T")
P = ParamSpec("P")

_SHOWN = 80  # characters of a value in an error
_WRONG_TYPES = ("_type", "is_instance_of", "_parsing", "int_from_float", "callable_type")
_RULES = {
    "greater_than_equal": "must be at least {ge:g}",
    "greater_than": "must be above {gt:g}",
    "less_than_equal": "must be at most {le:g}",
    "less_than": "must be below {lt:g}",
    "finite_number": "must be finite",
    "int_type": "must be an integer",
    "int_from_float": "must be an integer",
    "float_type": "must be a number",
    "string_type": "must be a string",
    "bool_type": "must be True or False",
    "mapping_type": "must be a mapping",
    "dict_type": "must be a mapping",
    "literal_error": "must be {expected}",
}


@dataclass_transform(frozen_default=True, field_specifiers=(Field,))
def value_object(cls: type[T]) -> type[T]:
    """Make a class a frozen pydantic dataclass that raises `TypeError` and `ValueError`.

    A value of the wrong type is a `TypeError`, a wrong value a `ValueError`, and an argument that
    does not exist a `TypeError` that names the nearest one.
    """
    config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")
    made: Any = dataclass(cls, frozen=True, config=config, repr=False)
    validate = made.__init__

    @wraps(validate)
    def initialize(self: Any, *args: Any, **kwargs: Any) -> None:
        check_names(made, args, kwargs)
        try:
            validate(self, *args, **kwargs)
        except ValidationError as error:
            raise for_people(error, made.__name__, list(made.__pydantic_fields__)) from None

    made.__init__ = initialize
    made.__repr__ = represented
    return made  # type: ignore[no-any-return]


def represented(value: Any) -> str:
    """A value object as code: its arguments that are not the defaults."""
    fields = type(value).__dataclass_fields__
    shown = {name: given for name, given in arguments_of(value).items() if fields[name].repr}
    return represented_as(type(value).__name__, shown)


def arguments_of(value: Any) -> dict[str, Any]:
    """The arguments of a value object that are not the defaults."""
    given = {}
    for name, field in type(value).__pydantic_fields__.items():
        own = getattr(value, name)
        is_default = not field.is_required() and own == field.get_default(call_default_factory=True)
        if field.init is not False and not is_default:
            given[name] = own
    return given


def represented_as(name: str, given: Mapping[str, Any]) -> str:
    """A call as code; of models only what should be printed."""
    return f"{name}({', '.join(f'{key}={_short(value)}' for key, value in given.items())})"


def _short(value: Any) -> str:
    if isinstance(value, str | int | float | None | bool | Mapping):
        return _cut(repr(value))
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_short, value))}]"
    if hasattr(type(value), "__dataclass_fields__") or hasattr(value, "given"):
        return repr(value)
    if inspect.isfunction(value):
        return str(value.__name__)
    return type(value).__name__  # a model may hold more than should be printed


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def for_people(
    error: ValidationError, name: str, fields: Sequence[str] = ()
) -> TypeError | ValueError:
    """What is wrong with which argument, as `TypeError` or `ValueError`.

    Args:
        error: What pydantic raised.
        name: What the arguments belong to, such as `"Layer"`.
        fields: Their names, in the order in which they may be given by position.
    """
    problems = error.errors(include_url=False)
    first = problems[0]
    kind = TypeError if first["type"].endswith(_WRONG_TYPES) else ValueError
    return kind("; ".join(dict.fromkeys(_problem(p, name, fields) for p in problems)) + ".")


def _problem(problem: Any, name: str, fields: Sequence[str]) -> str:
    said = problem["msg"].removeprefix("Value error, ").rstrip(".")
    if problem["type"] == "value_error":
        return str(said)
    context = problem.get("ctx") or {}
    rule = _RULES.get(problem["type"])
    said = rule.format(**context) if rule else said.replace("Input should be", "must be")
    argument, *rest = problem["loc"] or ("",)
    if isinstance(argument, int):
        argument = fields[argument]
    if argument == "params":  # a key may be in it
        return f"{name}(params=…) {said}"
    place = "".join(f"[{step!r}]" for step in rest if "[" not in str(step))
    return f"{name}({argument}{place}={_short(problem['input'])}) {said}"


def check_names(
    made: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], name: str = ""
) -> None:
    """Refuse arguments that do not exist, with the nearest that do.

    Args:
        made: What is called with them.
        args: The arguments by position.
        kwargs: Those by name.
        name: What the error calls it; by default its own name.

    Raises:
        TypeError: If one does not exist.
    """
    parameters = inspect.signature(made).parameters
    for given in kwargs:
        if given not in parameters:
            known = ", ".join(name for name in parameters if name != "self")
            raise TypeError(
                f"{name or made.__name__}() has no argument {given!r}."
                f"{nearest(given, parameters)} Arguments are: {known}."
            )
    del args  # Python's own error says what is wrong with their number


def names_checked(function: Callable[P, T]) -> Callable[P, T]:
    """The function, which names the nearest argument where one does not exist."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        check_names(function, args, kwargs)
        return function(*args, **kwargs)

    return call


def what_is_wrong(error: ValidationError, schema: type, entries: Mapping[str, type]) -> str:
    """What is wrong with which field, without the values: a key may be among them.

    Args:
        error: What pydantic raised.
        schema: What it validated for.
        entries: What stands in fields that have fields of their own, by the field's name.
    """
    problems: dict[str, str] = {}
    unknown: list[str] = []
    names = {"str", "int", *(entry.__name__ for entry in entries.values())}
    for detail in error.errors(include_input=False, include_url=False):
        # Of a field with alternatives pydantic reports each; the field is what matters.
        steps = [s for s in detail["loc"] if not (isinstance(s, str) and (s in names or "[" in s))]
        place = "".join(f"[{s}]" if isinstance(s, int) else f".{s}" for s in steps).lstrip(".")
        if detail["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            entry = entries.get(str(steps[0]), schema) if len(steps) > 1 else schema
            fields = list(inspect.signature(entry).parameters)
            near = nearest(str(steps[-1]), fields)
            unknown.append(f"unknown field {place!r}.{near} Fields are: {', '.join(fields)}")
        elif place not in problems or detail["type"] == "value_error":
            said = detail["msg"].removeprefix("Value error, ")
            # A sentence of ours says most.
            problems[place] = f"{place}: {said}" if place else said
    return "; ".join(dict.fromkeys(unknown) or problems.values()).rstrip(".") + "."


def nearest(word: str, words: Iterable[str], likeness: float = 0.5) -> str:
    """A question whether the nearest of these words was meant; empty if none is near.

    Args:
        word: What was written.
        words: What there is.
        likeness: From which ratio of equal letters on a word is near, from 0 to 1.
    """
    close = difflib.get_close_matches(word, list(words), n=1, cutoff=likeness)
    return f" Did you mean {close[0]!r}?" if close else ""
