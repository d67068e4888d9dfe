"""Processes that train one model together: which of them this is, how they meet, and what they must agree on."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from plimsoll.core.errors import RunError, Unsupported
from plimsoll.core.parts import Device

if TYPE_CHECKING:
    import torch

_BACKENDS: dict[Device, str] = {
    "cpu": "gloo",
    # what the processes agree on are numbers in main memory: over gloo no GPU is waited for
    "cuda": "cpu:gloo,cuda:nccl",
}


@dataclass(frozen=True)
class Rank:
    """This process among those that train together."""

    rank: int = 0
    """From 0 to `world - 1`, over all machines."""
    world: int = 1
    """How many there are."""
    local: int = 0
    """Its place on this machine: which GPU is its own."""
    local_world: int = 1
    """How many share this machine."""


def here(environment: Mapping[str, str] = os.environ) -> Rank:
    """Return who this process is by what torchrun put into its environment; alone when it put nothing there.

    Raises RunError for numbers that make no sense together.
    """
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    found = {name: environment[name] for name in names if name in environment}
    if not found:
        return Rank()
    if len(found) < len(names) or not all(value.isdigit() for value in found.values()):
        raise RunError(f"several processes need {', '.join(names)} in their environment, found {found}",
                       "start them with torchrun")
    rank, world, local, local_world = (int(found[name]) for name in names)
    if not (rank < world and local < local_world <= world):
        raise RunError(f"need rank < world size, here and on each machine, got {found}", "start them with torchrun")
    return Rank(rank, world, local, local_world)


@contextmanager
def joined(device: Device) -> Iterator[Rank]:
    """Meet the other processes, and part from them when the block ends well.

    Raises Unsupported when there are more processes on this machine than GPUs.
    """
    import torch
    import torch.distributed as dist

    this = here()
    if device == "cuda":
        gpus = torch.cuda.device_count()
        if this.local_world > gpus:
            raise Unsupported(f"{this.local_world} processes need a GPU each, and there are {gpus}",
                              "start as many processes as there are GPUs")
        torch.cuda.set_device(this.local)
    if this.world == 1:
        yield this
        return
    dist.init_process_group(_BACKENDS[device])
    yield this
    # not after an error: parting waits for the others, who wait for this process until torchrun ends them
    dist.destroy_process_group()


def first(value: float) -> float:
    """Return the value that the first process has: what it decides is decided for all."""
    import torch
    import torch.distributed as dist

    shared = torch.tensor([value], dtype=torch.float64)
    dist.broadcast(shared, 0)
    return float(shared)


def most(value: float) -> float:
    """Return the largest value of all processes; of truths, whether it is true for any."""
    import torch
    import torch.distributed as dist

    shared = torch.tensor([value], dtype=torch.float64)
    dist.all_reduce(shared, dist.ReduceOp.MAX)
    return float(shared)


def told(text: str) -> str:
    """Return the text that the first process has."""
    import torch
    import torch.distributed as dist

    own = text.encode()
    shared = torch.zeros(int(first(len(own))), dtype=torch.uint8)
    if dist.get_rank() == 0:
        shared = torch.frombuffer(bytearray(own), dtype=torch.uint8)
    dist.broadcast(shared, 0)
    return bytes(shared.tolist()).decode()


def mean(value: torch.Tensor) -> torch.Tensor:
    """Return the mean of all processes' values, on the device where they are."""
    import torch.distributed as dist

    shared = value.clone()
    dist.all_reduce(shared)
    return shared / dist.get_world_size()
