"""Processes that are forked from a server, which has imported once what takes each of them seconds otherwise."""

import multiprocessing

FORKS = multiprocessing.get_context("forkserver")
# It has never run a backward pass, after which PyTorch cannot be forked.
FORKS.set_forkserver_preload(["tests.trainer.runs", "tests.conftest", "trainer.studies.study", "torch._dynamo"])
