"""GPUs for machines without one: real values, CUDA's rules, counters, and a memory that ends.

``with pretend_gpus() as gpus:`` makes PyTorch believe that there is CUDA. A tensor on ``cuda:0`` is
then a tensor of the host in disguise (``OnGpu``), and code runs as it would on a GPU:

* what CUDA refuses is refused: operations on tensors of two devices, ``.numpy()``;
* ``gpus.launches`` counts operations, about one kernel each;
* ``gpus.waits`` counts where the host waits for the device (``.item()``, ``.cpu()``, ``nonzero``,
  copies that are not pinned and asynchronous), by the line of medseg. An event that another thread
  waits for does not count; what is copied without a wait comes with it, and is other numbers until
  then;
* ``gpus.live`` are the bytes held, and beyond ``memory`` there is ``torch.OutOfMemoryError``;
* ``gpus.fail(…)`` raises an error of CUDA in a function of medseg, and ``gpus.break_down(…)`` one
  after which every call fails.

It shows nothing of speed, of rounding, or of what streams do at the same time.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import monai.data
import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from support.pretend_ops import (
    OnGpu,
    explain_mixture,
    get_wait,
    is_under_way,
    run_on_host,
)

HOST = torch.device("cpu")
ILLEGAL_ACCESS = "CUDA error: an illegal memory access was encountered"
PACKAGE = str(Path(__file__).resolve().parents[2] / "medseg")


@dataclass
class Failure:
    """An error that is to come.

    Attributes:
        where: A function of medseg, by a part of its name; it is raised in an operation below it.
        error: What is raised.
        times: How often still.
        is_final: Whether every operation fails from then on.
    """

    where: str
    error: Exception
    times: int = 1
    is_final: bool = False


@dataclass
class PretendGpus:
    """What happens on the pretend GPUs.

    Attributes:
        count: How many there are.
        memory: Bytes that each of them has.
        launches: Operations so far.
        waits: Line of medseg and reason → how often the host waited there.
        at_retry: Bytes that were held each time that memory was given back.
    """

    count: int = 1
    memory: int = 1 << 40
    launches: int = 0
    waits: Counter[str] = field(default_factory=Counter)
    at_retry: list[int] = field(default_factory=list)
    peak: int = 0
    failures: list[Failure] = field(default_factory=list)
    held: Counter[int] = field(default_factory=Counter)
    by_device: Counter[int] = field(default_factory=Counter)
    under_way: list[tuple[Any, Any]] = field(default_factory=list)

    @property
    def live(self) -> int:
        """Bytes that are held on all of them."""
        return sum(self.held.values())

    def live_on(self, index: int) -> int:
        """Bytes that are held on one of them."""
        return self.held[index]

    def forget_counts(self) -> None:
        """Count from nothing."""
        self.launches = 0
        self.waits.clear()
        self.by_device.clear()

    def fail(
        self, where: str, error: Exception | None = None, times: int = 1
    ) -> None:
        """Let an operation below a function of medseg fail, some times."""
        if error is None:
            error = torch.OutOfMemoryError("CUDA out of memory (on purpose)")
        self.failures.append(Failure(where, error, times))

    def break_down(self, where: str) -> None:
        """Let the device fail in a function of medseg, and in every call that follows."""
        error = RuntimeError(f"{ILLEGAL_ACCESS}\nCUDA kernel errors might be")
        self.failures.append(Failure(where, error, 1, is_final=True))

    def take(self, device: torch.device, tensor: torch.Tensor) -> _Owner:
        """Hold the memory of a tensor until what is returned goes."""
        storage = tensor.untyped_storage()
        key = device.index, storage._cdata
        owner = _owners.get(key)
        found = None if owner is None else owner()
        if found is not None:
            return found
        size = storage.nbytes()
        live = self.live_on(device.index)
        if live + size > self.memory:
            raise torch.OutOfMemoryError(
                f"CUDA out of memory. Tried to allocate {size} bytes beside {live}, at {_place()}"
            )
        self.held[device.index] += size
        self.peak = max(self.peak, live + size)
        made = _Owner(self, key, size)
        _owners[key] = _reference(made)
        return made

    def send(self, copied: torch.Tensor) -> None:
        """Let a copy on the host hold nothing of use until somebody waits for it."""
        array = copied.numpy()
        self.under_way.append((array, array.copy()))
        array.fill(77)

    def deliver(self, count: int | None = None) -> None:
        """Let what was sent first arrive: so many copies; all unless given."""
        for array, values in self.under_way[:count]:
            np.copyto(array, values)

    def raise_planned(self) -> None:
        """Raise the error that was planned for the functions that run now."""
        for failure in self.failures:
            if failure.times > 0 and failure.where in _place(12):
                failure.times -= 0 if failure.is_final else 1
                if failure.is_final:
                    failure.where = ""
                # A new one: whoever keeps an error keeps what its frames hold.
                raise type(failure.error)(*failure.error.args)


class _Owner:
    """One for each storage on a pretend GPU; its memory is given back when it goes."""

    def __init__(
        self, gpus: PretendGpus, key: tuple[int, int], size: int
    ) -> None:
        self._gpus, self._key, self._size = gpus, key, size

    def __del__(self) -> None:
        self._gpus.held[self._key[0]] -= self._size
        _owners.pop(self._key, None)


def _reference(owner: _Owner) -> Any:
    import weakref

    return weakref.ref(owner)


_owners: dict[tuple[int, int], Any] = {}
_gpus: PretendGpus | None = None
_backward = threading.local()


def _place(deep: int = 1) -> str:
    """Return the innermost lines of medseg that run now."""
    frame, found = sys._getframe(1), []
    while frame is not None and len(found) < deep:
        name = frame.f_code.co_filename
        if name.startswith(PACKAGE):
            short = name[len(PACKAGE) + 1 :]
            found.append(f"{short}:{frame.f_lineno} {frame.f_code.co_qualname}")
        frame = frame.f_back
    return " < ".join(found) or "?"


def dispatch(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Do an operation in which a pretend GPU takes part."""
    gpus = _gpus
    if gpus is None:
        raise RuntimeError("a tensor of a pretend GPU has outlived it")
    is_backward = getattr(_backward, "runs", False)
    if func is torch.ops.prim.device.default:
        # Within backward C++ must not look for the GPU's stream.
        return HOST if is_backward else args[0].place
    if torch.is_inference_mode_enabled() and _is_composite(func):
        with _DispatchMode():  # inference mode leaves these whole
            return func.decompose(*args, **kwargs)
    device = _choose_device(args, kwargs, is_backward)
    if (device.index or 0) >= gpus.count:
        raise RuntimeError("CUDA error: invalid device ordinal")
    gpus.raise_planned()
    problem = explain_mixture(func, args, kwargs)
    if problem:
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices: "
            f"{problem} at {_place(3)}"
        )
    gpus.launches += 1
    if device.index is not None:
        gpus.by_device[device.index] += 1
    reason = get_wait(func, args, kwargs, device)
    if reason:
        gpus.waits[f"{reason} @ {_place()}"] += 1
        gpus.deliver()
    out = run_on_host(
        func, args, kwargs, device, functools.partial(_wrap, gpus)
    )
    if is_under_way(func, args, kwargs, out):
        gpus.send(out)
    return out


