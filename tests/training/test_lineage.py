"""Names decide what a fine-tuned bundle takes over, and every decision is a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.bundles import NESTED, made_spec, trained_bundle

from medseg.bundle.bundle import load_bundle
from medseg.bundle.spec import BundleSpec
from medseg.errors import CheckpointError
from medseg.training.lineage import (
    channel_sources,
    label_sources,
    trace_lineage,
)
from medseg.training.run_folder import RunFolder


def labelled(*labels: str | tuple[str, str]) -> BundleSpec:
    made = []
    for index, label in enumerate(labels, start=1):
        name, code = (label, None) if isinstance(label, str) else label
        made.append(
            {"index": index, "name": name} | ({"code": code} if code else {})
        )
    return made_spec(labels=made)


def channelled(*channels: tuple[str, str]) -> BundleSpec:
    return made_spec(
        channels=[
            {"name": name, "modality": modality} for name, modality in channels
        ]
    )


def test_labels_are_matched_by_name_then_by_code() -> None:
    parent = labelled(("liver", "SCT:1"), "kidney", ("tumour", "SCT:3"))
    assert label_sources(parent, labelled("Kidney", "liver")) == (0, 2, 1)
    assert label_sources(parent, labelled(("lesion", "SCT:3"), "spleen")) == (
        0,
        3,
        None,
    )
    # A code does not take what a name has taken.
    assert label_sources(parent, labelled(("mass", "SCT:1"), "liver")) == (
        0,
        None,
        1,
    )


@pytest.mark.parametrize(
    ("parent", "child", "sources"),
    [
        ([("T1", "MR"), ("T2", "MR")], [("T2", "MR"), ("T1", "MR")], (1, 0)),
        ([("CT", "CT"), ("PET", "PT")], [("SUV", "PT"), ("CT", "CT")], (1, 0)),
        ([("T1", "MR")], [("FLAIR", "MR")], (0,)),
        ([("CT", "CT")], [("T1", "MR")], (0,)),
        ([("T1", "MR")], [("T1", "MR"), ("T2", "MR")], (0, None)),
        (
            [("T1", "MR"), ("T2", "MR")],
            [("A", "MR"), ("B", "MR")],
            (None, None),
        ),
    ],
)
def test_channels_are_matched_by_name_then_by_modality(
    parent: list[tuple[str, str]],
    child: list[tuple[str, str]],
    sources: tuple[int | None, ...],
) -> None:
    assert channel_sources(channelled(*parent), channelled(*child)) == sources


def test_every_decision_is_recorded_and_no_folder_is_published(
    tmp_path: Path,
) -> None:
    parent = load_bundle(
        trained_bundle(tmp_path / "parent", labelled("liver", "kidney"))
    )
    RunFolder(parent.folder).write_info(
        {"run_id": "abc", "data": "/secret", "fold": 0}
    )
    spec = made_spec(
        labels=[{"index": 1, "name": "Liver"}, {"index": 2, "name": "spleen"}],
        channels=[
            {"name": "CT", "modality": "CT"},
            {"name": "PET", "modality": "PT"},
        ],
        preprocessing={"spacing_mm": [1, 1, 1]},
    )
    lineage = trace_lineage(parent, spec)
    assert lineage.decisions == (
        "label Liver: taken over",
        "label spleen: newly initialised, the parent has none of this name",
        "label kidney of the parent: dropped",
        "channel CT: taken over",
        "channel PET: starts at zero, so that the network first sees what its parent saw",
        "deep supervision outputs, which only training uses: newly initialised",
        "preprocessing.spacing_mm: null → [1.0, 1.0, 1.0]; the weights learned with the former",
    )
    assert lineage.run_id == "abc"
    assert str(tmp_path) not in str(lineage.published)


def test_channels_in_another_order_are_no_other_preprocessing(
    tmp_path: Path,
) -> None:
    ct, mr = ({"name": name, "modality": name} for name in ("CT", "MR"))
    window = {"kind": "window", "low": -100, "high": 200}
    old = made_spec(
        channels=[ct, mr],
        preprocessing={"intensity": [window, "zscore"]},
        licence="CC BY-NC 4.0",
        origin="nnU-Net v2 a of b",
    )
    parent = load_bundle(trained_bundle(tmp_path / "parent", old))
    turned = made_spec(
        channels=[mr, ct], preprocessing={"intensity": ["zscore", window]}
    )
    decisions = trace_lineage(parent, turned).decisions
    assert "preprocessing: as the parent's" in decisions
    assert "weights of the parent: from nnU-Net v2 a of b" in decisions
    assert (
        "licence: unknown; that of the parent's weights is CC BY-NC 4.0"
        in decisions
    )
    other = made_spec(
        channels=[mr, ct], preprocessing={"intensity": ["minmax", window]}
    )
    changes = trace_lineage(parent, other).decisions
    (change,) = [text for text in changes if text.startswith("preprocessing")]
    assert change.startswith("preprocessing.intensity: ")
    assert "the weights learned with the former" in change


def test_regions_start_from_regions_and_from_nothing_else(
    tmp_path: Path,
) -> None:
    nested, plain = made_spec(**NESTED), made_spec(labels=NESTED["labels"])
    fewer = made_spec(
        labels=NESTED["labels"],
        regions=[
            {
                "name": "Inner",
                "labels": ["core", "enhancing", "edema"],
                "paints": "core",
            },
            {"name": "ring", "labels": ["edema"]},
        ],
    )
    assert label_sources(nested, fewer) == (1, None)
    assert label_sources(plain, nested) == (None, None, None)
    assert label_sources(nested, plain) == (None, None, None, None)
    parent = load_bundle(trained_bundle(tmp_path / "nested", nested))
    assert trace_lineage(parent, fewer).decisions[:4] == (
        "region Inner: taken over",
        "region ring: newly initialised, the parent has none of this name",
        "region whole of the parent: dropped",
        "region enhancing of the parent: dropped",
    )
    assert (
        trace_lineage(parent, plain).decisions[0]
        == "labels: newly initialised, the parent has regions, which overlap"
    )
    parent = load_bundle(trained_bundle(tmp_path / "plain", plain))
    (decision, *_) = trace_lineage(parent, nested).decisions
    assert (
        decision
        == "regions: newly initialised, the parent has labels that exclude each other"
    )


def test_without_weights_there_is_no_lineage(tmp_path: Path) -> None:
    folder = trained_bundle(tmp_path / "parent", made_spec())
    (folder / "models" / "model.pt").unlink()
    with pytest.raises(CheckpointError, match="no weights"):
        trace_lineage(load_bundle(folder), made_spec())
