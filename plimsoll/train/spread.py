"""How one model is trained by one process or by several: who takes which rows, who holds which weights.

`Alone` is one process, and the null object of `Together`. Two ways to be together: `ddp` keeps the whole model in every
process and averages the gradients (Li et al., PyTorch Distributed, VLDB 2020), `fsdp` keeps a part of every weight, its
gradient and its optimizer's state in each and gathers a layer while it is computed (Rajbhandari et al., ZeRO, SC 2020;
torch's `fully_shard`).
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from plimsoll.core.errors import RunError
from plimsoll.core.parts import Work
from plimsoll.train import checkpoint, ranks, replay, shape, shards
from plimsoll.train.batches import Batch, Tokens

if TYPE_CHECKING:
    import torch

    Loss = Callable[[torch.nn.Module, Batch], torch.Tensor]

_TRAINED_BYTES, _FROZEN_BYTES = 20, 4
"""Of a weight in fp32: itself, its gradient, two moments of AdamW and the copy of the best epoch; only itself."""
_ROOM = 0.5
"""Share of a device's memory that these may take in every process; the rest is for activations."""
_SPLIT = ("model.", "best.", "good.", "optimizer.")
"""What tensors of a checkpoint are called that are weights, or shaped like them."""
_OWN = ("random", "random.cuda")
"""What each process has of its own."""


