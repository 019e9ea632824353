"""Making the units of a plan: in this process, in worker processes, or on a Ray cluster.

However they are made, a unit is one run in one folder: what is finished is left alone, what was stopped goes on from
its checkpoint, and what a lost worker leaves is taken up by another.
"""

from __future__ import annotations

import contextlib
import io
import logging
import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from rewardsds.errors import Interrupted, RewardsdsError, describe_os_error, warnings_in_a_line
from rewardsds.evaluation.units import Unit
from rewardsds.memory import forget_peaks, release_memory
from rewardsds.runs.folder import RunFolder
from rewardsds.tasks.settings import DistillationSettings, TextToImageSettings

LOST_WORKERS = 3  # times that a unit whose worker vanished is begun again


@dataclass(frozen=True)
class Outcome:
    """How a unit ended. problem: why it did not finish, in one line; empty where it did. seconds: that it took now."""

    unit: Unit
    seconds: float
    problem: str = ""


def is_made(unit: Unit, root: Path) -> bool:
    return RunFolder(root / unit.folder).is_finished


def made_elsewhere(units: Sequence[Unit], comparisons: Iterable[Path]) -> dict[str, Path]:
    """Finished runs of other comparisons that are the same as some of these units: their folders, by the unit's key.

    comparisons: folders of comparisons, or folders that hold such.
    """
    wanted, found = {unit.key for unit in units}, {}
    for given in comparisons:
        for results in (*given.glob("runs/*/*/results.json"), *given.glob("*/runs/*/*/results.json")):
            key = results.parent.name.rpartition("-")[2]
            if key in wanted:
                found.setdefault(key, results.parent)
    return found


def take_over(unit: Unit, root: Path, run: Path) -> None:
    """Copies a finished run to where a unit's belongs. Half a copy is never taken for a run."""
    folder = root / unit.folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".copy-") as temporary:
        copy = Path(temporary) / folder.name
        shutil.copytree(run, copy)
        copy.replace(folder)


def make(unit: Unit, root: Path, own_gpus: bool = False) -> Outcome:
    """Makes a unit, or goes on with it. Never raises but for what stops everything: interrupts.

    own_gpus: this process sees only GPUs that are meant for the unit, so that cuda:N is its first.
    """
    from rewardsds.evaluation.sampling import make_samples
    from rewardsds.runs import loop
    from rewardsds.tasks.run import build, run, settings_from

    folder, quiet, began = RunFolder(root / unit.folder), Console(file=io.StringIO()), time.perf_counter()
    problem = ""

    def placed(settings: DistillationSettings) -> DistillationSettings:
        return _on_first_gpu(settings) if own_gpus else settings

    forget_peaks()
    try:
        settings = placed(unit.settings)
        if unit.sampling_steps is not None:
            assert isinstance(settings, TextToImageSettings)
            make_samples(settings, unit.sampling_steps, folder.path)
        elif folder.is_run:
            loop.resume(folder.path, lambda values: placed(settings_from(values)), build, console=quiet)
        else:
            run(settings.model_copy(update={"out": folder.path}), console=quiet)
    except Interrupted:
        raise
    except OSError as error:
        problem = describe_os_error(error)
    except Exception as error:  # one run that fails must not take the others with it
        kind = "" if isinstance(error, RewardsdsError) else f"{type(error).__name__}: "
        problem = kind + (" ".join(str(error).split()) or "it failed without a word")
    finally:
        release_memory()
    return Outcome(unit, time.perf_counter() - began, problem)


def _on_first_gpu(settings: DistillationSettings) -> DistillationSettings:
    numbered = settings.device.startswith("cuda:")
    return settings.model_copy(update={"device": "cuda"}) if numbered else settings


def here(units: Sequence[Unit], root: Path) -> Iterator[Outcome]:
    """One after the other, in this process."""
    for unit in units:
        yield make(unit, root)


def in_processes(units: Sequence[Unit], root: Path, workers: int) -> Iterator[Outcome]:
    """`workers` at a time, each in a process that is started anew.

    Where a process vanishes, what it had begun is gone on with by another, `LOST_WORKERS` times at most.
    """
    left, losses = list(units), {unit.key: 0 for unit in units}
    while left:
        with _pool(workers) as pool:
            futures = {pool.submit(_make_in_worker, unit, root): unit for unit in left}
            lost: list[Unit] = []
            for future in _as_completed(futures):
                unit = futures[future]
                try:
                    outcome = future.result()
                except BrokenProcessPool:
                    lost.append(unit)
                    continue
                left.remove(unit)
                yield outcome
        for unit in lost:
            # which of them the process had begun is not told; those without a folder it had not
            losses[unit.key] += (root / unit.folder).exists()
            if losses[unit.key] > LOST_WORKERS:
                left.remove(unit)
                yield Outcome(unit, 0.0, f"its worker vanished {LOST_WORKERS + 1} times: is the memory full?")


