"""A MONAI Bundle of others as a bundle that segments as it does, as far as its configs are data."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medseg.errors import MedsegError
from medseg.interop.described_model import (
    DescribedModel,
    OverlappingChannels,
    describe_exclusive,
)
from medseg.interop.monai_config import inferer, network
from medseg.interop.monai_config.config import (
    Config,
    as_component,
)
from medseg.interop.monai_config.files import find_config, read_config
from medseg.interop.monai_config.inferer import (
    DescribedWindows,
    describe_windows,
)
from medseg.interop.monai_config.metadata import Metadata, find_licence
from medseg.interop.monai_config.network import (
    DescribedNetwork,
    describe_network,
)
from medseg.interop.monai_config.postprocessing import (
    DescribedLabels,
    ScoreReader,
)
from medseg.interop.monai_config.preprocessing import (
    ChainReader,
    check_padding_is_last,
)
from medseg.interop.monai_config.transforms import list_transforms
from medseg.interop.monai_config.weights import (
    MODELS,
    RUN,
    loads_weights,
    read_weights,
)

Fields = dict[str, Any]

KIND = "MONAI Bundle"
INFERENCE, METADATA = "inference", "metadata"

_KNOWN_RUNS = re.compile(
    r"(?:monai\.utils\.)?set_determinism"
    r"|\$(?:import [\w., ]+|from [\w.]+ import [\w, ]+"
    r"|monai\.utils\.set_determinism\([\w=, ]*\)"
    r"|setattr\(torch\.backends\.cudnn, ?'\w+', ?\w+\)"
    r"|os\.makedirs\(@\w+(, ?exist_ok=True)?\)"
    r"|@evaluator\.run\(\)|@\w+\.eval\(\))"
)
_OWN_CODE = re.compile(r"\$\s*(?:import|from)\s+(scripts[\w.]*)")
_EVALUATOR_ARGUMENTS = frozenset(
    (
        *("device", "val_data_loader", "network", "inferer", "amp"),
        *("postprocessing", "val_handlers", "key_val_metric", "epoch_length"),
        *("additional_metrics", "non_blocking", "metric_cmp_fn"),
        *("to_kwargs", "amp_kwargs", "mode"),
    )
)
_TUMOUR = (("whole tumor", 2), ("tumor core", 1), ("enhancing tumor", 4))
"""BraTS's regions, each inside the one before, and their values in label maps."""
_NONSENSE = (
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)
"""What values of other kinds than MONAI's raise, where nobody looked at their kind before."""
_VERSION = re.compile(r"[0-9]{1,6}\.[0-9]{1,6}\.[0-9]{1,6}")


def read_monai_bundle(folder: Path) -> DescribedModel:
    """Read a MONAI Bundle: its configs as data, its weights as tensors.

    Args:
        folder: With ``configs/inference.json`` (or ``.yaml``) and ``models``.

    Raises:
        MedsegError: If the configs are no data, or ask for what medseg does not know; says where.
        CheckpointError: If the weights are absent, damaged or forged.
    """
    file = find_config(folder, INFERENCE)
    if file is None:
        raise MedsegError(
            "has no configs/inference.json, .yaml or .yml, which says how a MONAI Bundle segments",
            source=folder,
        )
    config = Config(read_config(file), file)
    told = find_config(folder, METADATA)
    metadata = Metadata({} if told is None else read_config(told))
    if metadata.is_exported:
        raise MedsegError(
            "is what medseg wrote for stock MONAI, of a bundle of its own, and is not read back; "
            "segment with that bundle, the run folder with bundle.json in it that was exported",
            source=folder,
        )
    reader = _BundleReader(config, metadata)
    try:
        content = reader.describe()
    except _NONSENSE as error:
        raise MedsegError(
            "its configuration makes no sense", source=file, detail=str(error)
        ) from error
    weights_file, weights = read_weights(config, folder)
    sources = {f"configs/{path.name}": path for path in (file, told) if path}
    name = folder.resolve().name
    version = metadata.get_text("version")
    return DescribedModel(
        kind=KIND,
        name=name,
        version=version,
        software=f"MONAI {metadata.get_text('monai_version')}".strip(),
        dataset=metadata.get_text("data_source"),
        licence=find_licence(folder),
        content=content | _describe_header(metadata),
        file=weights_file,
        weights=weights,
        order=reader.order,
        sources={**sources, f"{MODELS}/{weights_file.name}": weights_file},
        remarks=tuple(reader.remarks),
    )


