"""The contract of a backend (``medseg.inference.backends.Backend``), as a test suite to subclass.

A package that adds a backend tests it like this::

    from medseg.testing.backends import BackendContract

    class TestMyBackend(BackendContract):
        backend = MY_BACKEND

and, where it computes elsewhere or less exactly, sets ``device``, ``precision`` and ``tolerance``.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from medseg.bundle.bundle import Bundle, load_bundle, parse_spec
from medseg.bundle.spec_files import write_bundle
from medseg.bundle.weights import save_tensors
from medseg.errors import CheckpointError
from medseg.inference.backends import Backend, Member
from medseg.inference.backends.loading import check_backend
from medseg.networks.building import build_network
from medseg.networks.levels import list_levels
from medseg.networks.loading import load_network

_SPEC: dict[str, Any] = {
    "name": "made_up",
    "channels": [
        {"name": "T1", "modality": "MR"},
        {"name": "T2", "modality": "MR"},
    ],
    "labels": [{"index": 1, "name": "liver"}, {"index": 2, "name": "kidney"}],
}
_NETWORK = {"kind": "unet", "channels": [4, 8, 8], "strides": [1, 2, 2]}


class BackendContract:
    """What every backend promises; subclass it as ``Test…`` in a test module.

    Attributes:
        backend: The backend under test.
        device: Where it computes.
        precision: Of the arithmetic.
        tolerance: How far scores may be from those of PyTorch in float32.
        dims: Of the networks that it computes: those that see slices (2) and volumes (3).
    """

    backend: ClassVar[Backend]
    device: ClassVar[torch.device] = torch.device("cpu")
    precision: ClassVar[torch.dtype] = torch.float32
    tolerance: ClassVar[float] = 1e-3
    dims: ClassVar[tuple[int, ...]] = (2, 3)

    @pytest.fixture(params=[2, 3])
    def bundle(self, tmp_path: Path, request: pytest.FixtureRequest) -> Bundle:
        """Return a bundle with random weights."""
        if request.param not in self.dims:
            pytest.skip("the backend does not compute such networks")
        network = _NETWORK | {"dims": request.param}
        patch = [16, 24, 8][: request.param]
        spec = parse_spec(
            _SPEC | {"network": network, "training": {"patch": patch}}
        )
        write_bundle(spec, tmp_path / "bundle.json")
        bundle = load_bundle(tmp_path)
        bundle.weights.parent.mkdir()
        torch.manual_seed(0)
        save_tensors(
            bundle.weights,
            dict(build_network(spec, supervised=False).state_dict()),
        )
        return bundle

    @pytest.fixture
    def windows(self, bundle: Bundle) -> torch.Tensor:
        """Return two windows of noise on the device."""
        generator = torch.Generator().manual_seed(1)
        shape = (2, bundle.spec.input_channels, *bundle.spec.training.patch)
        return torch.randn(*shape, generator=generator).to(self.device)

    @pytest.fixture
    def member(self, bundle: Bundle) -> Member:
        """Return the bundle's network as the backend computes it."""
        (member,) = self.backend.load(
            bundle, [bundle.weights], self.device, self.precision
        )
        return member

    def test_backend_is_well_formed(self) -> None:
        check_backend(self.backend)

    def test_scores_are_those_of_pytorch(
        self, bundle: Bundle, member: Member, windows: torch.Tensor
    ) -> None:
        scores = self._scores(member, windows)
        classes = len(bundle.spec.label_set) + 1
        assert scores.shape == (2, classes, *bundle.spec.training.patch)
        assert scores.device.type == self.device.type
        assert scores.is_floating_point()
        network = load_network(bundle, bundle.weights)
        with torch.inference_mode():
            expected = list_levels(network(windows.cpu()))[0]
        assert torch.allclose(
            scores.float().cpu(), expected, atol=self.tolerance
        )

    def test_windows_are_not_changed(
        self, member: Member, windows: torch.Tensor
    ) -> None:
        before = windows.clone()
        self._scores(member, windows)
        assert torch.equal(windows, before)

    def test_a_window_has_the_same_scores_in_any_batch(
        self, member: Member, windows: torch.Tensor
    ) -> None:
        together = self._scores(member, windows)
        alone = torch.cat(
            [self._scores(member, window[None]) for window in windows]
        )
        assert torch.allclose(
            together.float(), alone.float(), atol=self.tolerance
        )

    def test_scores_are_the_callers_to_change(
        self, member: Member, windows: torch.Tensor
    ) -> None:
        first = self._scores(member, windows)
        kept = first.clone()
        second = self._scores(member, -windows)
        assert torch.equal(first, kept), (
            "a later call overwrote the scores of an earlier one"
        )
        with torch.inference_mode():
            second.fill_(7)
        assert torch.allclose(
            self._scores(member, windows), kept, atol=self.tolerance
        )

    def test_several_threads_may_call_at_once(
        self, member: Member, windows: torch.Tensor
    ) -> None:
        batches = [windows + number for number in range(4)]
        alone = [self._scores(member, batch) for batch in batches]
        with ThreadPoolExecutor(4) as threads:
            together = list(
                threads.map(lambda batch: self._scores(member, batch), batches)
            )
        for one, other in zip(alone, together, strict=True):
            assert torch.allclose(
                one.float(), other.float(), atol=self.tolerance
            )

    def test_there_is_a_member_for_each_file_in_their_order(
        self, bundle: Bundle, windows: torch.Tensor
    ) -> None:
        negated = bundle.weights.with_name("negated.pt")
        weights = load_network(bundle, bundle.weights).state_dict()
        save_tensors(negated, {name: -value for name, value in weights.items()})
        files = [bundle.weights, negated, bundle.weights]
        members = self.backend.load(bundle, files, self.device, self.precision)
        first, other, last = (
            self._scores(member, windows) for member in members
        )
        assert torch.allclose(first.float(), last.float(), atol=self.tolerance)
        assert not torch.allclose(first.float(), other.float(), atol=0.01)

    def test_the_precision_is_that_asked_for(self, member: Member) -> None:
        assert member.precision == self.precision

    def test_absent_weights_are_an_error_that_names_no_folder(
        self, bundle: Bundle
    ) -> None:
        bundle.weights.unlink()
        with pytest.raises(CheckpointError) as raised:
            self.backend.load(
                bundle, [bundle.weights], self.device, self.precision
            )
        assert str(bundle.folder) not in raised.value.message

    def test_nothing_in_the_bundle_is_changed(self, bundle: Bundle) -> None:
        before = _content(bundle.folder)
        self.backend.load(bundle, [bundle.weights], self.device, self.precision)
        assert _content(bundle.folder) == before

    def _scores(self, member: Member, windows: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode(), member.arithmetic():
            return member(windows)


def _content(folder: Path) -> dict[str, bytes]:
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {
        file.relative_to(folder).as_posix(): file.read_bytes() for file in files
    }
