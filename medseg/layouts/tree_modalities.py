"""Folders whose images each have a label of their own: ``CT_image``, ``CT_mask``, ``MR_image``, …

There the names in a folder say which modality a file is, and not which case.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from medseg.errors import DatasetError
from medseg.layouts.tree_case import Form, Place, TreeCase
from medseg.layouts.tree_names import NamedFile, strip_place
from medseg.names import abbreviate, fold_name

_INSTANCE = re.compile(
    r"[\W\d_]*|.*\d{2}|(?:.*[_\-. ])?"
    r"(?:frame|time|phase|slice|visit|ses|session|day|week|tp)[_\-. ]?\d+"
)
"""One of many images of a kind: a frame, a slice, a visit."""

_CasesByPlace = Mapping[Place, Sequence[TreeCase]]


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
    cases_of: dict[Place, list[TreeCase]] = defaultdict(list)
    for case in form.cases:
        cases_of[case.place].append(case)
    if not _name_modalities(form, cases_of):
        return form
    modalities = sorted({_key_of(case) for case in form.cases})
    chosen = _choose_modality(
        form,
        modalities,
        asked,
    )
    joined = _join_labels(form, chosen)
    _add_images(
        joined,
        images,
        asked or (chosen,),
    )
    usable = [case for case in joined.values() if case.images]
    return Form(
        form.title,
        tuple(usable),
        form.orphans,
    )


def _join_labels(form: Form, chosen: str) -> dict[Place, TreeCase]:
    """Return a case for each folder, with the label of one modality."""
    joined: dict[Place, TreeCase] = {}
    for case in form.cases:
        if _key_of(case) != chosen:
            continue
        place = case.place
        joined.setdefault(place, TreeCase(place))
        joined[place].labels += case.labels
    return joined


def _name_modalities(
    form: Form,
    cases_of: _CasesByPlace,
) -> bool:
    """Tell whether the names in folders repeat from one to the next, and number nothing."""
    lie_apart = any(label.role_folder for label in form.labels)
    if len(cases_of) < 2 or lie_apart or form.has_masks:
        return False
    counts: Counter[str] = Counter()
    for case in form.cases:
        key = _key_of(case)
        if not key or not _has_own_image(case) or _INSTANCE.fullmatch(key):
            return False
        counts[key] += 1
    half = len(cases_of) / 2
    return all(count > half for count in counts.values())


def _has_own_image(case: TreeCase) -> bool:
    """Tell whether an image is called like the label, and not only beginning like it."""
    key = fold_name(case.labels[0].key)
    return any(fold_name(image.key) == key for image in case.image_files)


def _key_of(case: TreeCase) -> str:
    return fold_name(_name_of(case))


def _name_of(case: TreeCase) -> str:
    return strip_place(case.labels[0].key, case.place)


def _choose_modality(
    form: Form, modalities: Sequence[str], asked: Sequence[str]
) -> str:
    """Return the modality whose label is taken: that of the first channel, or the only one.

    Raises:
        DatasetError: If there are several, and none was asked for.
    """
    wanted = fold_name(asked[0]) if asked else ""
    if wanted in modalities:
        return wanted
    if len(modalities) == 1:
        return modalities[0]
    labels = sorted({label.stem for label in form.labels})
    names = sorted({_name_of(case) for case in form.cases})
    raise DatasetError(
        "each case has several images with a label of their own; choose the image, and with it its "
        "label, by --channel NAME",
        detail=f"names are {', '.join(names)}; labels are {abbreviate(labels)}",
    )


def _add_images(
    cases: Mapping[Place, TreeCase],
    images: Iterable[NamedFile],
    channels: Sequence[str],
) -> None:
    """Add the images of the channels to the cases whose folders they lie in."""
    wanted = {fold_name(channel) for channel in channels}
    for image in images:
        name = strip_place(image.key, image.place)
        is_wanted = fold_name(name) in wanted
        if is_wanted and image.place in cases:
            cases[image.place].add_image(name, image)
