"""Errors of runs, and argument checks with errors that name the argument and the fix."""

from __future__ import annotations

import difflib
import inspect
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, dataclass_transform

from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

if TYPE_CHECKING:
    from moa_graph.state import Proposal

_MAX_ERROR_LENGTH = 300
_SHORTEST_SECRET = 8
_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSWORD", re.IGNORECASE)
_SECRET_TEXT = re.compile(
    r"\b(?:sk|pk|rk|tgp|gsk|hf|xai|key|lsv2|AIza)[-_][\w*.-]{6,}|Bearer\s+\S+|\bAIza\w{10,}"
)


class MoAError(RuntimeError):
    """A Mixture-of-Agents run failed.

    This is a `RuntimeError` because LangGraph's server sends its text to clients.
    """


class _RunFailed(MoAError):
    """A failure with the proposals that the run had produced."""

    def __init__(self, message: str, proposals: Sequence[Proposal] = ()) -> None:
        super().__init__(message)
        self.proposals: list[Proposal] = list(proposals)
        """Every proposal of the turn, including failed ones."""

    def __reduce__(self) -> tuple[type[_RunFailed], tuple[str, list[Proposal]]]:
        return type(self), (str(self), self.proposals)


class NotEnoughProposals(_RunFailed):
    """A layer ended with fewer usable proposals than `min_proposals`.

    Raised before the next layer is called. `proposals` has all proposals of the turn.
    """


class AggregationFailed(_RunFailed):
    """The aggregator returned no answer.

    `proposals` has all proposals of the turn. With a checkpointer, invoking the same thread
    with `None` calls only the aggregator again.
    """


class AggregationRefused(AggregationFailed):
    """The aggregator's provider, or its client, rejected the run's `aggregator_options`."""


def explain(error: BaseException, secrets: Iterable[str] = ()) -> str:
    """Describe an error in one short line, without API keys.

    Args:
        error: The exception of a model or of the library that calls it.
        secrets: Strings to remove, such as the model's API keys. The values of environment
            variables with names like secrets are always removed.

    Returns:
        One line of at most about 300 characters.
    """
    if refused_credentials(error):
        # Providers quote (parts of) a rejected key, so their text is not used.
        return f"{type(error).__name__}: the provider refused the API key (check that it is valid)"
    text = " ".join(str(error).split())
    for secret in sorted({*secrets, *_environment_secrets()}, key=len, reverse=True):
        text = text.replace(secret, "***")
    text = _SECRET_TEXT.sub("***", text)
    if len(text) > _MAX_ERROR_LENGTH:
        text = text[:_MAX_ERROR_LENGTH].rstrip() + "…"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def refused_credentials(error: BaseException) -> bool:
    """Return whether the provider answered 401 or 403."""
    return status_of(error) in (401, 403)


def refused_request(error: BaseException) -> bool:
    """Return whether the provider (400, 422) or its client rejected the request as invalid."""
    return status_of(error) in (400, 422) or isinstance(error, ValueError | TypeError)


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status of the provider's response, also behind wrapped errors, or None."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        if (status := _own_status(cause)) is not None:
            return status
        seen.add(id(cause))
        cause = cause.__cause__
    return None


def _own_status(error: BaseException) -> int | None:
    if type(error).__module__ == "aiohttp.http_exceptions":
        return None  # its code is not a response's: the response could not be read
    response = getattr(error, "response", None)
    if isinstance(response, Mapping):  # botocore
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        status = getattr(error, "status_code", None) or getattr(response, "status_code", None)
        status = status or getattr(error, "http_status", None) or getattr(error, "code", None)
    return status if isinstance(status, int) and 100 <= status < 600 else None  # noqa: PLR2004


def _environment_secrets() -> Iterable[str]:
    return (
        value
        for name, value in os.environ.items()
        if len(value) >= _SHORTEST_SECRET
        and _SECRET_NAME.search(name)
        and not value.startswith(("/", "http"))
    )


# --- value objects -------------------------------------------------------------------------------

T = TypeVar("T")
P = ParamSpec("P")

