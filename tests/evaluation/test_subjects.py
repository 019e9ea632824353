"""What paths name: pictures with their prompts, runs with theirs, groups, and what is missing."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from painted import paint
from PIL import Image
from rich.console import Console

from rewardsds.errors import SettingsError
from rewardsds.evaluation.prompt_files import natural
from rewardsds.evaluation.subjects import Entry, Look, find_entries, look_at, prompt_in
from rewardsds.evaluation.views import cameras_of, held_out_views
from rewardsds.scenes.export import turntable_cameras
from rewardsds.tasks.objects import load_objects


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with pictures out/1.png, out/2.jpg, out/10.webp and out/notes.txt."""
    monkeypatch.chdir(tmp_path)
    for name in ("1.png", "2.jpg", "10.webp"):
        paint(Path("out") / name, 100)
    Path("out/notes.txt").write_text("not a picture")
    return Path("out")


def told(entries: list[Entry]) -> list[tuple[str, str, str]]:
    return [(entry.name, entry.prompt, entry.error) for entry in entries]


# --- prompts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, prompt",
    [
        ("a_red_apple_and_a_blue_car_3.png", "a red apple and a blue car"),
        ("a red apple.webp", "a red apple"),
        ("image_012_a-red-apple_5.png", "a red apple"),
        ("image-012-a-red-apple.jpg", "a red apple"),
        ("two_dogs_2_7.png", "two dogs 2"),
        ("7_dwarfs.png", "7 dwarfs"),
        ("Eiffelturm_bei_Nacht_01.PNG", "Eiffelturm bei Nacht"),
        ("image.png", None),
        ("image_4.png", None),
        ("00012.png", None),
        ("3_4.png", None),
        ("_.png", None),
    ],
)
def test_a_name_says_a_prompt(name: str, prompt: str | None) -> None:
    assert prompt_in(name) == prompt


def test_numbers_are_sorted_as_numbers() -> None:
    names = ["image_10.png", "image_9.png", "a2b10.png", "a2b9.png", "Image_1.png"]
    assert sorted(names, key=natural) == [
        "a2b9.png",
        "a2b10.png",
        "Image_1.png",
        "image_9.png",
        "image_10.png",
    ]