def _wrap(gpus: PretendGpus, held: torch.Tensor, place: torch.device) -> OnGpu:
    made = OnGpu(held, place, dispatch)
    made.owner = gpus.take(place, held)
    return made


def _choose_device(
    args: Any, kwargs: dict[str, Any], is_backward: bool
) -> torch.device:
    """Return where the result of an operation lies."""
    asked = kwargs.get("device")
    ours = OnGpu.find(args, kwargs)
    if asked is None or (is_backward and ours):
        return ours[0].place if ours else HOST
    asked = torch.device(asked)
    if is_backward and asked.type == "cpu":
        return torch.device("cuda", 0)
    return asked


@functools.cache
def _is_composite(func: Any) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(
        func.name(), "CompositeImplicitAutograd"
    )


class _DispatchMode(TorchDispatchMode):
    """Sees operations that have no tensor of a GPU, but are asked for one."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        asked = kwargs.get("device")
        is_for_gpu = asked is not None and torch.device(asked).type == "cuda"
        is_backward = asked is not None and getattr(_backward, "runs", False)
        if is_for_gpu or is_backward or OnGpu.find(args, kwargs):
            return dispatch(func, args, kwargs)
        return func(*args, **kwargs)


class _FunctionMode(TorchFunctionMode):
    """Says ``cuda:0`` where ``cuda`` is said, and takes indices to the GPU, as PyTorch does."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in ("__get__", "__set__"):
            return func(*args, **kwargs)
        if "device" in kwargs:
            kwargs = {**kwargs, "device": _with_number(kwargs["device"])}
        is_indexed = name in ("__getitem__", "__setitem__")
        if is_indexed and isinstance(args[0], OnGpu):
            args = (args[0], _index_on_gpu(args[1], args[0].place), *args[2:])
        if name in ("to", "_to", "cuda", "type"):
            args = (*args[:1], *(_with_number(each) for each in args[1:]))
        return func(*args, **kwargs)