_SHOWN = 80  # characters of a value in an error
_WRONG_TYPES = ("_type", "is_instance_of", "_parsing", "int_from_float", "callable_type")
_ALSO_CALLED = {  # argument -> what other packages, and papers, call it
    "proposers": ("models", "model_names", "agents", "experts", "llms", "members", "panel"),
    "aggregator": ("synthesizer", "combiner", "judge", "writer", "final"),
    "layers": ("rounds", "depth"),
    "prompt": ("system", "system_prompt", "system_message", "role", "instructions"),
    "samples": ("n", "count"),
    "graph": ("moa", "mixture", "model", "models", "preset", "proposers", "aggregator"),
    "moa": ("graph", "mixture", "model"),
    "consult": ("when",),
}
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

    A wrong type raises `TypeError`, and a wrong value raises `ValueError`. An unknown argument
    raises `TypeError` with the name of the most similar argument.
    """
    config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")
    made: Any = dataclass(cls, frozen=True, config=config, repr=False)
    validate = made.__init__

    @wraps(validate)
    def initialize(self: Any, *args: Any, **kwargs: Any) -> None:
        check_call(made, args, kwargs)
        try:
            validate(self, *args, **kwargs)
        except ValidationError as error:
            raise for_people(error, made.__name__, list(made.__pydantic_fields__)) from None

    made.__init__ = initialize
    made.__repr__ = represented
    return made  # type: ignore[no-any-return]


def represented(value: Any) -> str:
    """Return a value object as code, with its non-default arguments."""
    fields = type(value).__dataclass_fields__
    shown = {name: given for name, given in arguments_of(value).items() if fields[name].repr}
    return represented_as(type(value).__name__, shown)


def arguments_of(value: Any) -> dict[str, Any]:
    """Return the non-default arguments of a value object."""
    given = {}
    for name, field in type(value).__pydantic_fields__.items():
        own = getattr(value, name)
        is_default = not field.is_required() and own == field.get_default(call_default_factory=True)
        if field.init is not False and not is_default:
            given[name] = own
    return given


def represented_as(name: str, given: Mapping[str, Any]) -> str:
    """Return a call as code, without the contents of models, which may hold keys."""
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
    return type(value).__name__  # a model may hold keys


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def for_people(
    error: ValidationError, name: str, fields: Sequence[str] = ()
) -> TypeError | ValueError:
    """Convert a pydantic error to a `TypeError` or `ValueError` that names the argument.

    Args:
        error: The exception from pydantic.
        name: Name of the class of the arguments, such as `"Layer"`.
        fields: Names of the arguments, in positional order.
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
    if argument == "params":  # it may contain a key
        return f"{name}(params=…) {said}"
    place = "".join(f"[{step!r}]" for step in rest if "[" not in str(step))
    return f"{name}({argument}{place}={_short(problem['input'])}) {said}"


def check_names(
    made: Callable[..., Any],
    kwargs: Mapping[str, Any],
    name: str = "",
    parts: Sequence[type] = (),
    example: str = "",
) -> None:
    """Reject unknown arguments with an error that suggests the most similar one.

    Args:
        made: The class or function to call.
        kwargs: The keyword arguments.
        name: Name of `made` in the error; by default its `__name__`.
        parts: Classes of its arguments, of which the unknown argument may be one.
        example: A valid call, for the error.

    Raises:
        TypeError: If an argument does not exist.
    """
    parameters = [one.name for one in _parameters(made) if one.name != "self"]
    for given in kwargs:
        if given not in parameters:
            said = f"{name or made.__name__}() has no argument {given!r}."
            meant = f"{_meant(given, parameters, parts)} Arguments are: {', '.join(parameters)}."
            raise TypeError(f"{said}{meant}{f' Use {example}.' if example else ''}")


def _parameters(made: Callable[..., Any]) -> list[inspect.Parameter]:
    """Return the parameters that have a name of their own."""
    parameters = inspect.signature(made).parameters.values()
    return [one for one in parameters if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]


