"""The command `moa chat`, and what can be written in it beside questions."""

from __future__ import annotations

import asyncio
import difflib
import sqlite3
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from moa_graph.cli.chats import Chat, Chats, StoreOption, opened
from moa_graph.cli.choosing import (
    AggregatorOption,
    ConfigOption,
    ModelsOption,
    PresetOption,
    chosen,
    wrong,
)
from moa_graph.cli.consoles import new_console
from moa_graph.cli.conversation import Conversation
from moa_graph.cli.footer import cost_of, tokens_of
from moa_graph.cli.lines import counted, joined
from moa_graph.cli.running import EndOfInput, Failed, LayersOption, fetch_weights, running
from moa_graph.cli.terminal import print_proposals, print_text, say
from moa_graph.errors import what_is_wrong
from moa_graph.presets.configuration import Configuration

_HELP = """\
Chat over several turns; every model sees the earlier answers.

Write a question, or one of these:

\b
{commands}

A space before / makes a line a question, such as ` /etc/hosts: what is it?`.
Tab completes a command, the arrow keys bring earlier lines, Alt-Enter begins a line.
Ctrl-C stops an answer, and keeps the proposals that are there. Conversations are kept:
`moa chats` lists them."""


@dataclass(frozen=True)
class _Command:
    """What can be written in a chat instead of a question."""

    usage: str
    does: str
    run: Callable[[Conversation, str], Coroutine[Any, Any, None]]
    asks: bool = False
    """Whether it asks models."""

    @property
    def name(self) -> str:
        return self.usage.split()[0]

    @property
    def takes_argument(self) -> bool:
        return self.usage != self.name


async def _proposals(conversation: Conversation, argument: str) -> None:
    turns = await conversation.turns()
    if not turns:
        say("There is no question yet.")
    elif argument and not (argument.isdecimal() and 1 <= int(argument) <= len(turns)):
        say(f"/proposals {argument}: give a turn from 1 to {len(turns)}.")
    else:
        number = int(argument or len(turns))
        proposals = turns[number - 1].proposals
        print_proposals(proposals)
        if not proposals:
            say(f"Turn {number} has no proposals.")


async def _cost(conversation: Conversation, _: str) -> None:
    used, prices = await conversation.used(), conversation.prices
    console = new_console(stderr=True)
    names = list(dict.fromkeys(one.model for one in used))
    for name in [*names, None]:
        of = [one for one in used if name is None or one.model == name]
        given, written = tokens_of(of)
        title = "in all" if name is None else name or "decisions"
        tokens = f"{counted(given, 'token')} in, {written:,} out"
        parts = [title, counted(len(of), "answer"), tokens, cost_of(of, prices)]
        width = console.width if console.is_terminal else 10_000
        say("\n".join(joined(parts, width)))


async def _retry(conversation: Conversation, argument: str) -> None:
    if argument not in {"", "all"}:
        say(f"/retry {argument}: give nothing or `all`.")
    else:
        await conversation.retry(argument)


async def _resume(conversation: Conversation, _: str) -> None:
    await conversation.resume()


async def _model(conversation: Conversation, argument: str) -> None:
    if argument:
        with suppress(typer.Exit):  # stay in the chat if the name is wrong
            conversation.use(chosen(argument), conversation.chat.layers)
    configuration = conversation.configuration
    say("\n".join([f"{configuration.name}:", *configuration.models()]))


async def _new(conversation: Conversation, _: str) -> None:
    conversation.begin()
    say("A new conversation.")


async def _help(_: Conversation, __: str) -> None:
    say(f"{_commands()}\n{_AS_QUESTION}")


async def _exit(_: Conversation, __: str) -> None:
    raise EndOfInput


_COMMANDS = (
    _Command("/retry", "answer again, from the same proposals", _retry, asks=True),
    _Command("/retry all", "ask all models again", _retry, asks=True),
    _Command("/resume", "go on with an answer that was stopped or failed", _resume, asks=True),
    _Command("/proposals", "what each model proposed in the last turn", _proposals),
    _Command("/proposals 2", "the same of turn 2", _proposals),
    _Command("/cost", "tokens and dollars of the conversation, by model", _cost),
    _Command("/model", "the models of this mixture", _model),
    _Command("/model NAME", "another preset or file, same conversation", _model),
    _Command("/new", "begin another conversation", _new),
    _Command("/help", "this list", _help),
    _Command("/exit", "leave; so does Ctrl-D", _exit),
)
_BY_NAME = {command.name: command for command in _COMMANDS}


