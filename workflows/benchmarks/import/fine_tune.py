"""Fine-tune imports on hippocampi with labels in another order, and print a Markdown table.

    python workflows/benchmarks/import/fine_tune.py WORK --data DATA [--steps N] [--cases N]

``WORK`` is what ``train_nnunet.py`` made. The data set calls the labels as nnU-Net's did, in the
other order. Dice is the mean over labels, by name, and over cases that neither training saw.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import nibabel
import numpy as np

from medseg import Segmenter, load_bundle, plan, train
from medseg.commands.import_model import import_model

MODELS = ("hippocampus", "hippocampus_resenc")
SEEN = 4
"""Cases, from the first, that nnU-Net learned from."""
VALUES = {"Posterior": 1, "Anterior": 2}


def write_cases(source: Path, target: Path, first: int, count: int) -> Path:
    """Write some cases with the labels in the other order, as a data set of nnU-Net's."""
    for folder in ("imagesTr", "labelsTr"):
        (target / folder).mkdir(parents=True)
    labels = sorted((source / "labelsTr").glob("[!.]*.nii.gz"))
    for file in labels[first : first + count]:
        stem = file.name.removesuffix(".nii.gz")
        image = source / "imagesTr" / file.name
        shutil.copyfile(image, target / "imagesTr" / f"{stem}_0000.nii.gz")
        label = nibabel.load(file)
        array = np.asarray(label.dataobj)
        turned = np.where(array > 0, 3 - array, 0).astype(np.uint8)
        made = nibabel.Nifti1Image(turned, label.affine)
        nibabel.save(made, target / "labelsTr" / file.name)
    listing = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, **VALUES},
        "numTraining": count,
        "file_ending": ".nii.gz",
    }
    (target / "dataset.json").write_text(json.dumps(listing))
    return target


def measure_dice(bundle: Path, data: Path) -> float:
    """Return the mean Dice over labels and cases."""
    segmenter = Segmenter(bundle, "cpu", mirror=False)
    own = {label.name: label.index for label in load_bundle(bundle).spec.labels}
    scores = []
    for file in sorted((data / "labelsTr").iterdir()):
        stem = file.name.removesuffix(".nii.gz")
        image = data / "imagesTr" / f"{stem}_0000.nii.gz"
        labels = segmenter.segment([image]).labels
        reference = np.asarray(nibabel.load(file).dataobj)
        for name, value in VALUES.items():
            ours, theirs = labels == own[name], reference == value
            total = int(ours.sum()) + int(theirs.sum())
            scores.append(2 * int((ours & theirs).sum()) / total)
    return float(np.mean(scores))


def main() -> None:
    """Print a row for each kind of network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=MODELS)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--cases", type=int, default=20)
    options = parser.parse_args()
    print("| model | network | import | fine-tuned |", flush=True)
    print("| --- | --- | --- | --- |", flush=True)
    source = options.data / "hippocampus"
    for name in options.only:
        home = Path(tempfile.mkdtemp())
        parent = home / "import"
        spec = import_model(options.work / name / "results", parent).spec
        data = write_cases(source, home / "data", SEEN, options.cases)
        unseen = SEEN + options.cases
        test = write_cases(source, home / "test", unseen, 6)
        file = home / "bundle.json"
        plan(data, file, start_from=parent, device="cpu")
        steps = f"training.steps={options.steps}"
        rate = "training.learning_rate=0.003"
        run = train(
            file,
            start_from=parent,
            out=home / "run",
            fold=None,
            device="cpu",
            overrides=[steps, rate],
        )
        scores = [measure_dice(bundle, test) for bundle in (parent, run)]
        before, after = (f"{score:.3f}" for score in scores)
        kind = spec.network.kind
        print(f"| {name} | {kind} | {before} | {after} |", flush=True)
        shutil.rmtree(home)


if __name__ == "__main__":
    main()
