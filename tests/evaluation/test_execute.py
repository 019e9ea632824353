"""Units made in worker processes and on a Ray cluster: nothing lost, nothing made twice, the same as one by one."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import date
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch

from rewardsds.errors import RewardsdsError, RunFolderError
from rewardsds.evaluation import execute
from rewardsds.evaluation.execute import Outcome, here, in_processes, is_made, make, on_ray
from rewardsds.evaluation.plan import make_plan
from rewardsds.evaluation.units import Unit, asked_of, cells_and_units
from rewardsds.runs.folder import RunFolder, locked

PROMPTS = ["a red cube", "a green apple", "a blue car", "a white hat"]


def units_of(steps: int, prompts: int, **settings) -> list[Unit]:
    plan = make_plan({
        "prompts": PROMPTS[:prompts], "batch": 1, "methods": {"SDS": {"weighting": "none"}},
        "settings": {"steps": steps, "checkpoint_every": 5, **settings},
    })  # fmt: skip
    _, units = cells_and_units(plan, asked_of(plan, Path), {"SDS": 1})
    return units


def digest(unit: Unit, root: Path) -> str:
    return RunFolder(root / unit.folder).read_results()["scene_sha256"]


def test_one_after_the_other(tmp_path):
    units = units_of(2, 2)
    outcomes = list(here(units, tmp_path))
    assert [one.unit for one in outcomes] == units
    assert not any(one.problem for one in outcomes)
    assert all(is_made(unit, tmp_path) for unit in units)
    assert digest(units[0], tmp_path) != digest(units[1], tmp_path)


def test_what_fails_is_told_in_a_line(tmp_path):
    (unit,) = units_of(2, 1)
    settings = unit.settings.model_copy(update={"weighting": "best-worst", "reward": "nowhere:function"})
    broken = Unit("m", settings, unit.items)
    outcome = make(broken, tmp_path)
    assert outcome.unit is broken
    assert "the reward 'nowhere:function' cannot be loaded" in outcome.problem
    assert len(outcome.problem.splitlines()) == 1
    assert not is_made(broken, tmp_path)
    assert not (tmp_path / broken.folder).exists()


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (unit,) = units_of(2, 1)
    (tmp_path / "runs").write_text("a file where a folder should be")
    outcome = make(unit, tmp_path)
    assert outcome.problem.startswith("cannot make the folder (not a directory: ")
    assert len(outcome.problem.splitlines()) == 1


def test_a_run_says_which_machine_has_finished_it(tmp_path):
    (unit,) = units_of(2, 1)
    make(unit, tmp_path)
    folder = RunFolder(tmp_path / unit.folder)
    record = folder.read_results()["hardware"]
    assert record["cores"] == os.cpu_count()
    assert record["torch"] == metadata.version("torch")
    assert date.fromisoformat(record["date"]) <= date.today()

    old = {name: value for name, value in folder.read_results().items() if name != "hardware"}
    folder.results.write_text(json.dumps(old))  # finished before it was written down: nobody knows where
    make(unit, tmp_path)
    assert folder.read_results() == old


class Cluster:
    """What is asked of Ray; whatever it is to make is made here. gpus: that it has."""

    exceptions = SimpleNamespace(RayError=RuntimeError)

    def __init__(self, gpus: float) -> None:
        self.gpus = gpus
        self.given: list[float] = []
        """GPUs of each run."""

    def nodes(self) -> list[str]:
        return ["one"]

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 8.0, **({"GPU": self.gpus} if self.gpus else {})}

    def remote(self, num_gpus: float, **options: Any) -> Any:
        def of(function: Any) -> Any:
            self.given.append(num_gpus)
            return SimpleNamespace(remote=lambda *given: lambda: function(*given))

        return of

    def wait(self, pending: list[Any], num_returns: int) -> tuple[list[Any], list[Any]]:
        return pending[:num_returns], pending[num_returns:]

    def get(self, reference: Any) -> Any:
        return reference()

    def shutdown(self) -> None:
        pass


@pytest.mark.parametrize("address", ["local", "auto", "10.0.0.1:6379"])
def test_ray_is_told_which_cluster_is_meant(monkeypatch, address: str):
    """Without an address Ray takes the one that ran here last, if it still does or not."""
    asked: list[dict[str, Any]] = []
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=lambda **given: asked.append(given)))
    execute._connected(address)
    (given,) = asked
    assert given["address"] == address
    assert given["include_dashboard"] is (False if address == "local" else None)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, str]]:
    """(folder, device) of each run that is begun or gone on with; none is made."""
    from rewardsds.evaluation import sampling
    from rewardsds.runs import loop
    from rewardsds.tasks import run

    found: list[tuple[Path, str]] = []

    def resume(folder: Path, read: Any, build: Any, console: Any) -> None:
        found.append((folder, read({"task": "image", "prompt": "a red cube", "device": "cuda:2"}).device))

    monkeypatch.setattr(run, "run", lambda settings, console: found.append((settings.out, settings.device)))
    monkeypatch.setattr(loop, "resume", resume)
    monkeypatch.setattr(
        sampling, "make_samples", lambda settings, steps, out: found.append((out, settings.device))
    )
    return found


@pytest.mark.parametrize(
    "devices, has, asked, given, said",
    [
        (["auto", "cuda:1"], 2.0, 0.0, [1.0, 1.0], True),
        (["auto", "cpu"], 2.0, 0.0, [1.0, 0.0], True),
        (["cpu", "cpu"], 2.0, 0.0, [0.0, 0.0], False),
        (["auto", "auto"], 0.0, 0.0, [0.0, 0.0], False),
        (["auto", "cuda"], 2.0, 0.5, [0.5, 0.5], False),
    ],
)
def test_gpus_of_runs_on_a_cluster(
    tmp_path, monkeypatch, made, devices: list[str], has: float, asked: float, given: list[float], said: bool
):
    """Ray hides no GPU from a run that asks for none: all would take the first."""
    units = [unit for device, steps in zip(devices, (2, 3)) for unit in units_of(steps, 1, device=device)]
    cluster, told = Cluster(has), list[str]()
    monkeypatch.setattr(execute, "_connected", lambda address: cluster)
    outcomes = list(on_ray(units, tmp_path, "auto", asked, told.append))
    assert cluster.given == given
    assert ("one for each run" in told[0]) is said
    assert [one.problem for one in outcomes] == ["", ""]
    # those that a run sees are numbered anew; the folder is the unit's own
    assert made == [
        (tmp_path / unit.folder, "cuda" if unit.settings.device == "cuda:1" else unit.settings.device)
        for unit in units
    ]


def test_a_numbered_gpu_is_the_first_where_no_other_is_seen(tmp_path, made):
    (unit,) = units_of(2, 1, device="cuda:1")
    folder = tmp_path / unit.folder
    make(Unit("m", unit.settings, unit.items, sampling_steps=2), tmp_path, own_gpus=True)
    folder.mkdir(parents=True)
    (folder / "settings.yaml").write_text("task: image")
    make(unit, tmp_path, own_gpus=True)
    make(unit, tmp_path)
    assert [device for _, device in made] == ["cuda", "cuda", "cuda:2"]


@pytest.mark.parametrize("fails", [False, True])
def test_a_run_leaves_no_gpu_memory_taken_and_its_peak_is_its_own(tmp_path, monkeypatch, fails: bool):
    from rewardsds.tasks import run

    class Model:
        pass

    events: list[Any] = []

    def make_run(settings: Any, console: Any) -> None:
        model: Any = Model()
        model.itself = model
        events.append(weakref.ref(model))
        if fails:
            raise RewardsdsError("the GPU's memory was full")

    monkeypatch.setattr(run, "run", make_run)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: events.append(device))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: events.append(events[-1]() is None))
    (unit,) = units_of(2, 1)
    outcome = make(unit, tmp_path)
    assert bool(outcome.problem) is fails
    first, second, _, gone = events
    assert (first, second, gone) == (0, 1, True)


class Queued:
    """Pictures that a GPU has been asked for: it is waited for when they are read."""

    def __init__(self, count: int, seconds: float) -> None:
        self.count, self.seconds = count, seconds

    def cpu(self) -> torch.Tensor:
        time.sleep(self.seconds)
        return torch.zeros(self.count, 3, 8, 8)


def test_the_seconds_of_sampling_are_those_until_the_pictures_are_there(tmp_path, monkeypatch):
    from rewardsds.evaluation import costs, sampling

    prior: Any = SimpleNamespace(network_evaluations=0, unknown_words=lambda prompt: [])
    for module in (costs, sampling):
        monkeypatch.setattr(module, "make_prior", lambda settings: prior)
        monkeypatch.setattr(
            module, "sample", lambda prior, prompts, seeds, steps, scale: Queued(len(prompts), 0.2)
        )
    (unit,) = units_of(2, 1)
    unit = Unit("m", unit.settings, unit.items, sampling_steps=4)
    assert make(unit, tmp_path).problem == ""
    assert RunFolder(tmp_path / unit.folder).read_results()["seconds"] >= 0.2
    assert costs.measure(unit).seconds >= 2 * 0.2  # two of four steps are tried


@pytest.mark.slow
def test_workers_make_what_one_process_makes(tmp_path):
    units = units_of(6, 3)
    alone, together = tmp_path / "alone", tmp_path / "together"
    list(here(units, alone))
    outcomes = list(in_processes(units, together, 2))
    assert {one.unit.key for one in outcomes} == {unit.key for unit in units}
    assert not any(one.problem for one in outcomes)
    assert [digest(unit, together) for unit in units] == [digest(unit, alone) for unit in units]


def worker_of(unit: Unit, root: Path, parent: psutil.Process, within: float = 120.0) -> psutil.Process:
    """The process that makes a unit, once it has written a checkpoint."""
    until = time.monotonic() + within
    folder = RunFolder(root / unit.folder)
    while time.monotonic() < until:
        if list(folder.checkpoints.glob("*.safetensors")):
            held = folder.path.resolve()
            for child in parent.children(recursive=True):
                try:
                    if any(Path(f"/proc/{child.pid}/fd/{number}").resolve() == held
                           for number in os.listdir(f"/proc/{child.pid}/fd")):  # fmt: skip
                        return child
                except OSError:
                    continue
        time.sleep(0.05)
    raise AssertionError("no worker got as far as a checkpoint")


def kill_one_midway(outcomes, units: list[Unit], root: Path) -> list[Outcome]:
    """Follows the outcomes while the worker of the first unit is killed after its first checkpoint."""
    import threading

    killed: list[int] = []

    def kill() -> None:
        process = worker_of(units[0], root, psutil.Process())
        process.kill()
        killed.append(process.pid)

    thread = threading.Thread(target=kill)
    thread.start()
    found = list(outcomes)
    thread.join()
    assert killed
    return found


def assert_nothing_lost_or_doubled(found: list[Outcome], units: list[Unit], root: Path, alone: Path) -> None:
    assert sorted(one.unit.key for one in found) == sorted(unit.key for unit in units)
    assert [one.problem for one in found] == [""] * len(units)
    for unit in units:
        steps = [line["step"] for line in RunFolder(root / unit.folder).read_metrics()]
        assert steps == list(range(unit.settings.steps))
        assert digest(unit, root) == digest(unit, alone)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks for the worker in /proc")
def test_a_killed_worker_loses_nothing(tmp_path):
    units = units_of(40, 3)
    alone, root = tmp_path / "alone", tmp_path / "root"
    list(here(units, alone))
    found = kill_one_midway(in_processes(units, root, 2), units, root)
    assert_nothing_lost_or_doubled(found, units, root, alone)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks for the worker in /proc")
def test_a_ray_cluster_loses_nothing_when_a_worker_is_killed(tmp_path):
    pytest.importorskip("ray")
    units = units_of(40, 4)
    alone, root = tmp_path / "alone", tmp_path / "root"
    list(here(units, alone))
    said: list[str] = []
    found = kill_one_midway(on_ray(units, root, "local", 0.0, said.append), units, root)
    assert said
    assert_nothing_lost_or_doubled(found, units, root, alone)


@contextmanager
def cluster_from(folder: Path, environment: dict[str, str]) -> Iterator[str]:
    """The address of a Ray cluster of one machine that is started in a folder; its processes end with the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", f"--port={port}"]
    options = ["--num-cpus=2", "--include-dashboard=false", "--disable-usage-stats"]
    head = subprocess.Popen(
        [*command, *options],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    limit = threading.Timer(240, head.kill)
    limit.start()
    try:
        assert head.stdout is not None
        said = ""
        while "--block" not in said:  # then it is up, and stays so
            line = head.stdout.readline()
            assert line, said
            said += line
        yield f"127.0.0.1:{port}"
    finally:
        limit.cancel()
        for process in [*psutil.Process(head.pid).children(recursive=True), psutil.Process(head.pid)]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        head.wait()


@pytest.mark.slow
def test_a_ray_cluster_that_was_started_elsewhere_writes_where_it_is_told(tmp_path):
    pytest.importorskip("ray")
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    (here / "plan.yaml").write_text(PLAN.replace("steps: 60", "steps: 2"))
    # the cluster and the one who asks it share a token of their own, as Ray wants it of clusters
    own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "PYTHONUNBUFFERED": "1"}
    environment = {**os.environ, **own}
    with cluster_from(there, environment) as address:
        command = [
            sys.executable,
            "-m",
            "rewardsds",
            "compare",
            "plan.yaml",
            "--out",
            "out",
        ]  # relative paths
        done = subprocess.run(
            [*command, "--ray", address], cwd=here, env=environment, capture_output=True, text=True
        )
    assert done.returncode == 0, done.stderr
    figures = json.loads((here / "out" / "comparison.json").read_text())
    assert figures["methods"]["SDS"]["results"] == 3
    assert list(figures["machines"].values()) == [3]
    assert list(there.iterdir()) == []