TABLES = {
    "p.json": json.dumps({"10.webp": "ten", "1.png": "one", "2.jpg": "two"}),
    "q.json": json.dumps(
        [
            {"file": "1.png", "prompt": "one"},
            {"image": "out/10.webp", "caption": "ten"},
            {"name": "2", "text": "two"},
        ]
    ),
    "r.jsonl": '{"file_name": "1.png", "text": "one"}\n\n{"picture": "./2.jpg", "text": "two"}\n'
    '{"file": "10", "text": "ten"}\n',
    "s.csv": 'Name,seed,Caption\n1.png,3,one\n2.jpg,3,"two"\n10.webp,3," ten "\n',
    "t.txt": "# three of them\none\n\ntwo\nten\n",
    "u.json": json.dumps(["one", "two", "ten"]),
    "v.csv": "\ufeffprompt\none\ntwo\nten\n",
    "w.tsv": "File\tPrompt\n1.png\tone\n2.jpg\ttwo\n10.webp\tten\n",
    "coco.json": json.dumps(
        {
            "images": [
                {"id": 5, "file_name": "10.webp"},
                {"id": 7, "file_name": "1.png"},
                {"id": 8, "file_name": "2.jpg"},
            ],
            "annotations": [
                {"image_id": 7, "caption": "one"},
                {"image_id": 7, "caption": "uno"},
                {"image_id": 5, "caption": "ten"},
                {"image_id": 8, "caption": "two"},
            ],
        }
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_files_of_prompts_in_every_form(name: str, folder: Path) -> None:
    Path(name).write_text(TABLES[name], encoding="utf-8")
    expected = [("out/1.png", "one", ""), ("out/2.jpg", "two", ""), ("out/10.webp", "ten", "")]
    assert told(find_entries([folder], Path(name))) == expected
    alone = [Path("out/10.webp"), Path("out/1.png"), Path("out/2.jpg")]
    assert sorted(told(find_entries(alone, Path(name)))) == sorted(expected)


def test_the_longest_name_that_fits_counts(folder: Path) -> None:
    paint(Path("other/1.png"), 10)
    Path("p.json").write_text(json.dumps({"1.png": "any", "out/1.png": "ours", "2.jpg": "x", "10.webp": "y"}))
    entries = find_entries([folder, Path("other")], Path("p.json"))
    assert [entry.prompt for entry in entries if entry.name.endswith("1.png")] == ["ours", "any"]


def test_a_picture_that_is_named_and_not_there_is_an_error_in_the_list(folder: Path) -> None:
    names = {"1.png": "one", "3.png": "three", "2.jpg": "two", "elsewhere/4.png": "four"}
    Path("p.json").write_text(json.dumps(names))
    found = find_entries([folder], Path("p.json"))
    assert [(entry.name, entry.prompt) for entry in found] == [
        ("out/1.png", "one"), ("out/2.jpg", "two"), ("out/3.png", "three"), ("out/10.webp", ""),
    ]  # fmt: skip
    assert found[2].error == "no such picture, and p.json names it"
    assert found[3].error == "p.json does not name it"
    assert {entry.group for entry in found} == {"out"}


def test_pictures_given_alone_miss_only_what_lies_nowhere_beside_them(folder: Path) -> None:
    Path("p.json").write_text(json.dumps({"1.png": "one", "2.jpg": "two", "3.png": "three"}))
    found = find_entries([folder / "1.png"], Path("p.json"))
    assert [(entry.name, bool(entry.error), entry.group) for entry in found] == [
        ("out/1.png", False, "out/1.png"), ("out/3.png", True, "out/3.png"),
    ]  # fmt: skip
    found = find_entries([folder / "1.png"], Path("p.json"), ["mine"])
    assert [entry.group for entry in found] == ["mine", "mine"]


def test_an_empty_folder_of_which_pictures_were_promised(folder: Path) -> None:
    Path("empty").mkdir()
    Path("p.json").write_text(json.dumps({"1.png": "one", "2.png": "two"}))
    found = find_entries([Path("empty")], Path("p.json"))
    assert [(entry.name, bool(entry.error)) for entry in found] == [
        ("empty/1.png", True),
        ("empty/2.png", True),
    ]


def test_another_number_of_lines_is_told_with_both_numbers(folder: Path) -> None:
    Path("p.txt").write_text("one\ntwo\n")
    with pytest.raises(SettingsError, match=r"p\.txt has 2 prompts, but out holds 3 pictures"):
        find_entries([folder], Path("p.txt"))


def test_lines_belong_to_the_pictures_of_each_folder(folder: Path) -> None:
    shutil.copytree("out", "more")
    Path("p.txt").write_text("one\ntwo\nten\n")
    found = find_entries([folder, Path("more")], Path("p.txt"))
    assert [entry.prompt for entry in found] == ["one", "two", "ten"] * 2


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("p.json", None, "no file of prompts p.json"),
        ("p.txt", None, "no file of prompts p.txt"),
        ("p.txt", "# nothing\n", "holds no prompts"),
        ("p.json", "{", "is no JSON"),
        ("p.json", "3", "expected a list of texts.* a mapping from picture to prompt"),
        ("p.json", "[]", "holds no prompts"),
        ("p.json", '{"1.png": ""}', "entry 1: expected a text under prompt"),
        ("p.json", '{"1.png": 3}', "entry 1: expected a text under prompt"),
        ("p.json", '{"1.png": "one", "1.png": "two"}', "says '1.png' twice"),
        ("p.json", '[{"file": "1.png"}]', "entry 1: expected a text under prompt"),
        (
            "p.json",
            '[{"file": "1.png", "text": "a"}, {"text": "b"}]',
            "entry 2: expected a picture under file",
        ),
        (
            "p.json",
            '[{"file": "1.png", "text": "a"}, {"file": "./1.png", "text": "b"}]',
            "says '1.png' twice",
        ),
        ("p.csv", "file,words\n1.png,one\n", "has no column of prompts.* it is file, words"),
        ("p.csv", "", "it is empty"),
        ("p.csv", "file,prompt\n", "holds no prompts"),
        ("p.csv", "file,prompt\n1.png\n", "entry 1: expected a text"),
        ("p.json", b"\xff\xfe\x00", "cannot read the prompts"),
    ],
)
def test_files_of_prompts_that_cannot_be_used(
    name: str, content: str | bytes | None, message: str, folder: Path
) -> None:
    if content is not None:
        Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SettingsError, match=message) as caught:
        find_entries([folder], Path(name))
    assert "\n" not in str(caught.value)


