"""``bundle.json`` ↔ ``Bundle``: reading with every fault told at once, overriding, writing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from medseg._support.folders import refuse_unreadable
from medseg.bundle.assembly import (
    describe_as_bundle,
    find_misfits,
    get_name_table,
    trace_sources,
)
from medseg.bundle.overrides import apply_override
from medseg.bundle.reading import (
    parse_assembly,
    parse_trained,
    read_json,
    use_tuples,
)
from medseg.bundle.shipped import find_bundle_path
from medseg.bundle.spec import (
    ASSEMBLY_SCHEMA_ID,
    SCHEMA_ID,
    AssemblySpec,
    BundleSpec,
    PartSpec,
    StageSpec,
    TrainedSpec,
)
from medseg.bundle.validation_messages import (
    explain_faults,
    find_hidden_contradictions,
)
from medseg.errors import BundleError, Fault

BUNDLE_FILE = "bundle.json"
ASSEMBLY_FILE = "assembly.json"
MODELS = Path("models")
WEIGHTS_FILE = MODELS / "model.pt"
REFINER_FILE = MODELS / "refiner.pt"
TRAINED_FILE = MODELS / "trained.json"


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk.

    Attributes:
        spec: What its ``bundle.json`` says, defaults filled in.
        folder: Where it lies; its paths are relative to this.

    Examples:
        >>> from medseg.testing import write_example_bundle
        >>> bundle = load_bundle(write_example_bundle())
        >>> bundle.spec.name, bundle.is_trained
        ('example', False)
    """

    spec: BundleSpec
    folder: Path

    @property
    def is_trained(self) -> bool:
        """Whether it has weights."""
        return all(member.is_file() for member in self.members)

    @property
    def members(self) -> tuple[Path, ...]:
        """The weights of its networks: of one, or of one per fold.

        Raises:
            BundleError: If its ``trained.json`` is wrong.
        """
        return tuple(
            self.weights.with_name(name) for name in self.trained.members
        )

    @property
    def weights(self) -> Path:
        """Where its weights are, or will be."""
        return self.folder / WEIGHTS_FILE

    @cached_property
    def trained(self) -> TrainedSpec:
        """What its training run found, read once; the defaults where no such file was written.

        Raises:
            BundleError: If the file is wrong.
        """
        file = self.folder / TRAINED_FILE
        refuse_unreadable(file.parent, BundleError, by_name=True)
        if not file.exists():
            return TrainedSpec()
        return parse_trained(read_json(file), file)

    @property
    def decided(self) -> BundleSpec:
        """The spec, with what its training run decided in place of what was left to it.

        Raises:
            BundleError: If its ``trained.json`` is wrong.
        """
        if self.spec.inference.keep_largest is not None:
            return self.spec
        finding = self.trained.keep_largest
        kept = finding.kept if finding else ()
        inference = self.spec.inference.model_copy(
            update={"keep_largest": kept}
        )
        return self.spec.model_copy(update={"inference": inference})

    @property
    def is_made_up(self) -> bool:
        """Whether it was trained on made-up data, so that its results say nothing of patients.

        Raises:
            BundleError: If its ``trained.json`` is wrong.
        """
        return self.spec.data.made_up or self.trained.made_up

    @property
    def data_root(self) -> Path:
        """The folder of its training data."""
        return (self.folder / self.spec.data.root).resolve()


def with_trained(bundle: Bundle, trained: TrainedSpec) -> Bundle:
    """Return a bundle as it is with other findings, of which nothing is written."""
    bundle = replace(bundle)
    vars(bundle)["trained"] = trained  # where the cached property looks
    return bundle


@dataclass(frozen=True)
class Step:
    """One bundle of an assembly.

    Attributes:
        spec: What the assembly says of it: a stage or a part.
        bundle: The bundle.
        names: Those of its labels that stand in the result → their names there; none of a stage.
    """

    spec: StageSpec | PartSpec
    bundle: Bundle
    names: Mapping[str, str]


@dataclass(frozen=True)
class Assembly(Bundle):
    """Bundles that segment one scan together, and what that makes to others: a bundle.

    Attributes:
        assembly: What its ``assembly.json`` says.
        steps: Its bundles, in the order in which they run.
    """

    assembly: AssemblySpec
    steps: tuple[Step, ...]

    @property
    def is_trained(self) -> bool:
        """Whether all its bundles have weights."""
        return all(step.bundle.is_trained for step in self.steps)

    @property
    def members(self) -> tuple[Path, ...]:
        """The weights of all its networks."""
        return tuple(
            file for step in self.steps for file in step.bundle.members
        )

    @property
    def weights(self) -> Path:
        """The weights of its first network; an assembly has no file of its own."""
        return self.steps[0].bundle.weights

    @property
    def trained(self) -> TrainedSpec:
        """Nothing: what training runs found stands in its bundles."""
        return TrainedSpec()

    @property
    def is_made_up(self) -> bool:
        """Whether one of its bundles was trained on made-up data."""
        return any(step.bundle.is_made_up for step in self.steps)

    def select(self, labels: Iterable[str]) -> tuple[Step, ...]:
        """Return the steps that some of its labels need, in the order in which they run."""
        wanted = set(labels)
        painting = [
            step.spec.name
            for step in self.steps
            if wanted & set(step.names.values())
        ]
        crops = {
            step.spec.name: step.spec.crop.source
            for step in self.steps
            if step.spec.crop is not None
        }
        needed = trace_sources(crops, painting)
        return tuple(step for step in self.steps if step.spec.name in needed)


def list_networks(bundle: Bundle) -> dict[str, Bundle]:
    """Return the bundles that have networks: an assembly's, by their folders in it, or the one."""
    if isinstance(bundle, Assembly):
        return {step.spec.bundle: step.bundle for step in bundle.steps}
    return {"": bundle}


