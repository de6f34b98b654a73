"""Which case comes next; two people never get the same one, except one to read it again."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.strategy import Strategy

from medseg.label_server.audit import LOCAL, REQUESTER, name_requester
from medseg.label_server.scores import (
    CaseQuality,
    Scores,
    order_worst_first,
)
from medseg.label_server.state import StateFolder
from medseg.label_server.store import Store
from medseg.label_server.versions import Versions
from medseg.label_server.worklist import CaseState, Reading, Worklist
from medseg.names import normalize_name

Order = Callable[[Sequence[str], Mapping[str, CaseQuality]], list[str]]
"""Puts cases, of which the qualities of some are known, into an order."""


class NextCase(Strategy):  # type: ignore[misc]
    """Offers the first case, in an order, that nobody else has.

    Whoever asks again before they have submitted a label gets the same case again.

    Args:
        description: What people read of it.
        state: The state folder.
        order: Which case comes first.
        reading: To correct cases, or to judge what others have corrected.
    """

    def __init__(
        self,
        description: str,
        state: StateFolder,
        order: Order,
        reading: Reading = Reading.FIRST,
    ) -> None:
        super().__init__(description)
        self._state = state
        self._order = order
        self._reading = reading
        self._worklist = Worklist(Store(state))

    def __call__(
        self, request: Mapping[str, Any], datastore: Datastore
    ) -> dict[str, Any] | None:
        """Choose a case, which is then that person's; ``None`` if there is none to choose."""
        served = Versions(self._state).find_served()
        scores = Scores(self._state, served).read()
        ordered = self._order(self._list_waiting(datastore), scores)
        person = name_requester(request.get("client_id"))
        if REQUESTER.get().user == LOCAL.user:
            self._hand_over(ordered, person)
        # What somebody has taken in the work list, or was given, comes before the order.
        own = self._worklist.list_held(person, self._reading)
        ordered.sort(key=lambda case: normalize_name(case) not in own)
        chosen = self._worklist.claim(ordered, person, self._reading)
        if chosen is None:
            return None
        return {"id": chosen, "quality": scores.get(chosen)}

    def _hand_over(self, ordered: Sequence[str], person: str) -> None:
        """Give a viewer's user what was taken in the work list, which knows no names then."""
        taken = self._worklist.list_held(LOCAL.user, self._reading)
        for case in ordered:
            if normalize_name(case) in taken:
                self._worklist.assign(case, person, self._reading)
                return

    def _list_waiting(self, datastore: Datastore) -> list[str]:
        cases: list[str] = datastore.list_images()
        if self._reading is Reading.SECOND:
            corrected = self._worklist.list_names(CaseState.CORRECTED)
            return [case for case in cases if case in corrected]
        waiting = set(datastore.get_unlabeled_images())
        waiting |= self._worklist.list_names(CaseState.REJECTED)
        return [case for case in cases if case in waiting]


def make_strategies(state: StateFolder) -> dict[str, Strategy]:
    """Return the strategies by name; viewers take the first one unless told."""
    return {
        "worst_first": NextCase(
            "The case with the lowest expected Dice first",
            state,
            order_worst_first,
        ),
        "random": NextCase("A case by chance", state, _shuffle),
        "first": NextCase(
            "The cases in the order of their names", state, _sort
        ),
        "second_reading": NextCase(
            "A case that somebody else has corrected, to judge it",
            state,
            order_worst_first,
            Reading.SECOND,
        ),
    }


def _shuffle(
    cases: Sequence[str], scores: Mapping[str, CaseQuality]
) -> list[str]:
    return random.sample(cases, len(cases))


def _sort(cases: Sequence[str], scores: Mapping[str, CaseQuality]) -> list[str]:
    return sorted(cases)
