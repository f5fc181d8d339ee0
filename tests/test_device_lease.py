"""GPUs on loan: real processes race for pretended devices."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from fgvc import device_lease
from fgvc.device import Gpu
from fgvc.device_lease import lease, lease_folder, leased_devices
from fgvc.errors import FgvcError

NAMES = ["GPU-a", "GPU-b", "GPU-c"]
FORK = multiprocessing.get_context("fork")


def quiet(_: str) -> None:
    pass


def job(
    folder: Path, log: Path, names: list[str], count: int, jobs_per_name: int, rounds: int, hold_s: float
) -> None:
    """Borrow devices again and again; write a line when they are taken and before they are given back."""
    handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)  # lines appended whole, in their order
    for _ in range(rounds):
        loan = lease(
            names, count, "x", folder=folder, jobs_per_name=jobs_per_name, on_wait=quiet, poll_s=0.001
        )
        with loan as taken:
            os.write(handle, f"+ {' '.join(taken)}\n".encode())
            time.sleep(hold_s)
            os.write(handle, f"- {' '.join(taken)}\n".encode())


def most_at_once(log: Path) -> Counter[str]:
    """Of each device, the largest number of jobs that held it at the same time."""
    now: Counter[str] = Counter()
    most: Counter[str] = Counter()
    for line in log.read_text().splitlines():
        sign, *names = line.split()
        assert len(set(names)) == len(names)
        for name in names:
            now[name] += 1 if sign == "+" else -1
            most[name] = max(most[name], now[name])
    assert not any(now.values())
    return most


def race(
    tmp_path: Path,
    wanted: list[int],
    names: list[str] = NAMES,
    *,
    jobs_per_name: int = 1,
    rounds: int = 5,
    hold_s: float = 0.02,
) -> Counter[str]:
    log = tmp_path / "log"
    started = [
        FORK.Process(target=job, args=(tmp_path / "leases", log, names, count, jobs_per_name, rounds, hold_s))
        for count in wanted
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(60)
    assert [process.exitcode for process in started] == [0] * len(wanted), "a job hangs or failed"
    assert len(log.read_text().splitlines()) == 2 * rounds * len(wanted)
    return most_at_once(log)


def test_no_two_jobs_ever_share_a_device(tmp_path: Path) -> None:
    most = race(tmp_path, [1, 1, 1, 1, 1])
    assert set(most.values()) == {1} and len(most) > 1


def test_jobs_that_want_several_never_wait_for_one_another(tmp_path: Path) -> None:
    assert race(tmp_path, [2, 2, 3, 1]) == dict.fromkeys(NAMES, 1)


def test_jobs_share_where_they_were_asked_to(tmp_path: Path) -> None:
    assert race(tmp_path, [1] * 5, NAMES[:1], jobs_per_name=2, rounds=1, hold_s=0.5) == {NAMES[0]: 2}


def borrowed(folder: Path, count: int = 1, names: list[str] = NAMES, **more: Any) -> Any:
    return lease(names, count, "training x", folder=folder, poll_s=0.01, **more)


def test_the_first_free_one_is_taken_and_shared_ones_last(tmp_path: Path) -> None:
    with borrowed(tmp_path) as first, borrowed(tmp_path, 2, jobs_per_name=2) as second:
        assert (first, second) == (["GPU-a"], ["GPU-b", "GPU-c"])
        with borrowed(tmp_path, jobs_per_name=2) as third:
            assert third == ["GPU-a"]
    with borrowed(tmp_path) as again:
        assert again == ["GPU-a"]


def hold(folder: Path, ready: Any) -> None:
    with lease(["GPU-a"], 1, "training typefaces/vit_pico/224 seed 1", folder=folder):
        ready.send(os.getpid())
        time.sleep(600)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_who_waits_is_told_for_whom_and_goes_on_when_that_one_dies(tmp_path: Path, number: int) -> None:
    receiving, sending = FORK.Pipe(duplex=False)
    holder = FORK.Process(target=hold, args=(tmp_path, sending))
    holder.start()
    pid = receiving.recv()
    said: list[str] = []

    def on_wait(text: str) -> None:
        said.append(text)
        os.kill(pid, number)

    with borrowed(tmp_path, names=["GPU-a"], on_wait=on_wait) as taken:
        assert taken == ["GPU-a"]
    assert said == [
        f"waiting for a free device: GPU-a is lent to process {pid} (training typefaces/vit_pico/224 seed 1)"
    ]
    holder.join(10)


def test_more_than_there_are_is_refused_at_once(tmp_path: Path) -> None:
    with (
        pytest.raises(FgvcError, match="4 devices are wanted, and there are 3") as caught,
        borrowed(tmp_path, 4),
    ):
        pass
    assert caught.value.cure == "use --devices 3"


def test_a_folder_of_someone_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "leases").symlink_to(tmp_path / "real")
    with pytest.raises(FgvcError, match="belongs to another user"), borrowed(tmp_path / "leases"):
        pass


def test_the_folder_is_the_same_for_every_job_of_a_user_and_private(tmp_path: Path) -> None:
    assert lease_folder() == Path(f"/tmp/fgvc-gpu-{os.getuid()}")
    with borrowed(tmp_path / "leases"):
        assert (tmp_path / "leases").stat().st_mode & 0o777 == 0o700


# --- devices of torch -------------------------------------------------------------------------------


@pytest.fixture
def gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine that pretends to have three GPUs; gives the folder of the locks."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(NAMES))
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    found = [Gpu(index, name, "Pretended") for index, name in enumerate(NAMES)]
    monkeypatch.setattr(device_lease, "visible_gpus", lambda: found)
    monkeypatch.setattr(device_lease, "lease_folder", lambda: tmp_path / "leases")
    for name in ("SLURM_JOB_GPUS", "SLURM_STEP_GPUS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "leases"


def names_of(devices: list[torch.device]) -> list[str]:
    return [str(device) for device in devices]


def test_auto_takes_a_gpu_that_is_free(gpus: Path) -> None:
    with leased_devices("auto", 1, "a") as first, leased_devices("cuda", 2, "b") as second:
        assert (names_of(first), names_of(second)) == (["cuda:0"], ["cuda:1", "cuda:2"])


def test_a_gpu_asked_for_by_its_number_is_waited_for(gpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with leased_devices("cuda:1", 1, "a") as first:
        assert names_of(first) == ["cuda:1"]
        with leased_devices("cuda:1", 1, "b", jobs_per_gpu=2) as second:
            assert names_of(second) == ["cuda:1"]
    with pytest.raises(FgvcError, match="and there are 1"), leased_devices("cuda:1", 2, "c"):
        pass


def test_gpus_from_slurm_need_no_lease(gpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SLURM may give the same GPU to two jobs that asked to share it; they do not wait for one another."""
    monkeypatch.setenv("SLURM_JOB_GPUS", "5,6,7")
    with leased_devices("cuda", 3, "a") as first, leased_devices("cuda", 3, "b") as second:
        assert names_of(first) == names_of(second) == ["cuda:0", "cuda:1", "cuda:2"]
    assert not gpus.exists()
    # Several runs in one allocation share what it has.
    with leased_devices("cuda", 1, "a") as first, leased_devices("cuda", 1, "b") as second:
        assert names_of(first) != names_of(second)


def test_the_cpu_is_lent_to_all() -> None:
    with leased_devices("cpu", 2, "a") as first, leased_devices("cpu", 1, "b") as second:
        assert (names_of(first), names_of(second)) == (["cpu", "cpu"], ["cpu"])


def test_what_a_job_waits_for_can_be_read_by_people(tmp_path: Path) -> None:
    """The file of a lock is named by the device, also where its name holds signs that no file should have."""
    with lease(["MIG-1/2:3"], 1, "a", folder=tmp_path, on_wait=print):
        assert sorted(path.name for path in tmp_path.iterdir()) == ["MIG-1_2_3.0", "choosing"]
        assert re.search(r'"doing": "a"', (tmp_path / "MIG-1_2_3.0").read_text())
