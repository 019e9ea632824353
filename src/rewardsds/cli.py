"""The `rewardsds` command. Heavy libraries are imported only once the arguments are understood."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from pydantic import ValidationError

from rewardsds.arguments import Flat, parse
from rewardsds.catalogue import Recipe
from rewardsds.errors import (
    RewardsdsError,
    SettingsError,
    WriteError,
    describe_os_error,
    describe_validation,
    settings_of_file,
    terminable,
    warnings_in_a_line,
)
from rewardsds.evaluation.prompt_sets import read_prompts
from rewardsds.evaluation.settings import DEFAULT_METRICS, VIEWS, ViewKind
from rewardsds.runs.settings import over, read_yaml
from rewardsds.scenes.mesh.settings import MeshExportSettings
from rewardsds.scenes.settings import ExportFormat, TurntableSettings
from rewardsds.tasks.presets import PRESETS, PresetName, preset
from rewardsds.tasks.settings import (
    TASKS,
    DistillationSettings,
    EditSettings,
    GraderSettings,
    TextTo3DSettings,
    TextToImageSettings,
)

if TYPE_CHECKING:
    from rewardsds.runs.loop import RunResult

HELP = """\
usage: rewardsds COMMAND …

Text to pictures and 3D objects by score distillation, steered by a reward model.

commands:
  3d PROMPT               make a 3D object: a turntable video, eight views, a PLY (Gaussians) or GLB (a mesh), a report
  image PROMPT            make a picture and a report
  edit PICTURE            change what a picture shows, from --source "…" to --target "…"
  settings TASK           all settings of image, 3d or edit with their meaning, as a file for --config
  resume RUN              continue a run that was stopped; the result is the same to the bit
  export RUN --to FORMAT  a 3D object as glb, obj, ply, splat, mp4, gif, png or html
  score PATH…             pictures and runs against their prompts, by rewards, judges and measures of 3D
  compare PLAN            methods × prompts × seeds, from a plan to tables, plots and a report
  models list             pretrained models that are known by name; also models fetch, convert and check
  doctor                  the machine, the models that are there, what fits, and what to run
  toybox show PROMPT      true pictures of a prompt from the world that the embedded prior was trained on
  toybox train            train the embedded models again

options:
  -h, --help              this text; `rewardsds COMMAND --help` lists all settings of a command
  --version               the version
  --debug                 show tracebacks (or set REWARDSDS_DEBUG=1)

examples:
  rewardsds 3d "a penguin with a brown bag in the snow"
  rewardsds image "a green apple and a black backpack" --seed 3 --candidates 8
  rewardsds image "a white car and a red sheep" --weighting none        (plain SDS, for comparison)
  rewardsds edit photo.png --source "a red apple" --target "a green apple"
"""

Prompt = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PROMPT")]


@dataclass
class Make:
    """Options of a run that are not settings: they do not change its result."""

    force: bool = False
    """Replace the run that the folder already holds."""
    config: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Settings file, for example a run's settings.yaml; the command line overrides it."""
    preset: PresetName | None = None
    """Named settings: small, medium, large (what is spent on the reward), paper; of 3d dreamgaussian, texture. --config
    overrides them."""


@dataclass
class Doctor:
    """What this machine has, which models are there, what fits into its memory, and what to run."""

    candidates: int = 10
    """N: noises tried at a step, which memory is planned for."""

    def __post_init__(self) -> None:
        if not 1 <= self.candidates <= 1024:
            raise SettingsError(f"candidates is {self.candidates}: expected 1 to 1024")


@dataclass
class ListModels:
    """Pretrained models that are known by name: what for, how large, under what licence."""


@dataclass
class FetchModel:
    """Download a model from the Hugging Face hub; an interrupted download goes on where it stopped."""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """One of `rewardsds models list`."""
    revision: str | None = None
    """Branch, tag or commit. None: the one in `models list`, or the newest."""
    folder: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Where to put it. None: the hub's cache."""


