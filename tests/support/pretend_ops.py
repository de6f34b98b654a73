"""Operations of pretend GPUs: tensors in disguise, what CUDA refuses, and where the host waits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

aten = torch.ops.aten
HOST = torch.device("cpu")

_WAITS = {
    aten._local_scalar_dense.default: "item",
    aten.nonzero.default: "nonzero",
    aten.masked_select.default: "masked_select",
    aten._unique2.default: "unique",
    aten.unique_dim.default: "unique",
    aten.bincount.default: "bincount",
    aten.equal.default: "equal",
    aten.is_nonzero.default: "is_nonzero",
    aten.repeat_interleave.Tensor: "repeat_interleave",
}
"""Operations whose result, or its size, the host needs at once."""

_COPIES = {aten.copy_.default, aten._to_copy.default, aten._copy_from.default}
_INDEXED = {
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
    aten._unsafe_index.Tensor,
}


class OnGpu(torch.Tensor):
    """A tensor that says that it is on a GPU, and holds one of the host."""

    held: torch.Tensor
    place: torch.device
    owner: Any

    @staticmethod
    def __new__(
        cls, held: torch.Tensor, place: torch.device, dispatch: Any
    ) -> Any:
        made = torch.Tensor._make_subclass(
            cls,
            held,
            held.requires_grad,
            dispatch_device=True,
            device_for_backend_keys=place,
        )
        made.held, made.place, made.run = held, place, dispatch
        return made

    @staticmethod
    def find(*trees: Any) -> list[OnGpu]:
        """Return the tensors of GPUs in arguments."""
        return [leaf for leaf in _list(trees) if isinstance(leaf, OnGpu)]

    def __repr__(self, **_: Any) -> str:
        return f"OnGpu({tuple(self.shape)}, {self.dtype}, {self.place})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        made = self.detach().clone().requires_grad_(self.requires_grad)
        if getattr(self, "_is_param", False):
            made._is_param = True
        memo[id(self)] = made
        return made

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.held.detach().clone().__reduce_ex__(protocol)

    def numpy(self, *, force: bool = False) -> Any:
        if force:
            return self.detach().cpu().numpy()
        raise TypeError(
            f"can't convert {self.place} device type tensor to numpy. Use Tensor.cpu() to copy the "
            "tensor to host memory first."
        )

    def tolist(self) -> Any:
        return self.detach().cpu().tolist()

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return self.numpy()

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        first = cls.find(args, kwargs)[0]
        return first.run(func, args, kwargs)


def _list(tree: Any) -> list[Any]:
    """Return the leaves of arguments; PyTorch's own way takes most of a test's time."""
    if isinstance(tree, dict):
        tree = tree.values()
    elif not isinstance(tree, list | tuple):
        return [tree]
    leaves = []
    for part in tree:
        leaves += _list(part)
    return leaves


def _map(change: Callable[[Any], Any], tree: Any) -> Any:
    """Return arguments or results with their leaves changed."""
    if isinstance(tree, dict):
        return {key: _map(change, part) for key, part in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)([_map(change, part) for part in tree])
    return change(tree)


def is_copy(func: Any) -> bool:
    """Tell whether an operation takes values from one device to another."""
    return func in _COPIES


def explain_mixture(func: Any, args: Any, kwargs: Any) -> str:
    """Return what of an operation's tensors lies where it must not; empty if nothing does."""
    leaves = _list((args, kwargs))
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    ours = [tensor for tensor in tensors if isinstance(tensor, OnGpu)]
    if is_copy(func) or not ours:
        return ""
    if len({tensor.place for tensor in ours}) > 1:
        return f"{func} on several GPUs"
    strangers = [each for each in tensors if not isinstance(each, OnGpu)]
    # A number of the host may stand beside tensors of a GPU.
    large = [tuple(each.shape) for each in strangers if each.dim()]
    if func in _INDEXED and isinstance(args[0], OnGpu):
        return ""
    return f"{func} with {large} on the CPU" if large else ""


def get_wait(
    func: Any, args: Any, kwargs: Any, device: torch.device
) -> str | None:
    """Return why the host waits for the GPU in an operation, if it does."""
    if func in _WAITS:
        return _WAITS[func]
    if func in _INDEXED and _has_mask(args[1]):
        return "boolean index"
    if func is aten._to_copy.default:
        return _get_copys_wait(args[0], device, kwargs)
    if func is aten.copy_.default and isinstance(args[1], torch.Tensor):
        target = getattr(args[0], "place", HOST)
        is_async = len(args) > 2 and args[2]
        return _get_copys_wait(args[1], target, {"non_blocking": is_async})
    return None


def _has_mask(indices: Any) -> bool:
    masks = (torch.bool, torch.uint8)
    return any(
        isinstance(index, torch.Tensor) and index.dtype in masks
        for index in indices or []
    )


def is_under_way(func: Any, args: Any, kwargs: Any, out: Any) -> bool:
    """Tell whether what was copied to the host need not have come there yet."""
    is_copied = func is aten._to_copy.default and kwargs.get("non_blocking")
    return bool(
        is_copied and isinstance(args[0], OnGpu) and not isinstance(out, OnGpu)
    )


def _get_copys_wait(
    source: torch.Tensor, target: torch.device, kwargs: Any
) -> str | None:
    origin = getattr(source, "place", HOST)
    if origin.type == target.type:
        return None
    if target.type == "cpu":
        return None if kwargs.get("non_blocking") else "copy to the host"
    is_pinned = getattr(source, "is_pretended_pinned", False)
    # Torch gathers others on the host first, in memory that is not pinned.
    is_whole = source.is_contiguous()
    if is_pinned and is_whole and kwargs.get("non_blocking"):
        return None
    return "copy to the GPU"


def run_on_host(
    func: Any,
    args: Any,
    kwargs: dict[str, Any],
    device: torch.device,
    wrap: Callable[[torch.Tensor, torch.device], OnGpu],
) -> Any:
    """Do an operation with the tensors behind the disguise, and disguise its result."""
    plain_args, plain_kwargs = _map(_undisguise, (args, kwargs))
    if "device" in plain_kwargs:
        plain_kwargs["device"] = HOST
    if plain_kwargs.get("pin_memory"):
        plain_kwargs["pin_memory"] = False
    out = func(*plain_args, **plain_kwargs)
    changed = _get_changed(func, args, kwargs)
    if changed is not None:
        return changed
    if func is aten._to_copy.default:
        out = _copy_if_shared(out, _undisguise(args[0]))
    if device.type == "cpu":
        return out

    def disguise(value: Any) -> Any:
        is_plain = isinstance(value, torch.Tensor)
        is_plain = is_plain and not isinstance(value, OnGpu)
        return wrap(value, device) if is_plain else value

    return _map(disguise, out)


def _undisguise(value: Any) -> Any:
    return value.held if isinstance(value, OnGpu) else value


def _get_changed(func: Any, args: Any, kwargs: Any) -> Any:
    """Return the tensor that an operation changed in place, if that is its result."""
    out = kwargs.get("out")
    if isinstance(out, torch.Tensor):
        return out
    schema = func._schema
    if not schema.is_mutable or not args:
        return None
    alias = schema.arguments[0].alias_info
    is_in_place = schema.name.endswith("_") and alias is not None
    is_tensor = isinstance(args[0], torch.Tensor)
    return args[0] if is_in_place and is_tensor else None


def _copy_if_shared(out: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    """Return a tensor with memory of its own: two devices share none."""
    same = out.untyped_storage()._cdata == source.untyped_storage()._cdata
    return out.clone() if same else out
