"""The Segmenter's label maps are those of the bundle's MONAI chain, in bounded memory."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation
from support.bundles import made_spec
from support.preprocessing import invert
from support.scans import TURNED, affine_of, write_scan

from medseg.bundle.bundle import load_bundle
from medseg.bundle.spec import BundleSpec
from medseg.bundle.weights import load_weights
from medseg.errors import BundleError, CheckpointError, MedsegError, ScanError
from medseg.inference import bundle_prediction
from medseg.inference.arithmetic_check import refuse_wrong_arithmetic
from medseg.inference.backends.pytorch import TorchMember
from medseg.inference.bundle_predictor import Ensemble
from medseg.inference.segmenter import Segmenter
from medseg.io import read_image, read_labels
from medseg.networks.building import build_network
from medseg.networks.inferers import build_window_inferer
from medseg.preprocessing.case_input import Preprocessing
from medseg.preprocessing.transforms import IMAGE
from medseg.testing import make_phantom
from medseg.training.run_folder import RunFolder
from medseg.volume import Affine, Array, Volume

CT = {"kind": "window", "low": -300, "high": 300}
FLAT = {
    "network": {
        "kind": "unet",
        "dims": 2,
        "channels": [4, 8, 8],
        "strides": [1, 2, 2],
    },
    "training": {"patch": [16, 24]},
}


def scan(
    shape: tuple[int, ...] = (25, 21, 30),
    affine: Affine | None = None,
    channels: int = 1,
    seed: int = 0,
) -> Volume:
    rng = np.random.default_rng(seed)
    array = gaussian_filter(rng.normal(0, 1, (channels, *shape)), (0, 2, 2, 2))
    array = (array / array.std() * 200).astype(np.float32)
    affine = np.diag([-1.2, 1.5, 2, 1]) if affine is None else affine
    return Volume(np.asfortranarray(array), affine, source="scan")


def stock(
    spec: BundleSpec, network: torch.nn.Module, volume: Volume
) -> torch.Tensor:
    """Return the scores of the bundle's MONAI chain on the scan's grid."""
    chain = Preprocessing(spec)
    image = chain(volume)[IMAGE]
    with torch.inference_mode():
        scores = build_window_inferer(spec)(image[None].as_tensor(), network)[0]
    return invert(chain, scores, image)


def network_of(folder: Path) -> torch.nn.Module:
    network = build_network(load_bundle(folder).spec, supervised=False)
    network.load_state_dict(load_weights(RunFolder(folder).weights))
    return network.eval()


def torch_member(
    network: torch.nn.Module, precision: torch.dtype = torch.float32
) -> TorchMember:
    return TorchMember(network, 3, torch.device("cpu"), precision)


def check_equal(folder: Path, volume: Volume) -> Array:
    """Compare with stock MONAI; voxels may differ only where two classes tie."""
    got = Segmenter(folder, "cpu").segment(volume).labels
    wanted = stock(load_bundle(folder).spec, network_of(folder), volume).topk(
        2, dim=0
    )
    different = torch.from_numpy(got.astype(np.int64)) != wanted.indices[0]
    ties = wanted.values[0] - wanted.values[1] < 1e-4
    assert got.shape == volume.shape
    assert not (different & ~ties).any()
    assert different.float().mean() < 1e-3
    return got


def turned(
    angles: tuple[float, float, float], spacing: tuple[float, ...]
) -> Affine:
    affine: Affine = np.eye(4)
    turn = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    affine[:3, :3] = turn @ np.diag(spacing)
    affine[:3, 3] = 10, -70, 33
    return affine


SHEARED = turned((90, 0, 5), (1.1, 1.3, 2.0)) @ np.array(
    [[1, 0.1, 0, 0], [0, 1, 0.3, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
)


@pytest.mark.parametrize(
    ("sections", "volume"),
    [
        ({"inference": {"overlap": 0.3}}, scan()),
        (
            {
                "preprocessing": {
                    "spacing_mm": [2, 2, 2],
                    "intensity": CT,
                    "crop_above": 0,
                }
            },
            scan(),
        ),
        (
            {
                "preprocessing": {
                    "spacing_mm": [1, 1, None],
                    "intensity": "minmax",
                }
            },
            scan((14, 9, 17), turned((15, -80, 33), (1.5, 0.9, 3))),
        ),
        (
            {"preprocessing": {"spacing_mm": [1.5, 1.5, 1.5]}},
            scan((16, 18, 14), SHEARED),
        ),
        (
            {"preprocessing": {"spacing_mm": [4, 4, 4]}},
            scan((18, 5, 7)),
        ),  # less than a window
        (
            {
                "labels": [{"index": n, "name": f"l{n}"} for n in range(1, 30)],
                "preprocessing": {
                    "spacing_mm": [1.7, 1.7, 1.7],
                    "crop_above": 50,
                },
            },
            scan((20, 20, 12)),
        ),
        (
            FLAT
            | {
                "channels": [
                    {"name": "a", "modality": "MR"},
                    {"name": "b", "modality": "MR"},
                ],
                "preprocessing": {
                    "spacing_mm": [1, 1, None],
                    "intensity": [
                        {"kind": "zscore", "nonzero": True},
                        "minmax",
                    ],
                },
            },
            scan((30, 21, 6), channels=2),
        ),
        (FLAT | {"preprocessing": {"input": "picture"}}, scan((40, 12, 1))),
    ],
    ids=[
        "plain",
        "box",
        "oblique",
        "sheared",
        "small",
        "30 classes",
        "slices",
        "picture",
    ],
)
def test_labels_are_those_of_stock_monai(
    untrained_bundle: Callable[..., Path],
    sections: dict[str, Any],
    volume: Volume,
) -> None:
    labels = check_equal(untrained_bundle(**sections), volume)
    assert len(np.unique(labels)) > 1


@pytest.mark.parametrize("norm", ["instance", "batch", "group"])
def test_every_normalisation_is_computed_as_in_monai(
    untrained_bundle: Callable[..., Path], norm: str
) -> None:
    network = {
        "kind": "unet",
        "channels": [8, 8, 8],
        "strides": [1, 2, 2],
        "norm": norm,
    }
    check_equal(untrained_bundle(network=network), scan((17, 20, 22)))


def windows_of(image: torch.Tensor) -> torch.Tensor:
    """Cut ``(channels, 32, 32, 32)`` into eight windows of 16³."""
    halves = image.unfold(1, 16, 16).unfold(2, 16, 16).unfold(3, 16, 16)
    return halves.flatten(1, 3).transpose(0, 1)


def trained_on_phantom(folder: Path) -> Path:
    """Train for a moment, so that scores are sure inside organs and change at their rims."""
    spec = load_bundle(folder).spec
    volume, labels = make_phantom(0, (32, 32, 32), 7.0)
    image = windows_of(Preprocessing(spec)(volume)[IMAGE].as_tensor())
    truth = windows_of(torch.from_numpy(labels.astype(np.int64))[None])[:, 0]
    torch.manual_seed(0)
    network = build_network(spec, supervised=False).train()
    rarity = torch.tensor([1.0, 5.0, 5.0])
    optimiser = torch.optim.AdamW(network.parameters(), 1e-2)
    for _ in range(40):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(
            network(image), truth, rarity
        ).backward()
        optimiser.step()
    RunFolder(folder).save_weights(network.state_dict())
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from medseg.bundle.bundle import parse_spec
    from medseg.bundle.spec_files import write_bundle

    folder = tmp_path_factory.mktemp("trained") / "bundle"
    spec = parse_spec(
        {
            "name": "phantom",
            "channels": [{"name": "CT", "modality": "CT"}],
            "labels": [
                {"index": 1, "name": "liver"},
                {"index": 2, "name": "kidney"},
            ],
            "preprocessing": {
                "spacing_mm": [7, 7, 7],
                "intensity": {"kind": "window", "low": 0, "high": 220},
            },
            "network": {
                "kind": "unet",
                "channels": [4, 8, 8],
                "strides": [1, 2, 2],
            },
            "training": {"patch": [16, 16, 16]},
        }
    )
    write_bundle(spec, RunFolder(folder).bundle)
    return trained_on_phantom(folder)


def test_a_trained_network_gives_the_same_labels(trained: Path) -> None:
    volume, truth = make_phantom(1, (48, 44, 40), 4.5)
    labels = check_equal(trained, volume)
    assert ((labels == 2) & (truth == 2)).sum() > 0.5 * (truth == 2).sum()


def test_bf16_changes_only_rims(trained: Path) -> None:
    volume, _ = make_phantom(1, (48, 44, 40), 4.5)
    exact = Segmenter(trained, "cpu").segment(volume).labels
    coarse = Segmenter(trained, "cpu", precision="bf16").segment(volume).labels
    assert 0 < (exact != coarse).mean() < 0.02


def test_mirroring_averages_the_scores_of_all_flips(
    untrained_bundle: Callable[..., Path],
) -> None:
    training = {"patch": [16, 16, 16], "augmentation": {"mirror_axes": [0, 2]}}
    folder = untrained_bundle(training=training)
    volume, network = scan((16, 16, 16), np.eye(4)), network_of(folder)
    image = Preprocessing(load_bundle(folder).spec)(volume)[IMAGE][
        None
    ].as_tensor()
    with torch.inference_mode():
        flips = [[], [2], [4], [2, 4]]
        scores = sum(network(image.flip(flip)).flip(flip) for flip in flips) / 4
        mirrored = Ensemble([torch_member(network)], 3, (0, 2))(image)
    assert torch.allclose(mirrored, scores, atol=1e-5)
    got = Segmenter(folder, "cpu", mirror=True).segment(volume).labels
    assert (got != scores[0].max(dim=0).indices.numpy()).mean() < 1e-3
    assert (
        got != Segmenter(folder, "cpu").segment(volume).labels
    ).mean() > 0.01


@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 1)])
def test_mirror_axes_are_counted_from_the_first(axes: tuple[int, ...]) -> None:
    class Ramp:
        """A network whose scores tell along which axes its windows were flipped."""

        precision = torch.float32

        def __call__(self, windows: torch.Tensor) -> torch.Tensor:
            ramps = [
                torch.linspace(0, 10**n, size)
                for n, size in enumerate(windows.shape[2:])
            ]
            return windows + sum(torch.meshgrid(*ramps, indexing="ij"))

    windows = torch.zeros(1, 1, 4, 5, 6)
    mean = Ensemble([Ramp()], 3, axes)(windows)[0, 0]
    for axis in range(3):
        is_flat = torch.allclose(mean.select(axis, 0), mean.select(axis, -1))
        assert is_flat == (axis in axes)


def test_a_2d_network_is_not_flipped_along_the_third_axis() -> None:
    assert Ensemble([], 2, (0, 2))._flips == [(), (2,)]


def test_the_members_of_a_bundle_are_averaged(
    untrained_bundle: Callable[..., Path],
) -> None:
    folder, other = untrained_bundle(), untrained_bundle("other", seed=1)
    shutil.copy(other / "models" / "model.pt", folder / "models" / "fold_1.pt")
    (folder / "models" / "trained.json").write_text(
        '{"members": ["model.pt", "fold_1.pt"]}'
    )
    windows = torch.randn(1, 1, 16, 16, 16)
    with torch.inference_mode():
        first, second = network_of(folder)(windows), network_of(other)(windows)
        both = Segmenter(folder, "cpu")._predictor.ensemble(windows)
        alone = Segmenter(
            folder, "cpu", fold_ensemble=False
        )._predictor.ensemble(windows)
    assert torch.allclose(both, (first + second) / 2, atol=1e-5)
    assert torch.allclose(alone, first, atol=1e-5)


@pytest.mark.parametrize(
    "name", ["../model.pt", "a/b.pt", "/model.pt", "..", "model.pt/../x.pt"]
)
def test_members_never_lie_outside_of_the_bundle(
    untrained_bundle: Callable[..., Path], name: str
) -> None:
    folder = untrained_bundle()
    (folder / "models" / "trained.json").write_text(
        json.dumps({"members": [name]})
    )
    with pytest.raises(BundleError, match="members"):
        Segmenter(folder, "cpu")


class CoarseMember:
    """A network whose coarse arithmetic is off by a factor."""

    def __init__(self, factor: float) -> None:
        self.factor, self.is_coarse = factor, False
        self.precision = torch.bfloat16

    @contextlib.contextmanager
    def arithmetic(self) -> Iterator[None]:
        self.is_coarse = True
        yield
        self.is_coarse = False

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        return windows * (self.factor if self.is_coarse else 1)


@pytest.mark.parametrize(
    ("factor", "precision"),
    [(1.1, torch.bfloat16), (0.7, torch.float32), (np.nan, torch.float32)],
)
def test_wrong_arithmetic_of_a_gpu_is_not_used(
    factor: float, precision: torch.dtype
) -> None:
    ensemble = Ensemble([CoarseMember(factor)], 3)
    refuse_wrong_arithmetic(ensemble, made_spec(), torch.device("cpu"))
    assert {member.precision for member in ensemble.members} == {precision}


def test_a_grey_picture_is_red_green_and_blue(
    untrained_bundle: Callable[..., Path],
) -> None:
    rgb = [{"name": name} for name in ("red", "green", "blue")]
    folder = untrained_bundle(
        **FLAT | {"preprocessing": {"input": "picture"}, "channels": rgb}
    )
    grey = scan((30, 20, 1))
    colours = grey.with_array(np.repeat(grey.array, 3, axis=0))
    segmenter = Segmenter(folder, "cpu")
    assert np.array_equal(
        segmenter.segment(grey).labels, segmenter.segment(colours).labels
    )
    with pytest.raises(ScanError, match="needs 3"):
        segmenter.segment(scan((30, 20, 2)))


def test_what_comes_back(untrained_bundle: Callable[..., Path]) -> None:
    volume = scan()
    found = Segmenter(untrained_bundle(), "cpu").segment(volume)
    assert found.labels.dtype == np.uint8
    assert found.label_set.names == ("liver", "kidney")
    assert found.volumes_ml["liver"] == pytest.approx(
        (found.labels == 1).sum() * volume.voxel_ml
    )
    assert set(found.seconds) == {"input", "network", "labels"}
    assert all(seconds >= 0 for seconds in found.seconds.values())
    assert found.warnings == ()


def test_several_threads_may_share_one_segmenter(
    untrained_bundle: Callable[..., Path],
) -> None:
    segmenter = Segmenter(untrained_bundle(), "cpu", precision="bf16")
    volumes = [scan(seed=seed) for seed in range(4)]
    alone = [segmenter.segment(volume).labels for volume in volumes]
    with ThreadPoolExecutor(4) as threads:
        together = [
            found.labels for found in threads.map(segmenter.segment, volumes)
        ]
    assert all(
        np.array_equal(a, b) for a, b in zip(alone, together, strict=True)
    )
    assert not torch.is_inference_mode_enabled()
    assert not torch.is_autocast_enabled("cpu")


def test_a_scan_without_the_channels_is_named(
    untrained_bundle: Callable[..., Path],
) -> None:
    with pytest.raises(ScanError, match=r"bundle needs 1; .*channels: CT\)"):
        Segmenter(untrained_bundle(), "cpu").segment(scan(channels=2))


def test_broken_weights_are_an_error_and_not_a_label_map(
    untrained_bundle: Callable[..., Path],
) -> None:
    folder = untrained_bundle()
    weights = network_of(folder).state_dict()
    for value in weights.values():
        value.mul_(torch.nan)
    RunFolder(folder).save_weights(weights)
    with pytest.raises(MedsegError, match="not finite numbers"):
        Segmenter(folder, "cpu").segment(scan())


def test_an_untrained_bundle_is_refused(
    untrained_bundle: Callable[..., Path],
) -> None:
    folder = untrained_bundle()
    RunFolder(folder).weights.unlink()
    with pytest.raises(CheckpointError, match="train it first"):
        Segmenter(folder, "cpu")


def test_weights_of_another_network_are_refused(
    untrained_bundle: Callable[..., Path],
) -> None:
    network = {"kind": "unet", "channels": [4, 4, 8], "strides": [1, 2, 2]}
    folder, other = (
        untrained_bundle("one"),
        untrained_bundle("other", network=network),
    )
    RunFolder(folder).weights.write_bytes(RunFolder(other).weights.read_bytes())
    with pytest.raises(CheckpointError, match="of another network"):
        Segmenter(folder, "cpu")


def test_fp16_needs_a_gpu(untrained_bundle: Callable[..., Path]) -> None:
    with pytest.raises(MedsegError, match="needs a GPU"):
        Segmenter(untrained_bundle(), "cpu", precision="fp16")


def test_memory_that_ends_after_the_network_is_told(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(labels: Array, classes: int) -> None:
        np.empty((200_000,) * 3)

    volume, labels = make_phantom(0, (24, 20, 16), 9.0)
    segmenter = Segmenter(trained, "cpu")
    monkeypatch.setattr(bundle_prediction, "summarise_labels", fail)
    with pytest.raises(ScanError, match="not enough memory"):
        segmenter.segment(volume)
    with pytest.raises(ScanError, match="not enough memory"):
        segmenter.judge(volume, labels)


def test_rounding_is_told_from_faults(
    untrained_bundle: Callable[..., Path],
) -> None:
    member = torch_member(network_of(untrained_bundle()), torch.bfloat16)
    predict = Ensemble([member], 3)
    windows = torch.randn(1, 1, 16, 16, 16)
    assert 0 < predict.measure_rounding_error(windows) < 0.1


MEMORY = """
import ctypes, re, resource, sys
from pathlib import Path
import numpy as np
from medseg.inference import bundle_prediction
from medseg.inference.arithmetic_check import refuse_wrong_arithmetic
from medseg.inference.bundle_predictor import Ensemble
from medseg.inference.segmenter import Segmenter
from medseg.errors import MedsegError
from medseg.volume import Volume

