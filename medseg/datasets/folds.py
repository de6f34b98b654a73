"""Split the cases of a data set into folds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from medseg.bundle.spec import DataSpec
from medseg.datasets.cases import Case
from medseg.errors import DatasetError
from medseg.names import hash_text


def assign_folds(cases: Sequence[Case], data: DataSpec) -> tuple[int, ...]:
    """Say which fold each case is in.

    Where the data set lists a fold for every case, that is it. Else the groups stand in a line
    ordered by a hash of the seed and their name, and the line is cut into ``data.folds`` parts
    of about as many cases each. So the folds do not depend on the order of the cases, and one
    more case moves few others.

    Args:
        cases: The usable cases.
        data: How they are split.

    Returns:
        The fold of each case, in the order of ``cases``.

    Raises:
        DatasetError: If there are fewer groups than folds.
    """
    listed = [case.fold for case in cases if case.fold is not None]
    if listed and len(listed) == len(cases):
        return tuple(listed)
    sizes = Counter(case.group for case in cases)
    if len(sizes) < data.folds:
        message = _describe_too_few(len(cases), len(sizes), data)
        raise DatasetError(message)
    line = _order_groups(sizes, data.seed)
    fold_of = _cut_line(line, sizes, data.folds)
    folds = [fold_of[case.group] for case in cases]
    return tuple(folds)


def split_cases(
    cases: Sequence[Case], data: DataSpec, fold: int | None
) -> tuple[tuple[Case, ...], tuple[Case, ...]]:
    """Split the cases into those to train on and those to validate on.

    Args:
        cases: The usable cases.
        data: How they are split.
        fold: The fold to validate on; ``None`` trains on all and validates on none.

    Returns:
        The training cases and the validation cases, in the order of ``cases``.

    Raises:
        DatasetError: If there is no such fold, or nothing would be left to train on.
    """
    if not cases:
        raise DatasetError("there is no usable case to train on")
    if fold is None:
        return tuple(cases), ()
    folds = assign_folds(cases, data)
    numbers = sorted(set(folds))
    if fold not in numbers:
        raise DatasetError(
            f"there is no fold {fold} with usable cases; the folds are "
            f"{', '.join(str(number) for number in numbers)}"
        )
    if len(numbers) == 1:
        raise DatasetError(
            f"all {len(cases)} cases are in fold {fold}, so none is left to train on; list at "
            "least two folds, or train on all cases without validation"
        )
    training: list[Case] = []
    validation: list[Case] = []
    for case, number in zip(cases, folds, strict=True):
        part = validation if number == fold else training
        part.append(case)
    return tuple(training), tuple(validation)


def _order_groups(groups: Iterable[str], seed: int) -> list[str]:
    """Put groups into an order that depends on their names and the seed alone."""
    positions = []
    for group in groups:
        text = f"{seed}\n{group}"
        positions.append((hash_text(text), group))
    positions.sort()
    return [group for _, group in positions]


def _cut_line(
    line: Sequence[str], sizes: Mapping[str, int], folds: int
) -> dict[str, int]:
    """Cut a line of groups into folds of about equal size, none empty.

    Args:
        line: The groups, in order.
        sizes: How many cases each has.
        folds: How many parts to make.

    Returns:
        The fold of each group.
    """
    total = sum(sizes.values())
    fold_of: dict[str, int] = {}
    fold = -1
    before = 0
    for position, group in enumerate(line):
        size = sizes[group]
        # The fold in which the middle of the group would lie if groups could be cut.
        middle = before + size / 2
        wanted = int(middle * folds / total)
        # Enough groups must be left for the folds that are still empty.
        groups_left = len(line) - position
        lowest = folds - groups_left
        least = max(wanted, fold, lowest)
        fold = min(least, fold + 1)
        fold_of[group] = fold
        before += size
    return fold_of


def _describe_too_few(cases: int, groups: int, data: DataSpec) -> str:
    noun = "case" if cases == 1 else "cases"
    grouped = f" in {groups} groups" if groups < cases else ""
    remedy = f"set data.folds to {groups} or less, " if groups > 1 else ""
    return (
        f"{cases} usable {noun}{grouped} cannot be split into {data.folds} folds; {remedy}add "
        "cases, or train on all cases without validation"
    )
