"""Folders whose images each have a label of their own: ``CT_image``, ``CT_mask``, ``MR_image``, …

There the names in a folder say which modality a file is, and not which case.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from medseg.datasets.layouts.tree_forms import Form, TreeCase
from medseg.datasets.layouts.tree_names import NamedFile, strip_place
from medseg.datasets.names import abbreviate, fold_name
from medseg.errors import DatasetError

_INSTANCE = re.compile(
    r"[\W\d_]*|.*\d{2}|(?:.*[_\-. ])?"
    r"(?:frame|time|phase|slice|visit|ses|session|day|week|tp)[_\-. ]?\d+"
)
"""One of many images of a kind: a frame, a slice, a visit."""


def join_modalities(
    form: Form, images: Iterable[NamedFile], asked: Sequence[str]
) -> Form:
    """Make one case of each folder where the names in it are those of modalities.

    Args:
        form: Pairs of an image and a label.
        images: All images.
        asked: The channels, where somebody named them; the label of the first one is taken.

    Raises:
        DatasetError: If there are labels of several modalities, and nobody said which to take.
    """
    cases_of: dict[tuple[str, ...], list[TreeCase]] = defaultdict(list)
    for case in form.cases:
        cases_of[case.place].append(case)
    keys = _find_modalities(form, cases_of)
    if not keys:
        return form
    wanted = fold_name(asked[0]) if asked else ""
    if len(keys) > 1 and wanted not in keys:
        _refuse(form, keys)
    chosen = wanted if wanted in keys else min(keys)
    joined = []
    for place, cases in cases_of.items():
        case = TreeCase(place)
        for part in cases:
            if _key_of(part) == chosen:
                case.labels += part.labels
        joined.append(case)
    _add_images(joined, images, asked or (chosen,))
    usable = tuple(case for case in joined if case.labels and case.images)
    return Form("one folder per case", usable, form.orphans)


def _find_modalities(
    form: Form, cases_of: dict[tuple[str, ...], list[TreeCase]]
) -> set[str]:
    """Return the names that stand in most folders; none where they name cases."""
    labels = [label for case in form.cases for label in case.labels]
    lie_apart = any(label.role_folder for label in labels)
    if len(cases_of) < 2 or lie_apart or form.has_masks:
        return set()
    if not all(_is_pair(case) for case in form.cases):
        return set()
    counts = Counter(_key_of(case) for case in form.cases)
    are_modalities = all(
        key and 2 * count > len(cases_of) and not _INSTANCE.fullmatch(key)
        for key, count in counts.items()
    )
    return set(counts) if are_modalities else set()


def _is_pair(case: TreeCase) -> bool:
    """Tell whether an image is called like the label, and not only beginning like it."""
    keys = {fold_name(label.key) for label in case.labels}
    images = [image for group in case.images.values() for image in group]
    return any(fold_name(image.key) in keys for image in images)


def _key_of(case: TreeCase) -> str:
    return fold_name(strip_place(case.labels[0].key, case.place))


def _refuse(form: Form, keys: Iterable[str]) -> None:
    labels = sorted({label.stem for label in form.cases[0].labels})
    raise DatasetError(
        "each case has several images with a label of their own; choose the image, and with it its "
        "label, by --channel NAME",
        detail=f"they are called {abbreviate(sorted(keys))}, as in {abbreviate(labels)}",
    )


def _add_images(
    cases: Iterable[TreeCase],
    images: Iterable[NamedFile],
    channels: Sequence[str],
) -> None:
    """Add the images of the channels to the cases whose folders they lie in."""
    case_of = {case.place: case for case in cases}
    wanted = {fold_name(name): name for name in channels}
    for image in images:
        name = strip_place(image.key, image.place)
        key = fold_name(name)
        if image.place in case_of and key in wanted:
            case_of[image.place].add_image(name, image)