@dataclass
class ConvertModel:
    """An original checkpoint as a folder for --prior or --reward."""

    recipe: Annotated[Recipe, tyro.conf.Positional]
    """What it is."""
    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """The checkpoint: .pt, .pth, .ckpt, .bin or .safetensors; code in it is never run."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """The new folder."""
    companion: str | None = None
    """Folder or hub id of what the checkpoint lacks: its tokenizer, an aesthetic head's CLIP. None: the usual one."""
    half: bool = True
    """Write half precision; a file with numbers beyond it is refused."""
    prediction_type: Literal["epsilon", "v_prediction"] | None = None
    """What a Stable Diffusion or MVDream predicts. None: noise, and of Stable Diffusion 2, which has both, what it is
    found to."""


@dataclass
class CheckModel:
    """What a file or folder is, whether it is whole, and one forward pass."""

    path: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="PATH")]
    """A checkpoint or a model's folder."""


@dataclass
class MakeImage:
    """Make a picture: a latent is optimised directly."""

    settings: Annotated[TextToImageSettings, Flat]
    make: Annotated[Make, Flat] = field(default_factory=Make)
    prompts: Annotated[str | None, tyro.conf.arg(metavar="SET|FILE")] = None
    """In place of PROMPT: a set such as toybox:test:8, or a file, for example of text with one prompt a line; all are
    made side by side, each as it would be alone."""


@dataclass
class Make3D:
    """Make a 3D object: Gaussians are optimised through renders from all around."""

    settings: Annotated[TextTo3DSettings, Flat]
    make: Annotated[Make, Flat] = field(default_factory=Make)


@dataclass
class Edit:
    """Change what a picture shows."""

    settings: Annotated[EditSettings, Flat]
    make: Annotated[Make, Flat] = field(default_factory=Make)


@dataclass
class PrintSettings:
    """Print all settings of a task with their meaning, their bounds and their defaults, as YAML for --config."""

    task: Annotated[
        Literal["image", "3d", "edit"], tyro.conf.Positional, tyro.conf.arg(metavar="image|3d|edit")
    ]
    """Task."""
    preset: PresetName | None = None
    """With the values of a preset."""
    config: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """With the values of a settings file."""


@dataclass
class Resume:
    """Continue a run that was stopped; the result is that of an undisturbed run, to the bit."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder."""


@dataclass
class Export:
    """Write the object of a 3D run as a file for other programs."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder; of a run that was stopped, its newest checkpoint is taken."""
    to: ExportFormat
    """glb, obj: textured mesh; html: a page that shows it in 3D; ply, splat: Gaussians; mp4, gif, png: pictures."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """None: RUN/object.*, or RUN/turntable.* and RUN/views.png."""
    force: bool = False
    """Replace a file that exists."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N; not the run's own."""
    turntable: Annotated[TurntableSettings, Flat] = field(default_factory=TurntableSettings)
    mesh: MeshExportSettings = field(default_factory=MeshExportSettings)


@dataclass
class Compare:
    """Compare methods on prompts and seeds: makes what a plan asks for and is not there yet, scores it, reports it."""

    plan: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="PLAN")]
    """YAML file; docs/evaluation.md says what it holds."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """None: runs/compare-<name of the plan>, and where --size is given -<size> behind it."""
    size: str | None = None
    """One of the plan's sizes. None: its first."""
    workers: int | None = None
    """Processes that make runs at the same time, each on the plan's `threads` cores. None: as many as have room."""
    ray: Annotated[str | None, tyro.conf.arg(metavar="ADDRESS")] = None
    """A Ray cluster that shares the folder, in place of processes: HOST:PORT, auto, or local to start one here."""
    gpus: float = 0.0
    """GPUs of a run on the Ray cluster; fractions share one. 0: one, if the cluster has any and the run uses one."""
    reuse: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FOLDER…")] = ()
    """Other comparisons, or folders of such as runs/, whose finished runs are taken over where they are the same."""
    dry_run: bool = False
    """Only say what is to be made and what it costs."""
    rescore: bool = False
    """Ask all metrics again."""

    def __post_init__(self) -> None:
        if self.workers is not None and not 1 <= self.workers <= 1024:
            raise SettingsError(f"workers is {self.workers}: expected 1 to 1024")
        if not 0 <= self.gpus <= 64:
            raise SettingsError(f"gpus is {self.gpus}: expected 0 to 64")


