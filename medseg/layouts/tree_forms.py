"""Which files of a tree are one case: an image and its label map, or an image and its masks.

Each form is one way in which people lay out data. All are tried, and the one that finds an image
for most labels is taken.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from medseg.layouts.tree_case import (
    Files,
    Form,
    Place,
    TreeCase,
    group_by_place,
)
from medseg.layouts.tree_names import NamedFile, strip_place
from medseg.layouts.tree_pairs import (
    pair_across_folders,
    pair_by_name,
    pair_without_affixes,
)


def find_form(
    images: Sequence[NamedFile], labels: Sequence[NamedFile]
) -> Form | None:
    """Return the first form under which most labels have an image, else that with most of them.

    ``None`` if no label has any.
    """
    best = pair_by_name(images, labels)
    for read in (
        collect_masks,
        gather_folders,
        pair_without_affixes,
        pair_across_folders,
    ):
        if best.is_convincing:
            break
        form = read(images, labels)
        # Of equals the first: it needs the least imagination.
        if len(form.orphans) < len(best.orphans):
            best = form
    return best if best.cases else None


def gather_folders(
    images: Iterable[NamedFile], labels: Sequence[NamedFile]
) -> Form:
    """Take every folder with one label map as a case, whatever its files are called.

    The names of the images must be those in the other folders, too.
    """
    title = "one folder per case"
    images_of = group_by_place(images)
    cases: list[TreeCase] = []
    orphans: Files = []
    for place, own_labels in group_by_place(labels).items():
        case = TreeCase(place, labels=own_labels)
        case.add_channels(images_of.get(place, []))
        if len(own_labels) == 1 and case.images:
            cases.append(case)
        else:
            orphans += own_labels
    form = Form(
        title,
        tuple(cases),
        tuple(orphans),
    )
    # One folder alone shows no names that repeat.
    if len(cases) > 1 and form.repeats_images:
        return form
    return Form(title, orphans=tuple(labels))


def collect_masks(
    images: Sequence[NamedFile], labels: Sequence[NamedFile]
) -> Form:
    """Take each folder of masks as the labels of the case that it lies in, or is called like.

    ``s1/ct`` and ``s1/segmentations/liver``; or ``images/s1`` and ``labels/s1/liver``.
    """
    title = "one folder of masks per case, one file per structure"
    images_of = group_by_place(images)
    named = {(*image.place, image.stem): image for image in images}
    cases: list[TreeCase] = []
    orphans: Files = []
    for place, masks in group_by_place(labels).items():
        case = TreeCase(place)
        if place in named:
            case.add_image("", named[place])
        else:
            case.add_channels(images_of.get(place, []))
        in_folder = all(mask.role_folder for mask in masks)
        if not case.images or not in_folder:
            orphans += masks
            continue
        for mask in masks:
            structure = _name_structure(mask, place)
            case.masks[structure] = mask
        cases.append(case)
    form = Form(
        title,
        tuple(cases),
        tuple(orphans),
    )
    if form.repeats_images and _share_structures(cases):
        return form
    return Form(title, orphans=tuple(labels))


def _name_structure(
    mask: NamedFile,
    place: Place,
) -> str:
    name = strip_place(mask.key, place)
    return name or mask.stem


def _share_structures(cases: Sequence[TreeCase]) -> bool:
    """Tell whether masks are named after structures: most names occur in several cases."""
    counts: Counter[str] = Counter()
    for case in cases:
        counts.update(case.masks.keys())
    if len(cases) == 1:
        return len(counts) > 1 and _hold_their_masks(cases[0])
    several = [name for name, count in counts.items() if count > 1]
    return 2 * len(several) >= len(counts)


def _hold_their_masks(case: TreeCase) -> bool:
    """Tell whether the folder of masks lies where the images lie, and not beside their folder."""
    folders = {mask.folders[:-1] for mask in case.masks.values()}
    return all(image.folders in folders for image in case.image_files)
