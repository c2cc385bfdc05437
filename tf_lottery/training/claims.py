"""The replicates of one run, shared out among the processes that work in its folder."""

import contextlib
import time
from collections.abc import Collection, Iterator, Mapping, Sequence

from tf_lottery.training.runs import InUseError, ReplicateStore, RunDirectory

_A_LOOK = 1.0  # seconds from one look for a sign of life to the next


class Claims:
    """Says who works on what, and claims what nobody works on. Nothing else is shared than the folder.

    Args:
        directory: of the run.
        replicates: their 1-based numbers.
        networks: level and arm of every network that each of them trains.

    Attributes:
        directory: the same.
        networks: the same.
    """

    def __init__(
        self, directory: RunDirectory, replicates: Sequence[int], networks: Collection[tuple[int, str]]
    ):
        self.directory = directory
        self.networks = networks
        self._stores = {number: directory.replicate(number) for number in replicates}

    def unfinished(self) -> list[int]:
        """Returns the replicates that lack a network."""
        return [number for number, store in self._stores.items() if not store.holds(self.networks)]

    def free(self) -> list[int]:
        """Returns the unfinished replicates that no process works on."""
        unfinished = self.unfinished()
        holders = self._holders(unfinished)
        return [number for number in unfinished if number not in holders]

    def check(self) -> None:
        """Looks whether there is anything to do here.

        Raises:
            InUseError: other processes work on all that is unfinished; names them.
        """
        unfinished = self.unfinished()
        holders = self._holders(unfinished)
        if unfinished and len(holders) == len(unfinished):
            raise InUseError(self.directory.path, self._told(holders))

    def told(self) -> str:
        """Returns who works on what, for people; nothing where nobody does."""
        return self._told(self._holders(self.unfinished()))

    def claimed(self, finished: bool) -> Iterator[ReplicateStore]:
        """Yields the store of each replicate, claimed until the next is asked for.

        What others work on is left out, unless they are gone, and it unfinished, when the rest is done.

        Args:
            finished: whether to yield those too that lack nothing, to be told of again.
        """
        left = list(self._stores)
        told = set(left) - set(self.unfinished()) if finished else ()
        while left:
            with contextlib.ExitStack() as stack:
                store = self._first_free(left, stack)
                if store is None:
                    left = self._not_in_hand(left)
                    continue
                left.remove(store.replicate)
                # What another process has finished meanwhile is its own affair.
                if store.replicate in told or not store.holds(self.networks):
                    yield store

    def _first_free(self, left: Sequence[int], stack: contextlib.ExitStack) -> ReplicateStore | None:
        for number in left:
            with contextlib.suppress(InUseError):
                return stack.enter_context(self._stores[number].claimed())
        return None

    def _not_in_hand(self, numbers: Sequence[int]) -> Sequence[int]:
        """Returns those replicates of which no process that works on them shows that it lives.

        Returns as soon as there is one that nobody has any more.
        """
        signs = {number: self._stores[number].sign_of_life() for number in numbers}
        while numbers:
            now = {number: self._stores[number].sign_of_life() for number in numbers}
            if None in now.values():
                return numbers
            numbers = [number for number in numbers if now[number] == signs[number]]
            time.sleep(_A_LOOK if numbers else 0)
        return numbers

    def _holders(self, replicates: Sequence[int]) -> dict[int, str]:
        """Returns replicate -> the process that works on it, of those on which one does."""
        found = {number: self._stores[number].holder() for number in replicates}
        return {number: holder for number, holder in found.items() if holder}

    def _told(self, holders: Mapping[int, str]) -> str:
        several = len(self._stores) > 1
        return ", ".join(f"replicate {n}: {who}" if several else who for n, who in holders.items())