class _BundleReader:
    """Reads the sections of a bundle's config.

    Args:
        config: Its ``inference`` config.
        metadata: What it says of itself.

    Attributes:
        order: Which output channel comes first, second, …; empty for the network's own order.
        remarks: What a person should know.
    """

    def __init__(self, config: Config, metadata: Metadata) -> None:
        self._config = config
        self._metadata = metadata
        self.order: tuple[int, ...] = ()
        self.remarks = list(_check_runs(config))

    def describe(self) -> Fields:
        """Return the content of ``bundle.json``."""
        evaluator = self._get_evaluator()
        described = self._read_network(evaluator)
        windows = self._read_windows(evaluator, described)
        chain = self._read_chain(evaluator, described, windows)
        scores = self._read_scores(evaluator, chain, described)
        structures = self._describe_structures(scores, described.outputs)
        kept: tuple[str, ...] = ()
        if scores.keep_largest:
            labels = structures["labels"]
            kept = tuple(labels[n - 1]["name"] for n in scores.keep_largest)
        inference = windows.inference | {
            "resample": scores.resample,
            "keep_largest": kept,
            "keep_largest_on": scores.keep_largest_on,
        }
        self.remarks += [*chain.remarks, *scores.remarks]
        return {
            "channels": self._metadata.describe_channels(
                described.inputs, chain.selected
            ),
            **structures,
            "preprocessing": chain.describe(),
            "network": described.section,
            "training": {"patch": windows.patch},
            "inference": inference,
        }

    def _get_evaluator(self) -> Fields:
        config = self._config
        evaluator = config.get("evaluator")
        if evaluator is None:
            names = ("inferer", "postprocessing")
            sections = {name: config.get(name) for name in names}
            loader = {"dataset": {"transform": config.get("preprocessing")}}
            network_def = config.get("network_def")
            return {
                **sections,
                "network": network_def,
                "val_data_loader": loader,
            }
        component = as_component(
            evaluator, "evaluator", config, "monai.engines"
        )
        if component.name != "SupervisedEvaluator":
            raise component.refuse("known: SupervisedEvaluator")
        component.require(mode="eval")
        for argument in component.arguments:
            if argument not in _EVALUATOR_ARGUMENTS:
                raise component.refuse("is not known", argument)
        self._check_handlers(component.arguments.get("val_handlers"))
        return component.arguments

    def _check_handlers(self, handlers: Any) -> None:
        """Refuse handlers that may change what the evaluator computes."""
        path = self._locate("val_handlers", "evaluator::val_handlers")
        if not isinstance(handlers, list | None):
            raise self._config.refuse(path, "a list of handlers is known")
        for position, handler in enumerate(handlers or []):
            component = as_component(
                handler, f"{path}::{position}", self._config, "monai.handlers"
            )
            if component.name == "PostProcessing":
                raise component.refuse("known: postprocessing by evaluators")

    def _locate(self, argument: str, default: str) -> str:
        """Return where the section stands that an argument of the evaluator refers to."""
        entry = f"evaluator::{argument}"
        return self._config.find_reference(entry) or default

    def _read_network(self, evaluator: Fields) -> DescribedNetwork:
        path = self._locate("network", "network_def")
        component = as_component(
            evaluator.get("network"), path, self._config, network.MODULE
        )
        return describe_network(component)

    def _read_windows(
        self, evaluator: Fields, described: DescribedNetwork
    ) -> DescribedWindows:
        path = self._locate("inferer", "inferer")
        component = as_component(
            evaluator.get("inferer"), path, self._config, inferer.MODULE
        )
        return describe_windows(component, described.dims)

    def _read_chain(
        self,
        evaluator: Fields,
        described: DescribedNetwork,
        windows: DescribedWindows,
    ) -> ChainReader:
        loader = evaluator.get("val_data_loader")
        dataset = loader.get("dataset") if isinstance(loader, dict) else None
        chain = dataset.get("transform") if isinstance(dataset, dict) else None
        path = self._find_chain()
        components = list_transforms(chain, path, self._config)
        check_padding_is_last(components)
        reader = ChainReader(described.inputs, windows)
        for component in components:
            reader.read(component)
        return reader

    def _find_chain(self) -> str:
        loader = self._locate("val_data_loader", "dataloader")
        find = self._config.find_reference
        dataset = find(f"{loader}::dataset") or f"{loader}::dataset"
        return find(f"{dataset}::transform") or "preprocessing"

    def _read_scores(
        self,
        evaluator: Fields,
        chain: ChainReader,
        described: DescribedNetwork,
    ) -> DescribedLabels:
        path = self._locate("postprocessing", "postprocessing")
        components = list_transforms(
            evaluator.get("postprocessing"), path, self._config
        )
        reader = ScoreReader(chain.moves, described.outputs - 1)
        for component in components:
            reader.read(component)
        return reader.describe(path, self._config)

    def _describe_structures(
        self, scores: DescribedLabels, outputs: int
    ) -> Fields:
        names = self._metadata.name_outputs(outputs)
        if not scores.overlap:
            if outputs < 2:
                raise self._config.refuse(
                    "network_def::out_channels",
                    "one channel, of which argmax makes background alone",
                )
            return describe_exclusive(names)
        channels = self._find_overlap(scores, names)
        self.order = channels.order
        return channels.describe()

    def _find_overlap(
        self, scores: DescribedLabels, names: tuple[str, ...]
    ) -> OverlappingChannels:
        """Return which channel covers which in a label map."""
        if scores.painted:
            self._check_painted(scores.painted, len(names))
            return OverlappingChannels(names, scores.painted, are_nested=True)
        nested = _find_tumour(names)
        if nested:
            return OverlappingChannels(names, nested, are_nested=True)
        if len(names) > 1:
            self.remarks.append(
                "its channels may overlap, and it says not which covers which: label maps show the "
                "last channel that is there"
            )
        in_order = [(channel, channel + 1) for channel in range(len(names))]
        return OverlappingChannels(names, in_order, are_nested=False)

    def _check_painted(
        self, painted: tuple[tuple[int, int], ...], count: int
    ) -> None:
        channels = sorted(channel for channel, _ in painted)
        values = {value for _, value in painted}
        is_whole = channels == list(range(count))
        if not is_whole or len(values) < count or min(values) < 1:
            raise self._config.refuse(
                self._locate("postprocessing", "postprocessing"),
                "each channel needs a value of its own in the label map",
            )