@dataclass
class Score:
    """Score pictures and runs against their prompts, by any set of metrics."""

    paths: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PATH…")] = ()
    """Pictures, folders of pictures, run folders, folders with runs below."""
    metrics: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME…")] = DEFAULT_METRICS
    """Any reward (see `rewardsds settings image`); judge, judge-probability, judge-all-right (the toybox's);
    r-precision, r-precision:CLIP; of 3D runs reprojection-error, relative-reprojection-error, back-as-front, fronts."""
    prompts: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Prompts of pictures that belong to no run: JSON, CSV, or text with one a line. None: their names are read."""
    views: int = VIEWS
    """Pictures of an object."""
    view_kind: ViewKind = "random"
    """From where: random, 0 to 30° high, or evenly around."""
    seed: int = 0
    """Other seeds see objects from other random places."""
    size: Annotated[int | None, tyro.conf.arg(metavar="PIXELS")] = None
    """Of an object's pictures. None: 64 of the toybox's, else the run's video_size."""
    distractors: Annotated[str | None, tyro.conf.arg(metavar="SET|FILE")] = None
    """Further prompts that r-precision ranks: a set such as toybox:test:128, or a file."""
    group: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME…")] = ()
    """Names of the table's rows: one for all, or one a PATH. Without: a PATH is a row, and of runs that lie deeper
    the first folder below it."""
    out: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FILE…")] = ()
    """Files to write: .json and .csv have every entry, .md the table."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    force: bool = False
    """Replace files that exist."""
    grader: GraderSettings = field(default_factory=GraderSettings)


@dataclass
class Show:
    """Write a contact sheet of true scenes for a prompt."""

    prompt: Prompt
    """Toys to show."""
    out: Path = Path("toybox.png")
    """Where the PNG goes."""
    scenes: Annotated[int, tyro.conf.arg(metavar="ROWS")] = 4
    """Scenes, one a row."""
    size: int = 192
    """Width and height of one picture, pixels."""
    seed: int = 0
    """Other seeds draw other sizes, poses and lighting."""

    def __post_init__(self) -> None:
        if not 1 <= self.scenes <= 64:
            raise SettingsError(f"scenes is {self.scenes}: expected 1 to 64")
        if not 16 <= self.size <= 1024:
            raise SettingsError(f"size is {self.size}: expected 16 to 1024 pixels")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code: 0, 1 (it failed), 2 (wrong usage), 130 (interrupted)."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    debug = os.environ.get("REWARDSDS_DEBUG", "") not in ("", "0")
    if "--debug" in argv:
        argv.remove("--debug")
        debug = True
    _share_the_cores()
    try:
        with warnings_in_a_line():
            return _dispatch(argv)
    except SystemExit as stop:  # --help of a command
        return stop.code if isinstance(stop.code, int) else 0
    except KeyboardInterrupt:
        if debug:
            raise
        return _fail("interrupted", 130)
    except BrokenPipeError:  # the reader of our output went away; nobody is left to be told
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if debug:
            raise
        return _fail(*_describe(error))


def _share_the_cores() -> None:
    """Before torch is imported: its threads wait for each other by spinning for milliseconds.

    That is cheap on idle cores. Beside other runs each spins away the time that the other needs, and steps take several
    times as long; to spin for microseconds and then sleep costs next to nothing (`benchmarks/threads.py`).
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "3000")