# --- paths --------------------------------------------------------------------------------------------------


def test_paths_that_cannot_be_used(folder: Path) -> None:
    def refused(*paths: str, groups: tuple[str, ...] = ()) -> str:
        with pytest.raises(SettingsError) as caught:
            find_entries([Path(path) for path in paths], groups=groups)
        return str(caught.value)

    Path("empty/below").mkdir(parents=True)
    assert refused() == "no PATH is given: expected pictures, folders of pictures or runs"
    assert refused("gone.png") == "no picture, folder or run gone.png"
    assert "out/notes.txt is no picture" in refused("out/notes.txt")
    assert refused("empty") == "empty holds neither pictures (.png, .jpg, .jpeg, .webp) nor runs"
    assert refused("out", "./out/../out") == "out/../out is given twice"
    assert "2 groups are named for 1 paths" in refused("out", groups=("a", "b"))


def test_each_path_is_a_group_unless_it_is_named(folder: Path) -> None:
    paths = [folder, paint(Path("a_dog.png"), 3)]
    assert [entry.group for entry in find_entries(paths)] == ["out"] * 3 + ["a_dog.png"]
    assert [entry.group for entry in find_entries(paths, groups=["x"])] == ["x"] * 4
    assert [entry.group for entry in find_entries(paths, groups=["x", "y"])] == ["x"] * 3 + ["y"]


def test_names_without_words_are_errors_in_the_list(folder: Path) -> None:
    entries = find_entries([folder])
    assert all("give a file of prompts with --prompts" in entry.error for entry in entries)


# --- runs ---------------------------------------------------------------------------------------------------


def test_runs_below_a_folder_are_grouped_by_method(study: Path) -> None:
    found = find_entries([study])
    assert [
        (entry.name.removeprefix(f"{study}/"), entry.group, entry.prompt, entry.seed) for entry in found
    ] == [
        ("plain/batch/image_000_a-red-apple_3.png", "plain", "a red apple", 3),
        ("plain/batch/image_001_a-red-apple_4.png", "plain", "a red apple", 4),
        # the tiny prior knows all words of these prompts
        ("plain/batch/image_002_a-green-car_3.png", "plain", "a green car", 3),
        ("plain/batch/image_003_a-green-car_4.png", "plain", "a green car", 4),
        ("plain/cube", "plain", "a red apple", 5),
        ("plain/edit/image.png", "plain", "a green apple", 0),
        ("weighted/cube, seed 0", "weighted", "a red apple", 0),
        ("weighted/cube, seed 1", "weighted", "a red apple", 1),
        ("weighted/one/image.png", "weighted", "a red apple", 0),
    ]
    assert not any(entry.error for entry in found)
    assert {entry.group for entry in find_entries([study / "plain"])} == {str(study / "plain")}
    assert {entry.group for entry in find_entries([study / "plain", study / "weighted/one"])} == {
        str(study / "plain"), str(study / "weighted/one"),
    }  # fmt: skip