def _with_number(value: Any) -> Any:
    """Return ``cuda:0`` for ``cuda``; anything else as it is."""
    is_device = isinstance(value, str | torch.device)
    if is_device and str(value) == "cuda":
        return torch.device("cuda", 0)
    return value


def _index_on_gpu(index: Any, place: torch.device) -> Any:
    if isinstance(index, tuple):
        return tuple(_index_on_gpu(each, place) for each in index)
    if isinstance(index, list):
        index = torch.tensor(index)
    if isinstance(index, torch.Tensor) and not isinstance(index, OnGpu):
        return index.to(place)
    return index


def _run_backward(original: Any) -> Any:
    def run(*args: Any, **kwargs: Any) -> Any:
        _backward.runs = True
        try:
            return original(*args, **kwargs)
        finally:
            _backward.runs = False

    return run


class _Stream:
    """The only one of a pretend GPU."""

    def __init__(self, device: Any = None) -> None:
        self.device = device


class _Event:
    """What was launched and copied before it was recorded."""

    def __init__(self, **_: Any) -> None:
        self._thread, self._copies = 0, 0

    def record(self, stream: Any = None) -> None:
        self._thread = threading.get_ident()
        self._copies = 0 if _gpus is None else len(_gpus.under_way)

    def synchronize(self) -> None:
        if _gpus is None:
            raise RuntimeError("an event of a pretend GPU has outlived it")
        _gpus.raise_planned()
        _gpus.deliver(self._copies)
        if threading.get_ident() == self._thread:
            _gpus.waits[f"event @ {_place()}"] += 1


class _Generator(torch.Generator):
    """A generator for any device; its numbers are those of the host."""

    def __new__(cls, device: Any = "cpu") -> Any:
        return super().__new__(cls, device="cpu")

    def __init__(self, device: Any = "cpu") -> None:
        self._place = _with_number(torch.device(device))

    def manual_seed(self, seed: int) -> Any:
        super().manual_seed(seed)
        return self

    @property
    def device(self) -> torch.device:
        return self._place


@contextlib.contextmanager
def _device_guard() -> Iterator[None]:
    """Give CUDA the device guard of ``meta``, which does nothing: this PyTorch has none for it."""
    library = Path(torch.__file__).parent / "lib" / "libc10.so"
    if torch.cuda.is_available() or not library.is_file():
        pytest.skip("GPUs are pretended on Linux without CUDA")
    kinds = ctypes.c_void_p * 22
    name = "_ZN3c104impl26device_guard_impl_registryE"
    registry = kinds.in_dll(ctypes.CDLL(str(library)), name)
    before = registry[1]
    registry[1] = before or registry[14]  # CUDA is 1, and meta 14
    try:
        yield
    finally:
        registry[1] = before


