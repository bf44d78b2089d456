"""Imported once by the server from which processes are forked: what each of them would need seconds for otherwise.

Nothing here has run a backward pass, after which PyTorch cannot be forked.
"""

import gc
import signal
from importlib import import_module

# Whoever needs a fork first starts the server, perhaps where interrupts are blocked, which the forks would inherit.
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
gc.disable()  # nothing that is imported is garbage
for name in (
    "tests.conftest",
    "tests.trainer.runs",
    "torch._dynamo",
    "torch.utils.tensorboard",
    "trainer.studies.study",
    "trainer.subclasses.make",
):
    import_module(name)
gc.freeze()
gc.enable()