PLAN = """
prompts: [a red cube, a green apple, a blue car]
batch: 1
settings: {steps: 60, checkpoint_every: 5}
methods: {SDS: {weighting: none}}
metrics: [judge, clip]
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "number, workers", [(signal.SIGKILL, 1), (signal.SIGKILL, 2), (signal.SIGTERM, 2), (signal.SIGINT, 1)]
)
def test_a_stopped_comparison_goes_on(tmp_path, number: int, workers: int):
    (tmp_path / "plan.yaml").write_text(PLAN)
    command = [
        sys.executable,
        "-m",
        "rewardsds",
        "compare",
        str(tmp_path / "plan.yaml"),
        "--workers",
        str(workers),
    ]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    subprocess.run([*command, "--out", str(whole)], check=True, capture_output=True)
    process = subprocess.Popen([*command, "--out", str(broken)], stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 120
    while not list(broken.glob("runs/sds/*/checkpoints/*.safetensors")) and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode != 0
    if number != signal.SIGKILL:
        assert process.returncode == 128 + number
        assert "the same command goes on" in " ".join(said.split())
        assert "Traceback" not in said
    assert len(list(broken.glob("runs/sds/*"))) <= workers  # what had not begun is not begun any more
    assert not (broken / "comparison.json").exists()
    for run in broken.glob("runs/sds/*"):  # workers whose parent was killed end by themselves
        wait_until_free(run)
    done = subprocess.run([*command, "--out", str(broken)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((folder / "comparison.json").read_text()) for folder in (whole, broken))
    assert strip_seconds(first) == strip_seconds(second)


def wait_until_free(run: Path) -> None:
    until = time.monotonic() + 60
    while True:
        try:
            with locked(run):
                return
        except RunFolderError:
            assert time.monotonic() < until, f"{run} is still in use"
            time.sleep(0.1)


def strip_seconds(figures: dict) -> dict:
    """What must be the same: all but times, and how busy the machine was."""
    for name in ("date", "load_average_1min"):
        del figures["hardware"][name]
    for method in figures["methods"].values():
        del method["seconds"]
    return figures