class Alone:
    """One process: all rows, the whole model, and nobody to agree with."""

    def __init__(self, model: torch.nn.Module, loss: Loss, work: Work) -> None:
        self.model = model.to(work.device).train()
        """The module whose parameters are trained."""
        self.answering: torch.nn.Module = self.model
        """What gives logits for `input_ids` and `attention_mask`."""
        self._loss, self._work = loss, work

    def batch(self, tokens: Tokens, rows: NDArray[np.int64]) -> Batch:
        """Return what this process takes of the rows of a batch."""
        return tokens.batch(rows, self._work.device)

    def loss(self, batch: Batch) -> torch.Tensor:
        """Return the scalar whose gradient, averaged over the processes, is that of the whole batch's mean loss."""
        return self._loss(self.model, batch)

    def mean(self, loss: torch.Tensor) -> torch.Tensor:
        """Return the whole batch's loss from this process's share of it."""
        return loss

    def clip(self, largest: float) -> torch.Tensor:
        """Shrink the gradient of all weights to a norm of at most `largest`; return the norm it had."""
        import torch

        return torch.nn.utils.clip_grad_norm_(self.model.parameters(), largest)

    def first(self, value: float) -> float:
        """Return the first process's value."""
        return value

    def most(self, value: float) -> float:
        """Return the largest value of all processes."""
        return value

    def unsound(self) -> list[str]:
        """Return the names of weights that are not finite."""
        return replay.unsound(self.model)

    def finding(self, diagnose: Callable[[], replay.Finding]) -> replay.Finding:
        """Return why a step was not finite."""
        return diagnose()

    def reseed(self, step: int) -> None:
        """Begin random numbers of this process's own, as a step of the run has them."""
        _reseed(self._work, step)

    def save(self, folder: Path, step: int, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any]) -> None:
        """Write the checkpoint of a step."""
        checkpoint.save(folder, step, tensors, state)

    def load(self, folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        """Return tensors and state of the newest whole checkpoint, whoever wrote it; None without one."""
        return _newest(folder, 0, 1, lambda value: value, lambda name, tensor: tensor)

    def settle(self) -> None:
        """Leave the trained weights in the model that was handed over."""


class Together:
    """Several processes, each with its share of every batch; what they decide is the same in all of them."""

    def __init__(self, model: torch.nn.Module, loss: Loss, work: Work, way: Literal["ddp", "fsdp"]) -> None:
        import torch
        import torch.distributed as dist
        from torch.nn.parallel import DistributedDataParallel

        self._work, self._whole, self._mesh = work, model, None
        if way == "ddp":
            self.model = model.to(work.device).train()
            # its constructor copies the first process's weights to all; buffers here are constants
            self._root: torch.nn.Module = DistributedDataParallel(_answers(self.model, loss), broadcast_buffers=False)
            self.answering = self.model
        else:
            for parameter in model.parameters():
                dist.broadcast(parameter.detach(), 0)
            self._mesh = dist.init_device_mesh(work.device, (work.ranks,))
            self.model = _same_weights(model).train()
            self._root = _sharded(_answers(self.model, loss), self.model, self._mesh)
            self.answering = self._root
        # each its own dropout: the same one in all would make the masks of different rows equal
        torch.manual_seed(_seed(work, 0))

    def batch(self, tokens: Tokens, rows: NDArray[np.int64]) -> Batch:
        """Return this process's rows of a batch: every `world`-th, so that long and short ones are shared out evenly.

        A process for which a small batch has no row takes the first with a weight of nothing, to keep in step.
        """
        world = self._work.ranks
        mine = rows[self._work.rank::world]
        weight = world * len(mine) / len(rows)
        return replace(tokens.batch(mine if len(mine) else rows[:1], self._work.device), weight=weight)

    def loss(self, batch: Batch) -> torch.Tensor:
        """Return the loss of this process's rows, weighted so that the mean over processes is that of the batch's rows.

        Exact for losses that are means over rows, as those of labels and answers are.
        """
        return self._root(batch)

    def mean(self, loss: torch.Tensor) -> torch.Tensor:
        """Return the mean over all processes, as a tensor."""
        return ranks.mean(loss)

    def clip(self, largest: float) -> torch.Tensor:
        """Shrink the gradient of all weights, wherever they are; return the norm it had, the same in every process."""
        import torch
        from torch.distributed.tensor import DTensor

        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), largest)
        return norm.full_tensor() if isinstance(norm, DTensor) else norm

    def first(self, value: float) -> float:
        """Return the first process's value."""
        return ranks.first(value)

    def most(self, value: float) -> float:
        """Return the largest value of all processes."""
        return ranks.most(value)

    def unsound(self) -> list[str]:
        """Return the names of weights that are not finite; some in all processes when there are some in one."""
        names = replay.unsound(self.model)
        somewhere = ranks.most(len(names))  # asked by all, those with names too: the others wait for their answer
        return names or (["a weight in another process"] if somewhere else [])

    def finding(self, diagnose: Callable[[], replay.Finding]) -> replay.Finding:
        """Return why a step was not finite, as the first process finds it; unknown where none holds all weights.

        Diagnosing takes steps of their own, which the first process alone can take: with the whole model at hand.
        """
        if self._mesh is not None:
            return replay.Finding("unknown")
        own = diagnose() if self._work.rank == 0 else None
        cause, where, backward, rows = json.loads(ranks.told(json.dumps(own)))
        return replay.Finding(cause, where, backward, tuple(rows))

    def reseed(self, step: int) -> None:
        """Begin random numbers of this process's own, as a step of the run has them."""
        _reseed(self._work, step)

    def save(self, folder: Path, step: int, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any]) -> None:
        """Write this process's part of the checkpoint; it counts when the first process has written the manifest."""
        rank, world = self._work.rank, self._work.ranks
        shards.write(folder, step, rank, world, dict(_pieces(tensors, rank, world)))
        ranks.most(0.0)  # all have written
        if rank == 0:
            shards.complete(folder, step, world, state)

    def load(self, folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        """Return the newest checkpoint that is whole in the first process's eyes, in this process's parts."""
        return _newest(folder, self._work.rank, self._work.ranks, ranks.first, self._part)

    def settle(self) -> None:
        """Leave the trained weights in the model that was handed over, whole, in every process."""
        import torch

        if self._mesh is None:
            return
        whole = dict(self._whole.named_parameters())
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                if parameter.requires_grad:
                    whole[name].copy_(parameter.full_tensor())  # type: ignore[attr-defined]

    def _part(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """Return what this process keeps of a checkpoint's tensor."""
        if self._mesh is None or not name.startswith(_SPLIT) or not tensor.ndim:
            return tensor
        from torch.distributed.tensor import Shard, distribute_tensor

        return distribute_tensor(tensor, self._mesh, [Shard(0)], src_data_rank=None)  # no talk: each takes its own rows


Spread = Alone | Together


@contextmanager
def over(model: torch.nn.Module, loss: Loss, work: Work, stage: str) -> Iterator[Spread]:
    """Yield the model as `work.ranks` processes train it; when the block ends well the trained weights are in `model`.

    Raises Unsupported for a model to be sharded whose layers are not where Plimsoll knows them.
    """
    if work.ranks == 1:
        yield Alone(model, loss, work)
        return
    way, why = chosen(model, work)
    work.report({"stage": stage, "note": f"{work.ranks} processes, {way}: {why}"})
    spread = Together(model, loss, work, way)
    yield spread
    spread.settle()


def chosen(model: torch.nn.Module, work: Work) -> tuple[Literal["ddp", "fsdp"], str]:
    """Return how the processes share the model, and the reason in words: the whole of it in each where that fits."""
    if work.spreading != "auto":
        return work.spreading, "as asked for"
    needed = sum(p.numel() * (_TRAINED_BYTES if p.requires_grad else _FROZEN_BYTES) for p in model.parameters())
    room = -ranks.most(-_memory_bytes(work))
    words = f"training takes {needed / 1e9:.1f} GB beside activations, and the smallest device has {room / 1e9:.1f} GB"
    return ("ddp" if needed <= _ROOM * room else "fsdp"), words


def _memory_bytes(work: Work) -> float:
    """Return the memory of this process's device; of main memory its share."""
    if work.device == "cuda":
        import torch

        return torch.cuda.mem_get_info()[1]
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / ranks.here().local_world


def _answers(model: torch.nn.Module, loss: Loss) -> torch.nn.Module:
    """Return a module that answers a batch with its weighted loss, and token ids and their mask with logits.

    DDP and FSDP do their part around a call of the module they wrap, and a loss may call parts of a model as it likes.
    """
    import torch

    class Answers(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *given: Any) -> torch.Tensor:
            if isinstance(given[0], Batch):
                return loss(self.model, given[0]) * given[0].weight
            return self.model(*given)

    return Answers()


def _same_weights(model: torch.nn.Module) -> torch.nn.Module:
    """Return a second model over the same memory, to be sharded: FSDP would leave the first in parts."""
    import torch

    # parameters of its own: FSDP moves those it is given to the device, whole
    views: dict[int, Any] = {id(p): torch.nn.Parameter(p.detach(), p.requires_grad) for p in model.parameters()}
    return copy.deepcopy(model, views)


def _sharded(root: torch.nn.Module, model: torch.nn.Module, mesh: Any) -> torch.nn.Module:
    """Shard each layer of the encoder, and together what is left."""
    from torch.distributed.fsdp import fully_shard

    # after forward too: weights left whole by a prediction would be those that the optimizer and a checkpoint find
    for module in (*shape.stack(model.encoder).layer, root):
        fully_shard(module, mesh=mesh, reshard_after_forward=True)
    return root


def _pieces(tensors: Mapping[str, torch.Tensor], rank: int, world: int) -> Iterator[tuple[str, shards.Piece]]:
    """Yield what this process writes: its rows of what is sharded, its own random numbers, all else only the first."""
    from torch.distributed.tensor import DTensor

    for name, tensor in tensors.items():
        if isinstance(tensor, DTensor):
            first = rank * -(-len(tensor) // world)  # as torch.chunk cuts, and so FSDP
            if len(local := tensor.to_local()):
                yield name, shards.Piece(local, tuple(tensor.shape), first)
        elif name in _OWN:
            yield f"{name}@{rank}", shards.Piece(tensor, tuple(tensor.shape))
        elif rank == 0:
            yield name, shards.Piece(tensor, tuple(tensor.shape))


def _newest(folder: Path, rank: int, world: int, first: Callable[[float], float],
            place: Callable[[str, torch.Tensor], torch.Tensor]
            ) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
    """Return the newest whole checkpoint, of one process or of several, as the first process found it."""
    single = checkpoint.load(folder)
    newest = shards.newest(folder)
    of_one = int(first(single[1]["step"] if single else -1))
    of_several = int(first(-1 if newest is None else newest))
    if max(of_one, of_several) < 0:
        return None
    if of_several >= of_one:
        tensors, state = shards.read(folder, of_several, place)
        same = f"random@{world - 1}" in tensors and f"random@{world}" not in tensors
        own = {name: tensors[f"{name}@{rank}"] for name in _OWN if same and f"{name}@{rank}" in tensors}
        return {name: t for name, t in tensors.items() if "@" not in name} | own, state
    if single is None or single[1]["step"] != of_one:
        raise RunError(f"{folder} does not hold here what the first process finds in it",
                       "give a folder that all machines share")
    tensors, state = single
    return {name: place(name, t) for name, t in tensors.items() if world == 1 or name not in _OWN}, state


def _seed(work: Work, step: int) -> int:
    return (work.seed * 1_000_003 + step) * work.ranks + work.rank


def _reseed(work: Work, step: int) -> None:
    import torch

    torch.manual_seed(_seed(work, step))