def _find_tumour(names: tuple[str, ...]) -> list[tuple[int, int]]:
    """Return channel and value of BraTS's regions in order; empty if the names are others."""
    told = [name.lower().replace("tumour", "tumor") for name in names]
    known = [name for name, _ in _TUMOUR]
    if sorted(told) != sorted(known):
        return []
    return [(told.index(name), value) for name, value in _TUMOUR]


def _check_runs(config: Config) -> Iterator[str]:
    """Refuse what runs beside the evaluator and could change it; say what of it is left out."""
    for entry in RUN:
        for path, text in config.list_texts(entry):
            if not (_KNOWN_RUNS.fullmatch(text) or loads_weights(text, config)):
                shown = "".join(filter(str.isprintable, text[:100]))
                raise config.refuse(path, f"the expression {shown}")
    for _, text in config.list_texts("imports"):
        own = _OWN_CODE.match(text)
        if own is not None:
            yield (
                "it brings code of its own, which was not run; no section that was read names it"
            )
            return


def _describe_header(metadata: Metadata) -> Fields:
    """Return what a bundle's header says, as far as it says anything."""
    fields: Fields = {
        "description": metadata.get_text("description"),
        "intended_use": metadata.get_text("intended_use"),
        "authors": metadata.get_text("authors"),
        "references": metadata.list_texts("references"),
    }
    version = metadata.get_text("version")
    if _VERSION.fullmatch(version):
        fields["version"] = version
    return {name: value for name, value in fields.items() if value}