def status(line):
    return int(re.search(line + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024

def peak_of(segmenter, volume):
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of what was before
    segmenter.segment(volume)
    return status("VmHWM")

few, many = (Segmenter(folder, "cpu") for folder in sys.argv[1:3])
def scan(i, j, k):
    ramp = np.linspace(-300, 300, k, dtype=np.float32) * np.ones((1, i, j, k), np.float32)
    return Volume(np.asfortranarray(ramp), np.diag([0.5, 0.5, 0.5, 1.0]))
volume = scan(256, 256, 320)
few.segment(scan(64, 64, 32)); many.segment(scan(64, 64, 32))  # everything is loaded
ctypes.CDLL(None).malloc_trim(0)
before = status("VmRSS")
print(peak_of(few, volume) - before, peak_of(many, volume) - before)
volume = scan(600, 600, 64)
# Room for what is read and checked, and not for the planes of 104 classes, some 300 MB.
limit = int((status("VmSize") + 64) * 2**20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    many.segment(volume)
except MedsegError as error:
    print(error)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_classes_times_the_scan(
    untrained_bundle: Callable[..., Path],
) -> None:
    shared = {
        "preprocessing": {"spacing_mm": [2, 2, 2], "intensity": CT},
        "inference": {"overlap": 0.0},
    }
    few = untrained_bundle("few", labels=[{"index": 1, "name": "a"}], **shared)
    labels = [{"index": n, "name": f"l{n}"} for n in range(1, 104)]
    many = untrained_bundle("many", labels=labels, **shared)
    run = subprocess.run(
        [sys.executable, "-c", MEMORY, few, many],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    figures, refusal = run.stdout.splitlines()
    with_few, with_many = map(float, figures.split())
    # The planes of a window and those to spare.
    sums = 104 * 64 * 64 * 32 * 4 / 2**20
    assert with_many - sums < 1.3 * with_few
    assert with_many < 0.05 * 104 * 256 * 256 * 320 * 4 / 2**20
    assert "does not fit the memory of" in refusal


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_gpu_gives_the_labels_of_the_cpu(
    trained: Path, precision: str
) -> None:
    volume, _ = make_phantom(1, (48, 44, 40), 4.5)
    on_cpu = Segmenter(trained, "cpu").segment(volume).labels
    found = Segmenter(trained, "cuda", precision=precision).segment(volume)
    assert (found.labels != on_cpu).mean() < 0.02
    assert found.warnings == ()


@pytest.mark.gpu
def test_what_does_not_fit_the_gpu_lies_in_the_hosts_memory(
    trained: Path,
) -> None:
    volume, _ = make_phantom(1, (48, 44, 40), 4.5)
    there = Segmenter(trained, "cuda", precision="fp32").segment(volume)
    for room in (0, 4 * 3**3 * 28**3):
        here = Segmenter(
            trained, "cuda", precision="fp32", gpu_memory=room
        ).segment(volume)
        assert (here.labels != there.labels).mean() < 1e-3


def test_scans_of_every_kind_have_one_result_that_goes_back(
    tmp_path, untrained_bundle
) -> None:
    file = tmp_path / "oblique.nii.gz"
    write_scan(
        file, 3, (18, 21, 16), affine_of((2.5, 3.5, 4.0), TURNED, flips=(0, 1))
    )
    segmenter = Segmenter(untrained_bundle(), "cpu")
    volume = read_image(file)
    expected = segmenter.segment(volume)
    assert np.shares_memory(expected.grid.array, volume.array) is False
    for scan in (file, str(file), nib.load(file), sitk.ReadImage(file)):
        found = segmenter.segment(scan)
        # ITK's affine has fewer digits.
        assert np.mean(found.labels != expected.labels) < 1e-3
    image = found.to_nibabel()
    assert np.array_equal(image.dataobj, found.labels)
    assert np.allclose(image.affine, volume.affine, atol=1e-4)
    assert np.array_equal(
        sitk.GetArrayFromImage(found.to_sitk()).T, found.labels
    )
    for name in ("a.nii.gz", "a.mha"):
        found.save(tmp_path / name)
        saved = read_labels(tmp_path / name)
        assert np.array_equal(saved.array[0], found.labels)
        assert saved.on_same_grid(volume, 1e-3)