def _describe(error: Exception) -> tuple[str, int]:
    """What to tell the user, and the exit code."""
    if isinstance(error, RewardsdsError):
        return str(error), error.exit_code
    if isinstance(error, ValidationError):
        return describe_validation(error), SettingsError.exit_code
    if isinstance(error, ValueError) and _is_raised_here(error):
        return str(error), 1
    if isinstance(error, OSError):
        return describe_os_error(error), 1
    reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return f"unexpected {reason} (traceback in {_write_log(error)})", 1


def _is_raised_here(error: Exception) -> bool:
    """Whether this package raised the error itself, so that its message is meant for the user."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and Path(frames[-1].filename).is_relative_to(Path(__file__).parent)


def _write_log(error: Exception) -> str:
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="rewardsds-", suffix=".log", delete=False, encoding="utf-8"
        ) as file:
            file.write("".join(traceback.format_exception(error)))
    except OSError:
        return "no file: none could be written; use --debug"
    return file.name


def _fail(message: str, code: int) -> int:
    with contextlib.suppress(OSError):
        print(f"rewardsds: error: {' '.join(message.split())}", file=sys.stderr)
    return code


def _dispatch(argv: list[str]) -> int:
    command, rest = (argv[0], argv[1:]) if argv else ("", [])
    if command in ("-h", "--help"):
        print(HELP, end="")
        return 0
    if command == "--version":
        from rewardsds import __version__

        print(f"rewardsds {__version__}")
        return 0
    if command == "image":
        return _make(MakeImage, TextToImageSettings, rest)
    if command == "3d":
        return _make(Make3D, TextTo3DSettings, rest)
    if command == "edit":
        return _make(Edit, EditSettings, rest)
    if command == "settings":
        return _settings(rest)
    if command == "resume":
        return _resume(rest)
    if command == "export":
        return _export(rest)
    if command == "score":
        return _score(rest)
    if command == "compare":
        return _compare(rest)
    if command == "models":
        return _models(rest)
    if command == "doctor":
        made = parse(Doctor, rest, "rewardsds doctor")
        from rewardsds.models.doctor import doctor

        print(*doctor(made.candidates), sep="\n")
        return 0
    if command == "toybox":
        return _toybox(rest)
    given = f"unknown command {command!r}" if command else "no command"
    raise SettingsError(
        f"{given}: expected image, 3d, edit, settings, resume, export, score, compare, models, doctor or toybox; "
        "see `rewardsds --help`"
    )


def _make(
    kind: type[MakeImage] | type[Make3D] | type[Edit], task: type[DistillationSettings], argv: list[str]
) -> int:
    default = None
    values = _given_values(task, argv)
    if values:
        default = kind(settings=_with_gaps(task, values))  # pyright: ignore[reportArgumentType]
    made = parse(kind, argv, f"rewardsds {task.task}", default)
    from rewardsds.tasks.run import run

    return _show(run(made.settings, force=made.make.force))


def _given_values(task: type[DistillationSettings], argv: Sequence[str]) -> dict[str, Any]:
    """What --preset, --config and --prompts say; they have to be known before the other arguments can be read."""
    values: dict[str, Any] = {}
    name = _option(argv, "--preset")
    if name in PRESETS:  # others are refused with the rest of the arguments
        values |= preset(name, task)
    config = _option(argv, "--config")
    if config is not None:
        values = over(values, _settings_from_file(task, Path(config)))
    with settings_of_file(config):
        _with_gaps(task, values)
    prompts = _option(argv, "--prompts")
    if prompts is not None and "prompts" in task.model_fields:
        values.pop("prompt", None)
        values["prompts"] = read_prompts(prompts)
    return values


def _option(argv: Sequence[str], name: str) -> str | None:
    """The value of an option, as `--name value` or `--name=value`."""
    for argument, following in zip(argv, [*argv[1:], "--"]):
        if argument == name and not following.startswith("--"):
            return following
        if argument.startswith(f"{name}="):
            return argument.removeprefix(f"{name}=")
    return None


def _settings_from_file(kind: type[DistillationSettings], path: Path) -> dict[str, Any]:
    values = read_yaml(path)
    task = values.pop("task", kind.task)
    if task != kind.task:
        raise SettingsError(f"{path} holds settings of task {task}: use `rewardsds {task} --config {path}`")
    return values


def _with_gaps(kind: type[DistillationSettings], values: dict[str, Any]) -> DistillationSettings:
    """Settings from values of which some that are needed may still come as arguments."""
    needed = [name for name, field in kind.model_fields.items() if field.is_required() and name not in values]
    gaps: dict[str, Any] = dict.fromkeys(needed, tyro.MISSING)
    if "prompts" in kind.model_fields and not (values.get("prompt") or values.get("prompts")):
        gaps["prompt"] = None
    if values.get("backbone") == "mesh" and values.get("init") is None:
        gaps["init"] = None
    return kind(**{**values, **dict.fromkeys(gaps, "to be given")}).model_copy(update=gaps)


def _settings(argv: list[str]) -> int:
    made = parse(PrintSettings, argv, "rewardsds settings")
    from rewardsds.tasks.describe import describe

    task = TASKS[made.task]
    print(describe(task, _given_values(task, argv)), end="")
    return 0


def _resume(argv: list[str]) -> int:
    made = parse(Resume, argv, "rewardsds resume")
    from rewardsds.tasks.run import resume

    return _show(resume(made.run))


def _show(result: RunResult) -> int:
    """The paths of the results, one a line, on standard output."""
    for path in result.files:
        print(path)
    return 0


def _export(argv: list[str]) -> int:
    made = parse(Export, argv, "rewardsds export")
    from rewardsds.tasks.export import default_target, export

    written = [made.out or default_target(made.run, made.to)] if made.run.is_dir() else []
    with terminable(), _writing(*written):
        files = export(
            made.run,
            made.to,
            made.out,
            force=made.force,
            device=made.device,
            turntable=made.turntable,
            mesh=made.mesh,
        )
    print(*files, sep="\n")
    return 0


@contextlib.contextmanager
def _writing(*paths: Path) -> Iterator[None]:
    """Says that a file cannot be written, and what to do: before it is made where that is seen, else afterwards."""
    try:
        for path in paths:
            _check_writable(path)
        yield
    except OSError as error:
        if error.filename is None or Path(error.filename).parent not in {path.parent for path in paths}:
            raise
        raise WriteError(f"{describe_os_error(error)}; give another place with --out") from None


def _check_writable(path: Path) -> None:
    """Raises OSError, with that path, where no file can be written under it; nothing is left behind."""
    try:
        if path.is_dir():
            raise OSError(errno.EISDIR, "there is a folder of that name")
        folder = next(folder for folder in path.absolute().parents if folder.exists())
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def _compare(argv: list[str]) -> int:
    made = parse(Compare, argv, "rewardsds compare")
    from rewardsds.evaluation.compare import compare

    figures, files = compare(
        made.plan,
        made.out,
        size=made.size,
        workers=made.workers,
        ray=made.ray,
        gpus=made.gpus,
        reuse=made.reuse,
        dry_run=made.dry_run,
        rescore=made.rescore,
    )
    print(*files, sep="\n", end="\n" if files else "")
    return 1 if figures is not None and figures.problems else 0


def _score(argv: list[str]) -> int:
    """The table on standard output; 1 where something could not be scored, after all else was."""
    made = parse(Score, argv, "rewardsds score")
    from rewardsds.evaluation.score import score
    from rewardsds.evaluation.tables import check_files, write_files
    from rewardsds.tasks.parts import grader_options

    check_files(made.out, made.force)
    with _writing(*made.out):
        sheet = score(
            made.paths,
            made.metrics,
            prompts=made.prompts,
            groups=made.group,
            views=made.views,
            view_kind=made.view_kind,
            seed=made.seed,
            size=made.size,
            distractors=[] if made.distractors is None else read_prompts(made.distractors),
            device=made.device,
            grader=grader_options(made.grader),
        )
        try:
            write_files(made.out, {".json": sheet.to_json, ".csv": sheet.to_csv, ".md": sheet.to_markdown})
        finally:  # what was measured is shown also where it cannot be written
            print(sheet.to_markdown(), end="")
    return 0 if sheet.is_whole else 1


def _models(argv: list[str]) -> int:
    command, rest = (argv[0], argv[1:]) if argv else ("", [])
    if command == "list":
        parse(ListModels, rest, "rewardsds models list")
        return _list_models()
    if command == "fetch":
        made = parse(FetchModel, rest, "rewardsds models fetch")
        from rewardsds.catalogue import known
        from rewardsds.models.fetch import fetch

        print(fetch(known(made.name), made.revision, made.folder))
        return 0
    if command == "convert":
        made = parse(ConvertModel, rest, "rewardsds models convert")
        from rewardsds.models.convert import convert

        given = (made.recipe, made.source, made.out, made.companion)
        print(convert(*given, half=made.half, prediction_type=made.prediction_type))
        return 0
    if command == "check":
        made = parse(CheckModel, rest, "rewardsds models check")
        from rewardsds.models.check import check

        print(*check(made.path), sep="\n")
        return 0
    if command in ("-h", "--help"):
        print(
            "usage: rewardsds models list | fetch NAME | convert RECIPE SOURCE OUT | check PATH (each has its --help)"
        )
        return 0
    given = f"unknown models command {command!r}" if command else "no models command"
    raise SettingsError(f"{given}: expected list, fetch, convert or check")


def _list_models() -> int:
    from rewardsds.catalogue import KNOWN

    print(
        "Sizes are of the weights alone, in half precision; what fits with a step beside them: rewardsds doctor"
    )
    for model in KNOWN:
        print(f"{model.name:14} --{model.kind:7} {model.purpose}")
        print(f"{'':24} {model.parameters} million weights of {model.memory():.1f} GiB; {model.licence}")
        pinned = f" at {model.revision[:12]}" if model.revision else ", the newest"
        print(f"{'':24} {', '.join((*model.repos, *model.files))}{pinned}")
        if model.recipe is not None:
            print(f"{'':24} then: rewardsds models convert {model.recipe} FILE FOLDER")
    return 0


def _toybox(argv: list[str]) -> int:
    command, rest = (argv[0], argv[1:]) if argv else ("", [])
    if command == "show":
        return _toybox_show(rest)
    if command == "train":
        return _toybox_train(rest)
    if command in ("-h", "--help"):
        print("usage: rewardsds toybox show PROMPT | rewardsds toybox train (each has its own --help)")
        return 0
    given = f"unknown toybox command {command!r}" if command else "no toybox command"
    raise SettingsError(f"{given}: expected `toybox show PROMPT` or `toybox train`")


def _toybox_show(argv: list[str]) -> int:
    made = parse(Show, argv, "rewardsds toybox show")
    from rewardsds.toybox.show import show

    with _writing(made.out):
        _, notes = show(made.prompt, made.out, made.scenes, made.size, made.seed)
    for note in notes:
        print(f"warning: {note}", file=sys.stderr)
    print(made.out)
    return 0


def _toybox_train(argv: list[str]) -> int:
    from rewardsds.toybox.train.settings import TrainSettings

    default = TrainSettings(data=Path("toybox/data"), out=Path("toybox/training"))
    settings = parse(TrainSettings, argv, "rewardsds toybox train", default)
    from rewardsds.toybox.train import train

    print(train(settings))
    return 0