def _list_patches(gpus: PretendGpus) -> dict[str, Any]:
    def free(device: Any = None) -> tuple[int, int]:
        index = 0 if device is None else torch.device(device).index or 0
        return gpus.memory - gpus.live_on(index), gpus.memory

    def reserved(device: Any = None) -> int:
        return gpus.memory - free(device)[0]

    def note_retry() -> None:
        gpus.at_retry.append(gpus.live)

    run_backward = _run_backward(torch.autograd.graph._engine_run_backward)
    return {
        "torch.cuda._lazy_init": lambda: None,
        "torch.cuda.is_available": lambda: True,
        "torch.cuda.device_count": lambda: gpus.count,
        "torch.cuda.current_device": lambda: 0,
        "torch.cuda.mem_get_info": free,
        "torch.cuda.memory_reserved": reserved,
        "torch.cuda.memory_allocated": reserved,
        "torch.cuda.max_memory_allocated": lambda device=None: gpus.peak,
        "torch.cuda.max_memory_reserved": lambda device=None: gpus.peak,
        "torch.cuda.reset_peak_memory_stats": lambda device=None: None,
        "torch.cuda.empty_cache": note_retry,
        "torch.cuda.synchronize": lambda device=None: gpus.deliver(),
        "torch.cuda.current_stream": _Stream,
        "torch.cuda.Event": _Event,
        "torch.cuda.device": lambda device: contextlib.nullcontext(),
        "torch.cuda.is_bf16_supported": lambda including_emulation=True: True,
        "torch.cuda.get_device_name": lambda device=None: "Pretend GPU",
        "torch.cuda.manual_seed_all": lambda seed: None,
        "torch.cuda.manual_seed": lambda seed: None,
        "torch.cuda.amp.common.amp_definitely_not_available": lambda: False,
        "torch.Generator": _Generator,
        "torch.autograd._engine_run_backward": run_backward,
        "torch.autograd.graph._engine_run_backward": run_backward,
        "threading.Thread.run": _in_modes(threading.Thread.run),
    }


def _in_modes(run: Any) -> Any:
    """Return the work of a thread, which has modes of its own."""

    def work(self: threading.Thread) -> None:
        with _DispatchMode(), _FunctionMode():
            run(self)

    return work


def _pin(tensor: torch.Tensor, device: Any = None) -> torch.Tensor:
    # Strides stay, as in torch.
    pinned = torch.empty_strided(
        tensor.size(), tensor.stride(), dtype=tensor.dtype
    )
    pinned.copy_(tensor)
    pinned.is_pretended_pinned = True  # type: ignore[attr-defined]
    return pinned


@contextlib.contextmanager
def pretend_gpus(
    count: int = 1, memory: int = 1 << 40
) -> Iterator[PretendGpus]:
    """Let PyTorch have some GPUs.

    Args:
        count: How many.
        memory: Bytes that each of them has.
    """
    global _gpus
    with contextlib.ExitStack() as stack:
        stack.enter_context(_device_guard())
        _gpus = gpus = PretendGpus(count, memory)
        for target, value in _list_patches(gpus).items():
            stack.enter_context(mock.patch(target, value))
        tensor = functools.partial(mock.patch.object, torch.Tensor)
        # MONAI's own tensors cannot pretend; of plain ones it asks for this.
        stack.enter_context(tensor("as_tensor", lambda self: self, create=True))
        stack.enter_context(tensor("pin_memory", _pin))
        overwrites = torch.__future__.get_overwrite_module_params_on_conversion
        stack.callback(
            torch.__future__.set_overwrite_module_params_on_conversion,
            overwrites(),
        )
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        stack.callback(monai.data.set_track_meta, monai.data.get_track_meta())
        monai.data.set_track_meta(False)
        stack.enter_context(torch.autograd.set_multithreading_enabled(False))
        stack.enter_context(_DispatchMode())
        stack.enter_context(_FunctionMode())
        yield gpus
