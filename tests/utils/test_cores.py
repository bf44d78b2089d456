"""The cores that a process may use, and its OpenMP threads."""

import os
from pathlib import Path

import pytest
import torch

from utils import cores as module
from utils.cores import cores, share_cores, wait_briefly


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/jobs/mine\n", {"jobs/cpu.max": "300000 100000\n", "jobs/mine/cpu.max": "max 100000\n"}, 3),
        ("0::/of/the/host\n", {"cpu.max": "200000 100000\n"}, 2),
        (
            "3:memory:/a\n4:cpu,cpuacct:/a\n",
            {"cpu,cpuacct/a/cpu.cfs_quota_us": "50000\n", "cpu,cpuacct/a/cpu.cfs_period_us": "100000\n"},
            0.5,
        ),
        ("4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, float("inf")),
        ("0::/\n", {}, float("inf")),
        ("nonsense\n", {"cpu.max": "100000 100000\n"}, float("inf")),
    ],
)
def test_quotas_of_control_groups_are_kept(tmp_path, membership, files, expected):
    (tmp_path / "membership").write_text(membership)
    assert module._quota(tmp_path / "membership", write(tmp_path / "root", files)) == expected


def test_there_is_a_core_here():
    assert 1 <= cores() <= os.cpu_count()


def test_a_quota_of_half_a_core_is_one_core(monkeypatch):
    monkeypatch.setattr(module, "_quota", lambda *_: 0.5)
    assert cores() == 1


def test_threads_are_the_cores_share_unless_the_environment_says_otherwise(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr(module, "cores", lambda: 6)
    try:
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        share_cores(2)
        assert torch.get_num_threads() == before
        monkeypatch.delenv("OMP_NUM_THREADS")
        share_cores(2)
        assert torch.get_num_threads() == 3
        share_cores(7)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("name", "value"), [("GOMP_SPINCOUNT", "7"), ("OMP_WAIT_POLICY", "passive"), (None, None)])
def test_waiting_is_brief_unless_the_environment_says_otherwise(monkeypatch, name, value):
    for variable in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(variable, raising=False)
    if name:
        monkeypatch.setenv(name, value)
    wait_briefly()
    found = {variable: os.environ.get(variable) for variable in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    assert found == {"GOMP_SPINCOUNT": None, "OMP_WAIT_POLICY": None} | (
        {name: value} if name else {"GOMP_SPINCOUNT": module.SPINS}
    )
