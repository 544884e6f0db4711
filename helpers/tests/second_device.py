# SPDX-License-Identifier: MIT
"""A second device on a machine that has none: torch's lazy tensors, which compute on the CPU but refuse what a GPU's
refuse, such as `.numpy()` without `.cpu()`, or a sum with a tensor of the CPU.

A kernel runs this file as it starts (`IPYTHONDIR`); R1_DEVICE=lazy then loads every model there. What the backend does
wrongly itself, taking a tensor apart, is done by views.
"""

import torch
import torch._lazy.ts_backend

torch._lazy.ts_backend.init()


def _parts(tensor, size, dim=0):
    length = tensor.shape[dim]
    sizes = [min(size, length - k) for k in range(0, length, size)] if isinstance(size, int) else size
    starts = [sum(sizes[:k]) for k in range(len(sizes))]
    return tuple(tensor.narrow(dim, start, size) for start, size in zip(starts, sizes, strict=True))


def _rows(tensor, dim=0):
    return tuple(tensor.select(dim, k) for k in range(tensor.shape[dim]))


def _chunks(tensor, chunks, dim=0):
    return _parts(tensor, -(-tensor.shape[dim] // chunks), dim)


def _autocasts(*device):
    return device != ("lazy",) and _asks(*device)


_asks, torch.is_autocast_enabled = torch.is_autocast_enabled, _autocasts  # it raises for a device it does not know
torch.Tensor.__iter__ = lambda tensor: iter(_rows(tensor))
torch.Tensor.unbind = torch.unbind = _rows
torch.Tensor.split = torch.split = _parts
torch.Tensor.chunk = torch.chunk = _chunks

if __name__ == "__main__":  # whether this torch can: a model's first steps
    _weight, _ids = torch.randn(4, 3).to("lazy"), torch.tensor([[1, 2]]).to("lazy")
    _found = torch.cat([torch.nn.functional.embedding(row[None], _weight) for row in _ids]) @ _weight.T
    assert _found.device.type == "lazy" and _found.cpu().shape == (1, 2, 4)
    try:
        _found.numpy()
    except TypeError:
        pass
    else:
        raise SystemExit("a tensor of the second device became an array")