def test_groups_of_one_name_below_two_paths_stay_apart(study: Path, tmp_path: Path) -> None:
    shutil.copytree(study / "plain/edit", tmp_path / "other/plain/edit")
    found = find_entries([study, tmp_path / "other"])
    assert {entry.group for entry in found} == {f"{study}/plain", "weighted", f"{tmp_path}/other/plain"}
    named = find_entries([study, tmp_path / "other"], groups=["a", "b"])
    assert {entry.group for entry in named} == {"a", "b"}


def test_only_rewards_that_steered_count_as_optimised(study: Path, tiny_clip_folder: Path) -> None:
    rewards = {entry.group: entry.rewards for entry in find_entries([study])}
    assert rewards == {"plain": (), "weighted": (str(tiny_clip_folder),)}


def test_the_users_words_count_not_those_that_the_prior_knows(study: Path, tmp_path: Path) -> None:
    """Files of a batch are named by the words that the prior knows; the run's results say which files they are."""
    run = tmp_path / "run"
    shutil.copytree(study / "plain/batch", run)
    text = (run / "settings.yaml").read_text()
    (run / "settings.yaml").write_text(text.replace("a green car", "a green zeppelin car"))
    found = find_entries([run])
    assert [entry.prompt for entry in found] == ["a red apple"] * 2 + ["a green zeppelin car"] * 2
    assert [entry.source.name for entry in found][2] == "image_002_a-green-car_3.png"
    assert not any(entry.error for entry in found)