def check_call(
    made: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    parts: Sequence[type] = (),
    example: str = "",
) -> None:
    """Reject unknown, missing and surplus arguments, before a call.

    Args:
        made: The class or function to call.
        args: The positional arguments.
        kwargs: The keyword arguments.
        parts: As in `check_names`.
        example: A valid call, for the error; by default one with the required arguments.

    Raises:
        TypeError: If it has unknown arguments, too many or too few. The error has a valid call.
    """
    check_names(made, kwargs, parts=parts, example=example)
    parameters = _parameters(made)
    places = [one.name for one in parameters if one.kind != one.KEYWORD_ONLY]
    needed = [one.name for one in parameters if one.default is one.empty]
    valid = example or f"{made.__name__}({', '.join([*needed, '…'])})"
    if len(args) > len(places):
        raise TypeError(
            f"{made.__name__}() takes {', '.join(places) or 'nothing'} by place, and the rest by "
            f"name, but has {len(args)} arguments without a name: {valid}."
        )
    if missing := [name for name in needed if name not in {*places[: len(args)], *kwargs}]:
        raise TypeError(f"{made.__name__}() needs {' and '.join(map(repr, missing))}: {valid}.")


def _meant(given: str, own: Iterable[str], parts: Sequence[type]) -> str:
    own = list(own)
    if other := next((name for name in own if given in _ALSO_CALLED.get(name, ())), None):
        return f" Did you mean {other!r}?"
    # `quorum` is of Layer; `max_retries` contains `retries` of CallPolicy.
    arguments = [(name, repr(name)) for name in own] + [
        (name, f"{part.__name__}({name}=…)")
        for part in parts
        for name in inspect.signature(part).parameters
    ]
    for words in ([given], given.split("_")):
        if found := [shown for name, shown in arguments if name in words]:
            return f" Did you mean {' or '.join(found)}?"
    return nearest(given, own, likeness=0.6)


def call_checked(*parts: type, example: str = "") -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Wrap a function so that an unknown or missing argument raises an error with a suggestion.

    Args:
        *parts: As in `check_names`.
        example: A valid call, for the error.
    """

    def wrapped(function: Callable[P, T]) -> Callable[P, T]:
        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            check_call(function, args, kwargs, parts, example)
            return function(*args, **kwargs)

        return call

    return wrapped


def what_is_wrong(error: ValidationError, schema: type, entries: Mapping[str, type]) -> str:
    """Describe the invalid fields, without the values, because they may contain a key.

    Args:
        error: The exception from pydantic.
        schema: The validated class.
        entries: Classes of nested fields, by field name.
    """
    problems: dict[str, str] = {}
    unknown: list[str] = []
    names = {"str", "int", *(entry.__name__ for entry in entries.values())}
    for detail in error.errors(include_input=False, include_url=False):
        # For a union pydantic reports every alternative; only the field name is kept.
        steps = [s for s in detail["loc"] if not (isinstance(s, str) and (s in names or "[" in s))]
        place = "".join(f"[{s}]" if isinstance(s, int) else f".{s}" for s in steps).lstrip(".")
        if detail["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            entry = entries.get(str(steps[0]), schema) if len(steps) > 1 else schema
            fields = list(inspect.signature(entry).parameters)
            near = nearest(str(steps[-1]), fields)
            unknown.append(f"unknown field {place!r}.{near} Fields are: {', '.join(fields)}")
        elif place not in problems or detail["type"] == "value_error":
            said = detail["msg"].removeprefix("Value error, ")
            # Our own messages are the most specific.
            problems[place] = f"{place}: {said}" if place else said
    return "; ".join(dict.fromkeys(unknown) or problems.values()).rstrip(".") + "."


def nearest(word: str, words: Iterable[str], likeness: float = 0.5) -> str:
    """Return " Did you mean …?" with the most similar word; empty if no word is similar.

    Args:
        word: The word that was given.
        words: The valid words.
        likeness: Minimum similarity ratio, from 0 to 1.
    """
    close = difflib.get_close_matches(word, list(words), n=1, cutoff=likeness)
    return f" Did you mean {close[0]!r}?" if close else ""
