"""One conversation with a mixture: its questions, and how to go on after one was stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver

from moa_graph.building.compiled import MoAGraph
from moa_graph.cli.chats import Chat, Chats
from moa_graph.cli.choosing import check_ready
from moa_graph.cli.footer import Prices, Used
from moa_graph.cli.running import asked, build, running
from moa_graph.cli.terminal import say
from moa_graph.cli.turns import Turn, history_of, questions_in, turns_of, used_in
from moa_graph.cli.view import RunView
from moa_graph.presets.configuration import Configuration
from moa_graph.state import usable


class Conversation:
    """One thread with one mixture; both can change.

    Args:
        chats: Where it is kept.
        saver: The checkpointer, open.
        chat: What is known of it so far.
    """

    def __init__(self, chats: Chats, saver: BaseCheckpointSaver[Any], chat: Chat) -> None:
        self._chats = chats
        self._saver = saver
        self.chat = chat
        self.configuration: Configuration
        self._graph: MoAGraph
        self.is_kept = bool(chat.turns)
        """Whether another process can go on with it."""

    @property
    def path(self) -> Path | None:
        """The file that keeps it."""
        return self._chats.path

    def use(self, configuration: Configuration, layers: int | None) -> None:
        """Let a mixture answer the next questions.

        Raises:
            typer.Exit: With code 2 after a message, if a key or a package is missing, or the
                mixture cannot be built.
        """
        check_ready(configuration)
        self._graph = build(configuration, layers=layers, checkpointer=self._saver)
        self.configuration = configuration
        self.chat = self.chat.using(configuration, layers)

    def begin(self) -> None:
        """Begin another conversation with the same mixture."""
        self.chat = Chat.new().using(self.configuration, self.chat.layers)
        self.is_kept = False

    @property
    def thread(self) -> RunnableConfig:
        """Configuration of its runs."""
        return {"configurable": {"thread_id": self.chat.id}}

    @property
    def prices(self) -> Prices:
        """Prices of the mixture's models."""
        return Prices.of(self.configuration)

    async def turns(self) -> list[Turn]:
        """Return its turns, from the first."""
        return turns_of(await history_of(self._graph, self.thread))

    async def used(self) -> list[Used]:
        """Return what all of its runs used."""
        return used_in(await history_of(self._graph, self.thread))

    async def ask(self, question: str) -> None:
        """Ask a question and show the run."""
        # Counted in the thread: another process may have asked meanwhile.
        before = questions_in(await self._graph.aget_state(self.thread))
        self.chat = self.chat.asked(question, before + 1)
        await self._run(asked(question), self.thread)

    async def resume(self) -> None:
        """Go on with the run that was stopped or failed; what it has is not asked for again."""
        turns = await self.turns()
        if not turns:
            say("There is no question yet.")
        elif turns[-1].answer is not None:
            say("There is nothing to go on with: the last question has its answer.")
        elif not turns[-1].checkpoints[-1].next:
            say("Another mixture was asked. /retry all asks this one.")
        else:
            await self._run(None, self.thread, turns[-1])

    async def retry(self, what: str) -> None:
        """Answer the last question again; the earlier answer leaves the conversation.

        Args:
            what: `"all"` to ask all models again; otherwise only the aggregator is asked, with
                the proposals that are there.
        """
        turns = await self.turns()
        if not turns:
            say("There is no question yet.")
            return
        place = None if what == "all" else turns[-1].before_answer(self._graph)
        if place is not None:
            await self._run(None, place, turns[-1])
            return
        if what != "all":
            say("The proposals are not complete, or not of this mixture: all models are asked.")
        question = turns[-1].question
        await self._run(asked(question), turns[-1].before_question)

    async def _run(self, given: Any, config: RunnableConfig, goes_on: Turn | None = None) -> None:
        kept = len(usable(goes_on.proposals)) if goes_on else 0
        with running():
            self._chats.save(self.chat)
            self.is_kept = True
            view = RunView(self.prices, kept=kept)
            await view.show(self._graph, given, config)