_AS_QUESTION = "A space before / makes a line a question."


def _commands() -> str:
    return "\n".join(f"  {command.usage:<13} {command.does}" for command in _COMMANDS)


def chat(
    preset: PresetOption = None,
    config: ConfigOption = None,
    models: ModelsOption = None,
    aggregator: AggregatorOption = None,
    layers: LayersOption = None,
    resume: Annotated[
        str | None,
        typer.Option(
            "--resume",
            "-r",
            metavar="ID",
            help="Go on with a conversation of `moa chats`; `last` is the latest.",
        ),
    ] = None,
    store: StoreOption = None,
) -> None:
    """Chat over several turns."""
    chats = opened(store, needed=resume is not None)
    try:
        kept = Chat.new() if resume is None else chats.find(resume)
    except ValueError as error:
        wrong(f"--resume: {error}")
    if resume is not None and not (preset or config or models or aggregator):
        configuration = _mixture_of(kept)
        layers = layers or kept.layers
    else:
        configuration = chosen(preset, config, models, aggregator)
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        saver = runner.run(stack.enter_async_context(chats.saver()))
        try:
            conversation = Conversation(chats, saver, kept)
            conversation.use(configuration, layers)
            _talk(conversation, chats, runner)
        finally:
            runner.run(stack.aclose())


chat.__doc__ = _HELP.format(commands=_commands())


def _mixture_of(kept: Chat) -> Configuration:
    try:
        return Configuration(**kept.configuration)
    except ValidationError as error:
        told = what_is_wrong(error, Configuration, {})
        wrong(f"The mixture of conversation {kept.id}: {told} Name another, such as --preset.")


def _talk(conversation: Conversation, chats: Chats, runner: asyncio.Runner) -> None:
    """Read and answer lines until the input ends."""
    from moa_graph.cli.prompt import Prompt  # noqa: PLC0415 - takes time to import

    history = chats.path.with_suffix(".history") if chats.path else None
    prompt = Prompt(history, [*_BY_NAME])
    say("Write a question. /help lists the commands; Ctrl-D leaves.")
    try:
        runner.run(_welcome(conversation))
    except sqlite3.Error as error:
        wrong(_not_kept(conversation, error))
    while True:
        try:
            line = prompt.read(runner)
            if line is None:
                say("Ctrl-D or /exit leaves.")
            elif line:
                _answer(conversation, runner, line)
        except EndOfInput:
            break
    if chats.path and conversation.is_kept:
        say(f"moa chat --resume {conversation.chat.id} goes on.")


def _answer(conversation: Conversation, runner: asyncio.Runner, line: str) -> None:
    """Answer a question or run a command, and say how to go on if it ends early."""
    name, _, argument = line.partition(" ")  # the name is empty if a space is before a slash
    command = _BY_NAME.get({"/quit": "/exit"}.get(name, name))
    if name.startswith("/") and command is None:
        near = difflib.get_close_matches(name, _BY_NAME, n=1)
        told = f"did you mean {near[0]}?" if near else "/help lists them."
        say(f"There is no command {name}: {told} {_AS_QUESTION}")
        return
    argument = argument.strip()
    if command and argument and not command.takes_argument:
        say(f"{line}: {name} takes nothing.")
        return
    try:
        if command is None or command.asks:
            with running():  # outside the loop, where Ctrl-C ends a download at once
                fetch_weights(conversation.configuration)
        runner.run(
            command.run(conversation, argument) if command else conversation.ask(line.strip())
        )
    except KeyboardInterrupt:
        say("Stopped. /resume goes on from here.")
    except Failed as failure:
        say(f"{failure}\n/resume tries again from here.")
    except sqlite3.Error as error:
        say(_not_kept(conversation, error))


def _not_kept(conversation: Conversation, error: sqlite3.Error) -> str:
    return (
        f"{conversation.path} cannot be used: {error}.\nWhen it can be used again, ask once more; "
        "or leave, and let `moa chat --store FILE` keep conversations in another file."
    )


async def _welcome(conversation: Conversation) -> None:
    """Show where a kept conversation has ended."""
    turns = await conversation.turns()
    if not turns:
        return
    last = turns[-1]
    say(f"{conversation.chat.title} ({counted(len(turns), 'turn')})")
    say(f"\n> {last.question}\n")
    if last.answer is not None:
        print_text(last.answer.text)
    else:
        say("This question has no answer yet: /resume goes on with it.")