def require_single(bundle: Bundle, what: str) -> None:
    """Refuse an assembly where one network's bundle is needed.

    Args:
        bundle: A bundle or an assembly.
        what: What cannot be done with an assembly, as in ``"trained"``.

    Raises:
        BundleError: If it is an assembly; names its bundles.
    """
    if not isinstance(bundle, Assembly):
        return
    folders = [step.spec.bundle for step in bundle.steps]
    raise BundleError(
        f"an assembly is not {what} as a whole; give one of its bundles",
        source=bundle.folder,
        detail=", ".join(folders),
    )


def load_bundle(
    path: str | os.PathLike[str],
    overrides: Iterable[str] = (),
    *,
    complete: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
) -> Bundle:
    """Read a bundle. Nothing it holds is run, imported or looked up.

    Args:
        path: A ``bundle.json`` (any name), a folder with one, or the name of a bundle that comes
            with medseg; or an ``assembly.json``, or a folder with one.
        overrides: Assignments such as ``training.steps=200`` that win over the file. A value
            is JSON; what is not JSON is text.
        complete: Adds to the file's content what it leaves out, before overrides are applied.

    Returns:
        The bundle, checked; an ``Assembly`` if it is one.

    Raises:
        BundleError: With every fault found: its JSON path, what came, what is allowed.

    Examples:
        >>> from medseg.testing import write_example_bundle
        >>> load_bundle(write_example_bundle(), ["training.steps=200"]).spec.training.steps
        200
    """
    found = find_bundle_path(path)
    file = _locate_file(found) if found.is_dir() else found
    content = read_json(file)
    if complete is not None and not _describes_assembly(content):
        content = complete(content)
    for override in overrides:
        apply_override(content, override)
    folder = file.parent.resolve()
    if _describes_assembly(content):
        return _load_assembly(content, file, folder)
    return Bundle(parse_spec(content, file), folder)


def _locate_file(folder: Path) -> Path:
    """Return the file of a folder that says what bundle or assembly it is."""
    bundle, assembly = folder / BUNDLE_FILE, folder / ASSEMBLY_FILE
    if bundle.exists() and assembly.exists():
        raise BundleError(
            f"the folder holds both {BUNDLE_FILE} and {ASSEMBLY_FILE}; move one of them away, or "
            "give the file that is meant",
            source=folder,
        )
    return assembly if assembly.exists() else bundle


def _describes_assembly(content: Mapping[str, Any]) -> bool:
    return "parts" in content or content.get("$schema") == ASSEMBLY_SCHEMA_ID


def _load_assembly(
    content: Mapping[str, Any], file: Path, folder: Path
) -> Assembly:
    """Read an assembly and its bundles, which lie inside its folder.

    Raises:
        BundleError: With every fault of its file; or those of the first bundle that has some.
    """
    spec = parse_assembly(content, file)
    bundles = [
        _load_step(step, place, folder)
        for place, step in zip(spec.places, spec.steps, strict=True)
    ]
    specs = [bundle.spec for bundle in bundles]
    faults = find_misfits(spec, specs)
    if faults:
        raise BundleError(
            "the assembly does not fit its bundles:", faults, source=file
        )
    steps = []
    for step, bundle in zip(spec.steps, bundles, strict=True):
        names = get_name_table(step, bundle.spec)
        steps.append(Step(step, bundle, names))
    whole = parse_spec(describe_as_bundle(spec, specs), file)
    return Assembly(whole, folder, spec, tuple(steps))


def _load_step(step: StageSpec | PartSpec, place: str, folder: Path) -> Bundle:
    """Read one bundle of an assembly: a folder that really lies inside the assembly's."""
    where = f"{place}.bundle"
    inner = (folder / step.bundle).resolve()
    if not inner.is_relative_to(folder):
        fault = Fault(where, "lies outside the assembly's folder, by a link")
    elif (inner / ASSEMBLY_FILE).exists():
        fault = Fault(where, "is an assembly; its parts are bundles")
    elif not (inner / BUNDLE_FILE).is_file():
        fault = Fault(where, f"is no folder with a {BUNDLE_FILE}")
    else:
        return Bundle(parse_spec(read_json(inner / BUNDLE_FILE), inner), inner)
    raise BundleError("the assembly is not complete:", [fault], source=folder)


def is_bundle(file: Path) -> bool:
    """Tell whether a file is a ``bundle.json``, valid or not, by its content.

    A folder is none: plans are often written into the folder of their data.
    """
    if file.suffix.lower() != ".json" or not file.is_file():
        return False
    try:
        content = read_json(file)
    except BundleError:
        return False
    return (
        content.get("$schema") in (SCHEMA_ID, ASSEMBLY_SCHEMA_ID)
        or {"labels", "parts"} <= content.keys()
        or {"channels", "training"} <= content.keys()
    )


def parse_spec(
    content: Mapping[str, Any], source: str | Path | None = None
) -> BundleSpec:
    """Check the content of a ``bundle.json``.

    Args:
        content: What JSON gave.
        source: The file it came from, for errors.

    Raises:
        BundleError: With every fault found.
    """
    try:
        content = use_tuples(content)
        return BundleSpec.model_validate(content, strict=True)
    except RecursionError as error:
        raise BundleError(
            "the JSON is nested too deeply", source=source
        ) from error
    except ValidationError as error:
        faults = explain_faults(error, content)
        faults += find_hidden_contradictions(error, content)
        plural = "s" if len(faults) > 1 else ""
        headline = f"the bundle has {len(faults)} fault{plural}:"
        raise BundleError(headline, faults, source=source) from None
