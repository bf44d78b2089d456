"""How the processes that torchrun starts find each other."""

import json
import time
import uuid
from typing import Any

import torch.distributed as dist

from utils.errors import UsageError, some

_POLL = 0.02  # seconds


def meet(store: dist.Store, number: int, processes: int) -> dist.Store:
    """The part of ``store`` in which exactly these processes meet, whatever earlier processes have left in it.

    When a rank fails, torchrun starts all ranks again and gives them the store of the failed ones. The addresses of
    the dead ranks still stand there, and the new ranks would take them for each other's. The number of the restart
    could tell old from new, but it may differ between machines.

    So each rank but 0 writes a random name of its own to ``call/<rank>``. Rank 0 draws one random name for the meeting
    and writes it to ``answer/<caller's name>`` for whatever name stands in each call, again and again until each rank
    has confirmed it in ``heard/<meeting>/<rank>``. The call of a dead rank is answered as well, but nobody reads that
    answer. All ranks then use the store under the meeting's name.
    """
    own = uuid.uuid4().hex
    if number:
        store.set(f"call/{number}", own)
        name = store.get(f"answer/{own}").decode()
        store.set(f"heard/{name}/{number}", "")
        return dist.PrefixStore(name, store)
    limit = store.timeout  # type: ignore[attr-defined] # which PyTorch's stubs leave out
    waiting, deadline = set(range(1, processes)), time.monotonic() + limit.total_seconds()
    while waiting:
        if time.monotonic() > deadline:
            raise UsageError(
                f"waited {limit} for rank {', '.join(map(str, sorted(waiting)))} of {processes}: is torchrun "
                "running on every machine, and is nothing between them?"
            )
        for other in waiting:
            if store.check([f"call/{other}"]):
                store.set(f"answer/{store.get(f'call/{other}').decode()}", own)
        time.sleep(_POLL)
        waiting = {other for other in waiting if not store.check([f"heard/{own}/{other}"])}
    return dist.PrefixStore(own, store)


def agree(store: dist.Store, number: int, processes: int, command: dict[str, Any]) -> None:
    """Refuse, in every rank, to begin where their commands differ: they would wait for each other for ever, or mix.

    Through the store, since ranks that differ may not even make one group.
    """
    store.set(f"command/{number}", json.dumps(command, sort_keys=True, default=str))
    first, *others = (json.loads(store.get(f"command/{rank}")) for rank in range(processes))
    store.set(f"read/{number}", "")
    if number == 0:  # whose end may be the store's
        store.wait([f"read/{rank}" for rank in range(processes)])
    for rank, found in enumerate(others, 1):
        differing = [
            f"{name}: {first.get(name)} → {found.get(name)}"
            for name in sorted(first.keys() | found.keys())
            if first.get(name) != found.get(name)
        ]
        if differing:
            raise UsageError(
                f"rank {rank} was started by another command or configuration than rank 0; it differs in "
                f"{some(differing, separator='; ')}. Start all by the same one."
            )