def test_unfinished_runs_of_pictures_and_lost_pictures_are_errors(study: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(study / "plain/batch", run)
    (run / "image_001_a-red-apple_4.png").unlink()
    assert [bool(entry.error) for entry in find_entries([run])] == [False, True, False, False]
    (run / "results.json").unlink()
    found = find_entries([run])
    assert [entry.error for entry in found] == [f"not finished: finish it with `rewardsds resume {run}`"] * 4


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda text: text.replace("task: image", "task: opera"), "task is 'opera'"),
        (lambda text: text.replace("steps: 2", "steps: none"), "steps"),
        (lambda text: "[", "cannot read the settings"),
    ],
)
def test_settings_that_cannot_be_read_are_an_error_in_the_list(
    change: Callable[[str], str], message: str, study: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(study / "weighted/one", run)
    (run / "settings.yaml").write_text(change((run / "settings.yaml").read_text()))
    [entry] = find_entries([run])
    assert message in entry.error


def test_runs_need_no_file_of_prompts(study: Path, folder: Path) -> None:
    Path("p.json").write_text(TABLES["p.json"])
    with pytest.raises(SettingsError, match="all that is given are runs"):
        find_entries([study], Path("p.json"))
    assert len(find_entries([study, folder], Path("p.json"))) == 9 + 3


# --- looking ------------------------------------------------------------------------------------------------


def test_random_views_are_where_they_should_be() -> None:
    cameras = cameras_of("random", 500, 7)
    places = cameras.camera_to_world[0, :, :3, 3]
    torch.testing.assert_close(
        places.norm(dim=1), torch.full((500,), 2.7475), atol=1e-3, rtol=0
    )  # 1 / tan 20°
    elevation = torch.rad2deg(torch.asin(places[:, 2] / places.norm(dim=1)))
    azimuth = torch.rad2deg(torch.atan2(places[:, 1], places[:, 0])) % 360
    assert 0 <= elevation.min() < 1 < 29 < elevation.max() <= 30.001
    assert azimuth.min() < 5
    assert azimuth.max() > 355
    assert torch.equal(torch.rad2deg(cameras.field_of_view), torch.full((1, 500), 40.0))
    again, other = cameras_of("random", 500, 7), cameras_of("random", 500, 8)
    assert torch.equal(again.camera_to_world, cameras.camera_to_world)
    assert not torch.equal(other.camera_to_world, cameras.camera_to_world)


def test_even_views_go_around() -> None:
    cameras = cameras_of("even", 4, 7)
    assert torch.equal(cameras.camera_to_world, turntable_cameras(4, elevation=15.0).camera_to_world)


def test_pictures_are_read_whole_and_in_their_own_size(tmp_path: Path) -> None:
    wide = Image.new("RGB", (40, 20), (0, 0, 0))
    wide.putpixel((39, 0), (255, 51, 0))
    wide.save(tmp_path / "a dog.png")
    [(entry, subject)] = look_at(find_entries([tmp_path / "a dog.png"]), Look())
    assert subject is not None
    assert (subject.prompt, subject.pictures.shape) == ("a dog", (1, 3, 20, 40))
    torch.testing.assert_close(subject.pictures[0, :, 0, 39], torch.tensor([1.0, 0.2, 0.0]))
    assert entry.note == "its prompt was read from its name"


def test_an_object_is_seen_as_its_settings_say(study: Path) -> None:
    [entry] = find_entries([study / "plain/cube"])
    [(_, subject)] = look_at([entry], Look(views=3, seed=2))
    assert subject is not None
    one = load_objects(study / "plain/cube", Console(file=io.StringIO()))[0]
    expected = one.render_images(held_out_views(2 + 5, 3), 16)[0]  # the run's seed is 5, its video_size 16
    torch.testing.assert_close(subject.pictures, expected)
    [(_, subject)] = look_at([entry], Look(views=4, kind="even", size=24))
    assert subject is not None
    torch.testing.assert_close(subject.pictures, one.render_images(turntable_cameras(4), 24)[0])


def test_each_particle_is_an_object_of_its_own(study: Path) -> None:
    seen = [
        subject for _, subject in look_at(find_entries([study / "weighted/cube"]), Look(views=1, kind="even"))
    ]
    assert [subject is not None and subject.object is not None for subject in seen] == [True, True]
    assert not torch.equal(seen[0].pictures, seen[1].pictures)  # pyright: ignore[reportOptionalMemberAccess]


def test_an_unfinished_object_is_taken_from_its_newest_checkpoint_and_it_is_told(
    study: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(study / "plain/cube", run)
    (run / "results.json").unlink()
    [(entry, subject)] = look_at(find_entries([run]), Look(views=1))
    assert subject is not None
    assert entry.note == f"{run} is not finished: its object after step 2 is taken"


def test_what_cannot_be_seen_is_an_error_in_the_list(study: Path, tmp_path: Path) -> None:
    shutil.copytree(study / "plain/cube", tmp_path / "runs/begun")
    shutil.rmtree(tmp_path / "runs/begun/checkpoints")
    shutil.copytree(study / "plain/cube", tmp_path / "runs/torn")
    for path in (tmp_path / "runs/torn/checkpoints").iterdir():
        path.write_bytes(path.read_bytes()[:1000])
    paint(tmp_path / "pictures/a_dog.png", 3)
    (tmp_path / "pictures/a_cat.png").write_bytes(b"no picture")
    paint(tmp_path / "pictures/torn_dog.png", 3, (64, 64))
    whole = (tmp_path / "pictures/torn_dog.png").read_bytes()
    (tmp_path / "pictures/torn_dog.png").write_bytes(whole[:60])
    entries = find_entries([tmp_path / "runs", tmp_path / "pictures"])
    seen = list(look_at(entries, Look(views=1)))
    errors = {entry.source.name: entry.error for entry, subject in seen if subject is None}
    assert set(errors) == {"begun", "torn", "a_cat.png", "torn_dog.png"}
    assert "its checkpoints were removed" in str(errors["begun"])
    assert "damaged" in errors["torn"]
    assert "is no picture" in errors["a_cat.png"]
    assert all(error and "\n" not in error for error in errors.values())
