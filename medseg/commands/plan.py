"""``medseg plan``: a data set in, or nnU-Net's plans; a bundle for it out, with every reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from medseg._support.memory import is_out_of_memory
from medseg.bundle.bundle import (
    Bundle,
    is_bundle,
    load_bundle,
    require_single,
)
from medseg.commands.planned_files import check_files, write_planned
from medseg.datasets.case_workers import choose_case_workers
from medseg.errors import (
    MedsegError,
)
from medseg.events import Listener, Notice, notify
from medseg.layouts import Selection
from medseg.layouts.cases_csv import parse_columns
from medseg.layouts.missing_data import require_data
from medseg.layouts.splits import relate_split
from medseg.networks.devices import choose_device
from medseg.planning import (
    Constraints,
    Fingerprint,
    InspectedDataset,
    LabelWishes,
    adapt_constraints,
    draft_bundle,
    draft_converted,
    inspect_dataset,
    is_nnunet_plans,
    make_constraints,
    parse_channel,
    parse_label_requests,
)
from medseg.planning.plan import Plan
from medseg.planning.training_cost import measure_training
from medseg.training.parent_fields import replace_by_parent_fields


def plan(
    dataset: str | Path,
    out: str | Path = "bundle.json",
    *,
    data: str | Path | None = None,
    channels: Sequence[str] = (),
    images: Sequence[str] = (),
    labels: str | None = None,
    columns: str | None = None,
    split_4d: str = "",
    splits: str | Path | None = None,
    dims: int | None = None,
    memory_gb: float | None = None,
    budget: str | None = None,
    class_weights: str | None = None,
    network: str = "auto",
    label_values: Sequence[str] = (),
    stray_voxels: int = 0,
    device: str = "auto",
    measure: bool = False,
    start_from: str | Path | None = None,
    on: str = "",
    listeners: Sequence[Listener] = (),
) -> Plan:
    """Plan a bundle for a data set, or convert nnU-Net's plans into one.

    Args:
        dataset: The data folder, or its list of cases; or nnU-Net's plans file.
        out: The file to write.
        data: With nnU-Net's plans: the raw data folder, whose ``dataset.json`` is read; that
            beside the plans unless given.
        channels: The channels by name, such as ``T1``, or name and modality, such as ``uptake:PT``.
            Of BIDS and DICOM data, which hold more than a bundle uses, these are taken; of others
            these are the names, in order.
        images: Patterns of the image files, one for each channel, such as ``scans/*.nii.gz``, where
            names do not say which files are images. Relative to the folder.
        labels: The pattern of the label files, such as ``truth/*_manual.nii.gz``.
        columns: Of a CSV whose columns have other names: ``image=scan,label=seg``.
        split_4d: As for ``medseg.segment``; the bundle keeps it.
        splits: A file that says which cases are held out: nnU-Net's ``splits_final.json``, a CSV
            with ``name`` and ``fold`` or ``split``, or ``val.txt`` beside ``train.txt``. What lies
            in the data set, or where nnU-Net keeps it, is found by itself.
        dims: 2 or 3; the data decide unless given.
        memory_gb: Memory for a training step in GB; unless given, what the device has, within
            reason.
        budget: Time for a training run, such as ``20m`` or ``2h``.
        class_weights: ``balanced`` lets small labels weigh more in the loss; all weigh alike unless
            given.
        network: ``auto``: by time and memory; ``resenc``: nnU-Net's residual encoder.
        label_values: What values or colours of label files mean: ``liver=1``, ``1=liver``,
            ``myelin=127,128`` or ``road=128,64,128``. ``background`` and ``ignore`` are names for
            what is nothing, and what nobody annotated.
        stray_voxels: Values that so many voxels at most have, in all label files together, count as
            background, and are named.
        device: What will be used for training: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        measure: Whether to time some steps of the planned network, so that the plan says how long
            training takes here and how much memory; this takes some 10 seconds.
        start_from: The trained bundle that training will start from: its network, preprocessing and
            windows are used, with the labels and channels of the data.
        on: ``ray`` lets the nodes of a Ray cluster inspect the cases, that of this machine or of
            ``RAY_ADDRESS``; ``ray=HOST:PORT`` those of the cluster of this head. All nodes must see
            the data at the same path. The plan is the same. A case whose process dies three
            times is left out, with that reason.
        listeners: Told of progress, and of cases that are left out.

    Returns:
        The plan; its bundle is written to ``out``.

    Raises:
        DatasetError: If the layout of the data set is unknown, or no case can be used.
        OutputError: If ``out`` exists or cannot be written.
        MedsegError: If a constraint cannot be met.
        MissingExtraError: If a cluster is asked for and Ray is not installed.
        ClusterError: If the cluster cannot be reached, or has ended.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import medseg
        >>> from medseg.testing import write_dataset
        >>> folder = Path(tempfile.mkdtemp())
        >>> data = write_dataset(folder / "data", 2, shape=(24, 20, 16), spacing=9.0)
        >>> planned = medseg.plan(data, folder / "bundle.json", dims=2, device="cpu")
        >>> [label.name for label in planned.spec.labels], planned.spec.network.dims
        (['liver', 'kidney'], 2)
    """
    (planned,) = plan_bundles(
        dataset,
        {Path(out): dims},
        data=data,
        channels=channels,
        images=images,
        labels=labels,
        columns=columns,
        split_4d=split_4d,
        splits=splits,
        memory_gb=memory_gb,
        budget=budget,
        class_weights=class_weights,
        network=network,
        label_values=label_values,
        stray_voxels=stray_voxels,
        device=device,
        measure=measure,
        start_from=start_from,
        on=on,
        listeners=listeners,
    )
    return planned


def plan_bundles(
    dataset: str | Path,
    files: Mapping[Path, int | None],
    *,
    data: str | Path | None = None,
    channels: Sequence[str] = (),
    images: Sequence[str] = (),
    labels: str | None = None,
    columns: str | None = None,
    split_4d: str = "",
    splits: str | Path | None = None,
    memory_gb: float | None = None,
    budget: str | None = None,
    class_weights: str | None = None,
    network: str = "auto",
    label_values: Sequence[str] = (),
    stray_voxels: int = 0,
    device: str = "auto",
    measure: bool = False,
    start_from: str | Path | None = None,
    on: str = "",
    listeners: Sequence[Listener] = (),
) -> list[Plan]:
    """Plan several bundles for a data set, which is inspected once.

    Args:
        dataset: As for ``plan``.
        files: The files to write, each with its ``dims``.
        data: As for ``plan``; so are the others.
        channels: The channels by name.
        images: Patterns of image files.
        labels: The pattern of label files.
        columns: Of a CSV with columns of other names.
        split_4d: How DICOM series are split that no header splits.
        splits: The file that says which cases are held out.
        memory_gb: Memory for a training step.
        budget: Time for a training run.
        class_weights: ``balanced``, or alike.
        network: ``auto``, or ``resenc``.
        label_values: What values or colours mean.
        stray_voxels: What is left out.
        device: What will be used for training.
        measure: Whether to time some steps.
        start_from: The trained bundle that training will start from.
        on: The cluster whose nodes inspect the cases.
        listeners: Told of progress, and of cases that are left out.

    Returns:
        The plans, in the order of ``files``.

    Raises:
        DatasetError: As ``plan``.
        OutputError: If one of the files exists; nothing is written then.
        MedsegError: As ``plan``.
    """
    root = Path(dataset)
    require_data(root)
    check_files(files)
    # Each is inspected by a single thread.
    workers = choose_case_workers(on, 1, listeners)
    if is_bundle(root):
        raise MedsegError(
            "this is a bundle, not data: train it with medseg train, or print its reasons with "
            "medseg plan --explain",
            source=root,
        )
    training_device = choose_device(device)
    constraints = make_constraints(
        training_device, memory_gb, budget, class_weights, network
    )
    parent = None
    if start_from is not None:
        parent = _open_parent(start_from, files, memory_gb, network)
        files = dict.fromkeys(files, parent.spec.network.dims)
    by_file = {
        file: replace(constraints, dims=dims) for file, dims in files.items()
    }
    requests = parse_label_requests(label_values)
    wishes = LabelWishes(tuple(requests), stray_voxels)
    if is_nnunet_plans(root):
        is_other = network != "auto"
        of_data = (channels, images, labels, columns, split_4d, splits, wishes)
        others = (*of_data, is_other, parent, on)
        raw = Path(data) if data else None
        return _convert_all(root, by_file, raw, listeners, any(others))
    if data is not None:
        raise MedsegError(
            "--data goes with nnU-Net's plans; otherwise DATASET is the data"
        )
    requested = _parse_request(channels, images, labels, columns)
    kept = relate_split(Path(splits), root) if splits else ""
    requested = replace(requested, split_4d=split_4d, splits=kept)
    inspected = inspect_dataset(root, requested, listeners, wishes, workers)
    plans = _draft_plans(inspected, by_file, training_device, parent)
    if not measure:
        return plans
    measured = []
    for planned in plans:
        with_cost = _add_cost(planned, root, training_device, listeners)
        measured.append(with_cost)
    return measured


def _open_parent(
    path: str | Path,
    files: Mapping[Path, int | None],
    memory_gb: float | None,
    network: str,
) -> Bundle:
    """Open the bundle that training will start from.

    Raises:
        BundleError: If it is none.
        MedsegError: If options ask for another network than it has.
    """
    parent = load_bundle(path)
    require_single(parent, "fine-tuned")
    dims = set(files.values()) - {None, parent.spec.network.dims}
    if dims or memory_gb is not None or network != "auto":
        raise MedsegError(
            "--from takes the network of the trained bundle as it is; leave out --dims, --memory "
            "and --network"
        )
    return parent


def _add_cost(
    planned: Plan,
    root: Path,
    device: torch.device,
    listeners: Sequence[Listener],
) -> Plan:
    """Return a plan with what training takes here; it stands without, where that fails."""
    notify(listeners, Notice("timing some steps of the planned network"))
    try:
        cost = measure_training(root, planned.spec, device)
    except (MedsegError, OSError) as error:
        # An OSError is of the folder for temporary files, which is full or not there.
        message = f"how long training takes could not be measured: {error}"
        notify(listeners, Notice(message))
        return planned
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        message = (
            "a step of the planned network does not fit into the memory that is free now; plan "
            "with less, such as --memory 4, or train where there is more"
        )
        notify(listeners, Notice(message))
        return planned
    return replace(planned, cost=cost)


def _parse_request(
    channels: Sequence[str],
    images: Sequence[str],
    labels: str | None,
    columns: str | None,
) -> Selection:
    """Return what a person says of the data.

    Raises:
        MedsegError: If a channel or a column is not right.
    """
    parsed = [parse_channel(text) for text in channels]
    return Selection(
        channels=tuple(parsed),
        image_patterns=tuple(images),
        label_pattern=labels or "",
        columns=parse_columns(columns) if columns else None,
    )


def _draft_plans(
    dataset: InspectedDataset,
    by_file: Mapping[Path, Constraints],
    device: torch.device,
    parent: Bundle | None = None,
) -> list[Plan]:
    """Draft a bundle for each file; with the network of a trained one, if it is to start from it.

    Raises:
        MedsegError: If three dimensions are wanted of pictures; nothing is written then.
    """
    if dataset.pictures and any(each.dims == 3 for each in by_file.values()):
        raise MedsegError(
            "the data set holds pictures, which have two dimensions; leave out --dims",
            source=dataset.root,
        )
    plans = []
    for file, constraints in by_file.items():
        adapted = adapt_constraints(constraints, dataset, device)
        content = draft_bundle(dataset, file, adapted)
        if parent is not None:
            content = replace_by_parent_fields(content, parent)
        spec = write_planned(content, file)
        planned = Plan(file, spec, dataset.fingerprint, dataset.recognised)
        plans.append(planned)
    return plans


def _convert_all(
    plans_file: Path,
    by_file: Mapping[Path, Constraints],
    data: Path | None,
    listeners: Sequence[Listener],
    has_options: bool,
) -> list[Plan]:
    """Convert nnU-Net's plans into each bundle.

    Raises:
        MedsegError: If options were given that go with data.
    """
    if has_options:
        raise MedsegError(
            "--channel, --images, --labels, --columns, --split-4d, --splits, --from and "
            "--leave-out-stray go with data; nnU-Net's plans go with imagesTr/ and labelsTr/, "
            "whose dataset.json names channels and labels"
        )
    plans = []
    for file, constraints in by_file.items():
        planned = _convert(plans_file, file, data, constraints, listeners)
        plans.append(planned)
    return plans


def _convert(
    plans_file: Path,
    file: Path,
    data: Path | None,
    constraints: Constraints,
    listeners: Sequence[Listener],
) -> Plan:
    content = draft_converted(plans_file, file, data, constraints, listeners)
    spec = write_planned(content, file)
    return Plan(file, spec, Fingerprint((), ()))