@contextlib.contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _in_worker)
    try:
        yield pool
    except BaseException:
        # a signal: workers that have begun a run save its state and end, the rest is not begun
        for process in list(getattr(pool, "_processes", {}).values()):
            with contextlib.suppress(OSError, ValueError):
                process.terminate()
        pool.shutdown(cancel_futures=True)
        raise
    pool.shutdown()


def _as_completed(futures: Iterable[Future[Outcome]]) -> Iterator[Future[Outcome]]:
    left = set(futures)
    while left:
        # without a limit an interrupt would wait for a run to end on some systems
        done, left = wait(left, timeout=1.0, return_when=FIRST_COMPLETED)
        yield from done


def _in_worker() -> None:
    """Ctrl-C reaches all processes of a terminal: it is the parent that tells its workers to stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    """A parent that was killed tells nothing: its workers would wait for it for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)  # a run saves its state; what is not in a run ends at once
    _stopped.wait()
    os._exit(128 + signal.SIGTERM)


_stopped = threading.Event()  # this process was told to end


def _make_in_worker(unit: Unit, root: Path, own_gpus: bool = False) -> Outcome:
    if _stopped.is_set():  # the pool had handed out the next unit before it was told
        return Outcome(unit, 0.0, "not begun")
    try:
        with warnings_in_a_line():
            return make(unit, root, own_gpus)
    except Interrupted as stopped:
        _stopped.set()
        return Outcome(unit, 0.0, str(stopped))


def _make_on_cluster(unit: Unit, root: Path, folder: str) -> Outcome:
    """A cluster's processes begin where the cluster was started: a plan's paths are those of the one who asks."""
    os.chdir(folder)
    return _make_in_worker(unit, root, own_gpus=True)


def on_ray(
    units: Sequence[Unit], root: Path, address: str, gpus: float, say: Callable[[str], None]
) -> Iterator[Outcome]:
    """On a Ray cluster that shares the plan's folder; each run has `settings.threads` cores and `gpus` GPUs.

    gpus: fractions share one. 0: one where the cluster has any, since Ray hides none from runs that ask for none. Runs
    on the device cpu have none.

    A run whose worker or machine is lost is given to another, `LOST_WORKERS` times at most. Raises RewardsdsError where
    Ray is not installed or the cluster cannot be reached.
    """
    ray = _connected(address)
    try:
        has = ray.cluster_resources()
        said = f"on a Ray cluster of {len(ray.nodes())} machines with {has.get('CPU', 0):.0f} cores"
        if has.get("GPU"):
            said += f" and {has['GPU']:.0f} GPUs"
            if not gpus and any(unit.settings.device != "cpu" for unit in units):
                gpus = 1.0
                said += ", one for each run: with --gpus 0.5 two share one, with device: cpu they use none"
        say(said)
        pending: dict[Any, Unit] = {}
        for unit in units:
            remote = ray.remote(
                num_cpus=unit.settings.threads or 1,
                num_gpus=0.0 if unit.settings.device == "cpu" else gpus,
                max_retries=LOST_WORKERS,
                max_calls=1,
            )(_make_on_cluster)
            pending[remote.remote(unit, root, os.getcwd())] = unit
        while pending:
            done, _ = ray.wait(list(pending), num_returns=1)
            for reference in done:
                unit = pending.pop(reference)
                try:
                    yield ray.get(reference)
                except ray.exceptions.RayError as error:
                    reason = " ".join(str(error).split())[:200]
                    yield Outcome(unit, 0.0, f"its worker was lost, again and again: {reason}")
    finally:
        ray.shutdown()


def _connected(address: str) -> Any:
    try:
        import ray
    except ImportError:
        raise RewardsdsError("a Ray cluster needs the package ray: pip install 'rewardsds[ray]'") from None
    try:
        ray.init(
            address=address,  # local starts a cluster, None would take one that is here, or was
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=threading.current_thread() is threading.main_thread(),
            include_dashboard=False if address == "local" else None,
        )
    except Exception as error:  # ray raises many kinds
        reason = " ".join(str(error).split())[:200]
        raise RewardsdsError(
            f"no Ray cluster can be reached at {address!r} ({reason}): give its address, such as HOST:6379, auto for "
            "the one that this machine belongs to, or local to start one here"
        ) from None
    return ray
