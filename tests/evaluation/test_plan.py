"""Plans: what they may say, what is told where they cannot be used, and the runs that follow from them."""

from __future__ import annotations

from pathlib import Path

import pytest

from rewardsds.errors import SettingsError
from rewardsds.evaluation.plan import Plan, make_plan, read_plan
from rewardsds.evaluation.units import asked_of, cells_and_units, runs_of, seeds_of
from rewardsds.tasks.settings import TextToImageSettings

EXAMPLES = Path(__file__).parents[2] / "examples" / "paper"

PLAN = """
title: Two methods
prompts: [a red cube, a blue car, a green apple]
seeds: 2
settings: {steps: 5}
methods:
  SDS: {weighting: none}
  RewardSDS: {candidates: 3}
baseline: SDS
metrics: [clip, judge]
"""


def plan_of(text: str, tmp_path: Path, size: str | None = None) -> Plan:
    (tmp_path / "plan.yaml").write_text(text, encoding="utf-8")
    return read_plan(tmp_path / "plan.yaml", size)


def make(**values) -> Plan:
    given = {"prompts": ["a red cube", "a blue car"], "methods": {"SDS": {"weighting": "none"}}, **values}
    return make_plan(given)


def units_of(plan: Plan, tmp_path: Path, **best_of: int):
    counts = {name: best_of.get(name, 1) for name in plan.columns()}
    return cells_and_units(plan, asked_of(plan, lambda: tmp_path), counts)


def test_what_a_plan_says(tmp_path):
    plan = plan_of(PLAN, tmp_path)
    assert plan.texts() == ["a red cube", "a blue car", "a green apple"]
    assert plan.rivals() == {"SDS": None, "RewardSDS": "SDS"}
    assert plan.seed_list == [0, 1]
    settings = plan.settings_of(plan.methods["RewardSDS"], prompt="a red cube", seed=1)
    assert (settings.steps, settings.candidates, settings.weighting) == (5, 3, "best-worst")
    assert settings.threads == 1  # unless said otherwise, so that workers make what a single process makes


def test_how_a_grader_is_asked():
    given = {"grader": {"url": "http://here/v1"}}
    assert make().metrics_grader.url is None
    assert make(settings=given).metrics_grader.url == "http://here/v1"
    plan = make(settings=given, grader={"url": "http://there/v1"})
    assert plan.metrics_grader.url == "http://there/v1"
    assert plan.settings_of(plan.methods["SDS"], prompt="a red cube").grader.url == "http://here/v1"
    with pytest.raises(SettingsError, match="grader"):
        make(grader={"link": "http://there/v1"})


def test_pictures_are_made_side_by_side(tmp_path):
    plan = plan_of(PLAN + "batch: 4\n", tmp_path)
    cells, units = units_of(plan, tmp_path)
    own = [unit for unit in units if unit.method == "SDS"]
    assert [unit.items for unit in own] == [
        (("a red cube", 0), ("a red cube", 1), ("a blue car", 0), ("a blue car", 1)),
        (("a green apple", 0), ("a green apple", 1)),
    ]
    # the items of a unit are those that its run makes, in the run's order
    for unit in units:
        assert isinstance(unit.settings, TextToImageSettings)
        assert [(text, seed) for text in unit.settings.texts for seed in unit.settings.seeds] == list(
            unit.items
        )
    assert len(cells) == 12
    for cell in cells:
        (made,) = cell.made
        assert made.unit.items[made.index] == (cell.asked.prompt, cell.seed)
        assert made.unit.method == cell.method


def test_an_estimator_is_one_prompts(tmp_path):
    plan = make(methods={"VSD": {"loss": "vsd"}}, seeds=3, settings={"steps": 2})
    _, units = units_of(plan, tmp_path)
    assert [unit.items for unit in units] == [
        (("a red cube", 0), ("a red cube", 1), ("a red cube", 2)),
        (("a blue car", 0), ("a blue car", 1), ("a blue car", 2)),
    ]


def test_objects_are_made_one_by_one(tmp_path):
    plan = make(task="3d", seeds=[4, 9])
    _, units = units_of(plan, tmp_path)
    assert [unit.items for unit in units] == [
        ((prompt, seed),) for prompt in ("a red cube", "a blue car") for seed in (4, 9)
    ]


def test_best_of_picks_from_results_that_no_other_cell_has(tmp_path):
    plan = make(methods={"best": {"weighting": "none", "best_of": 3}}, seeds=2)
    cells, _ = units_of(plan, tmp_path, best=3)
    assert seeds_of(1, 3) == [3, 4, 5]
    seen = [(made.unit.key, made.index) for cell in cells for made in cell.made]
    assert len(seen) == len(set(seen)) == 2 * 2 * 3


@pytest.mark.parametrize(
    "numbers, longest, expected",
    [
        ([0, 1, 2], 64, [(0, 3)]),
        ([5, 0, 1, 7, 6], 64, [(0, 2), (5, 3)]),
        ([0, 1, 2, 3, 4], 2, [(0, 2), (2, 2), (4, 1)]),
    ],
)
def test_stretches(numbers, longest: int, expected):
    assert runs_of(numbers, longest) == expected


def test_a_unit_is_named_by_what_it_depends_on(tmp_path):
    def key(**values) -> str:
        _, units = units_of(make(**values), tmp_path)
        return units[0].key

    assert key() == key(title="another", metrics=["judge"])
    assert len({key(), key(settings={"steps": 7}), key(seeds=2), key(prompts=["a red cube"])}) == 4


def test_sweeps_are_taken_apart(tmp_path):
    plan = make(
        methods={
            "N": {"sweep": {"candidates": [2, 4]}},
            "of": {"sweep": {"nfsd.small": [0.1, 0.2]}, "loss": "nfsd"},
        }
    )
    columns = plan.columns()
    assert list(columns) == ["N candidates 2", "N candidates 4", "of nfsd.small 0.1", "of nfsd.small 0.2"]
    found = [plan.settings_of(one.method, prompt="a red cube") for one in columns.values()]
    assert [one.candidates for one in found[:2]] == [2, 4]
    assert [one.model_dump()["nfsd"]["small"] for one in found[2:]] == [0.1, 0.2]
    last = columns["N candidates 4"]
    assert (last.family, last.swept) == ("N", {"candidates": 4})


def test_a_sweep_leaves_a_methods_other_settings_of_the_same_group():
    method = {"backbone": "nerf", "nerf": {"levels": 8}, "sweep": {"nerf.features": [2, 4]}}
    plan = make(task="3d", methods={"NeRF": method})
    found = [plan.settings_of(one.method, prompt="a red cube") for one in plan.columns().values()]
    assert [(one.model_dump()["nerf"]["levels"], one.model_dump()["nerf"]["features"]) for one in found] == [
        (8, 2),
        (8, 4),
    ]


def test_a_familys_name_is_the_swept_method_though_another_begins_alike():
    methods = {"SDS": {"weighting": "none"}, "SDS K": {"sweep": {"reward_steps": [2, 4]}}}
    families = [one.family for one in make(methods=methods).columns().values()]
    assert families == ["", "SDS K", "SDS K"]


def test_what_two_methods_share_is_made_once(tmp_path):
    methods = {
        "N": {"sweep": {"candidates": [2, 4]}},
        "S": {"candidates": 4, "sweep": {"rollout_steps": [1, 2]}},
    }
    plan = make(methods=methods, settings={"steps": 5})
    cells, units = units_of(plan, tmp_path)
    assert len(units) == 3
    kept = {id(unit) for unit in units}
    assert all(id(made.unit) in kept for cell in cells for made in cell.made)
    of = {name: [cell.made[0].unit.key for cell in cells if cell.method == name] for name in plan.columns()}
    assert of["N candidates 4"] == of["S rollout_steps 1".replace("_", " ")]


def test_a_prompt_that_the_prior_does_not_know_leaves_the_others_alone(tmp_path):
    plan = make(prompts=["a red cube", "World cup trophy", "a green apple"], settings={"steps": 5})
    cells, units = units_of(plan, tmp_path)
    assert {prompt for unit in units for prompt, _ in unit.items} == {"a red cube", "a green apple"}
    problems = {cell.asked.prompt: cell.problem for cell in cells}
    assert "World cup trophy" in problems.pop("World cup trophy")
    assert set(problems.values()) == {""}


def test_an_edit_is_the_same_wherever_its_picture_lies(tmp_path):
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    plan = make(task="edit", prompts="toybox-edits:1")
    counts = dict.fromkeys(plan.columns(), 1)
    keys = [
        [
            unit.key
            for unit in cells_and_units(plan, asked_of(plan, lambda name=name: tmp_path / name), counts)[1]
        ]
        for name in ("here", "there")
    ]
    assert keys[0] == keys[1]


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_plan_of_the_paper_can_be_laid_out(path: Path, tmp_path):
    for size in ("small", "full"):
        plan = read_plan(path, size)
        cells, units = units_of(plan, tmp_path)
        assert {cell.method for cell in cells} == set(plan.columns())
        assert all(made.unit in units for cell in cells for made in cell.made)


def test_sizes(tmp_path):
    text = PLAN + "sizes:\n  small: {limit: 1, settings: {candidates: 2}}\n  full: {seeds: 7}\n"
    small, full = plan_of(text, tmp_path), plan_of(text, tmp_path, "full")
    assert (small.size, small.texts(), small.settings) == (
        "small",
        ["a red cube"],
        {"steps": 5, "candidates": 2},
    )
    assert (full.size, full.seeds, full.limit) == ("full", 7, None)
    with pytest.raises(SettingsError, match="no size 'huge': expected small, full"):
        plan_of(text, tmp_path, "huge")


def test_paths_are_relative_to_the_plan(tmp_path):
    (tmp_path / "own.txt").write_text("a cat\na dog\n")
    assert plan_of(PLAN.replace("[a red cube, a blue car, a green apple]", "own.txt"), tmp_path).texts() == [
        "a cat",
        "a dog",
    ]


def test_edits(tmp_path):
    text = """
task: edit
prompts: [{picture: a.png, source: a red cube, target: a blue cube}]
methods: {DDS: {weighting: none}}
"""
    plan = plan_of(text, tmp_path)
    (asked,) = asked_of(plan, lambda: tmp_path)
    assert asked.prompt == "a blue cube"
    assert asked.label == "a red cube → a blue cube"
    _, (unit,) = units_of(plan, tmp_path)
    assert unit.settings.picture == tmp_path / "a.png"  # pyright: ignore[reportAttributeAccessIssue]


def test_the_toyboxs_own_edits(tmp_path):
    plan = make(task="edit", prompts="toybox-edits:2")
    first, second = asked_of(plan, lambda: tmp_path)
    assert first.settings["picture"].is_file()
    assert first.settings["source"] != first.prompt
    assert asked_of(plan, lambda: tmp_path) == [first, second]


@pytest.mark.parametrize(
    "change, told",
    [
        (("metrics: [clip, judge]", "metrics: [clip, clip]"), "a metric is named twice"),
        (("baseline: SDS", "baseline: DSS"), "baseline is 'DSS', which is no method: expected SDS, RewardSDS"),
        (("seeds: 2", "seed: 2"), "unknown setting seed"),
        (("seeds: 2", "seeds: [1, 1]"), "different whole numbers"),
        (("seeds: 2", "seeds: 0"), "expected 1 to 10000"),
        (("  RewardSDS", "  SDS"), "'SDS' is there twice"),
        (("[a red cube, a blue car, a green apple]", "[]"), "its list is empty"),
        (("prompts: [a red cube, a blue car, a green apple]", ""), "no prompts"),
        (("[a red cube, a blue car, a green apple]", "nowhere.txt"), "no such file"),
        (("a blue car", "a red cube"), "'a red cube' twice"),
        (("{candidates: 3}", "{best_of: nobody}"), "expected a number, or another method"),
        (("{candidates: 3}", "{against: nobody}"), "against of RewardSDS is 'nobody': expected another method"),
        (("{candidates: 3}", "{against: RewardSDS}"), "expected another method"),
        (("{candidates: 3}", "{candidates: 3, seed: 1}"), "which a plan gives itself"),
        (("{candidates: 3}", "{candidats: 3}"), "method RewardSDS: unknown setting candidats"),
        (("{candidates: 3}", "{candidates: 1}"), "method RewardSDS: candidates is 1"),
        (("{candidates: 3}", "{sweep: {candidates: []}}"), "candidates has no values"),
        (("title: Two methods", "task: 3d\nsettings: {steps: 2"), "cannot read the plan"),
    ],
)  # fmt: skip
def test_plans_that_cannot_be_used(tmp_path, change: tuple[str, str], told: str):
    with pytest.raises(SettingsError, match=told) as error:
        units_of(plan_of(PLAN.replace(*change), tmp_path), tmp_path)
    assert "\n" not in str(error.value)


def test_what_a_sheet_of_edits_shows_beside_the_methods_is_no_methods_name():
    methods = {"given": {"weighting": "none"}}
    assert make(methods=methods, prompts=["a red cube"]).rivals() == {"given": None}
    with pytest.raises(ValueError, match="no method can be named 'given'"):
        make(task="edit", prompts="toybox-edits:2", methods=methods)


def test_no_plan(tmp_path):
    with pytest.raises(SettingsError, match="no plan"):
        read_plan(tmp_path / "none.yaml")
    with pytest.raises(SettingsError, match="holds no plan"):
        plan_of("- a\n- b\n", tmp_path)


def test_a_method_is_compared_with_the_baseline_or_with_the_one_that_it_names():
    methods = {
        "SDS": {"weighting": "none"},
        "RewardSDS": {},
        "VSD": {"loss": "vsd", "weighting": "none"},
        "N:": {"loss": "vsd", "against": "VSD", "sweep": {"candidates": [2, 4]}},
    }
    rivals = {"RewardSDS": "SDS", "VSD": "SDS", "N: candidates 2": "VSD", "N: candidates 4": "VSD"}
    assert make(methods=methods).rivals() == {"SDS": None, **rivals}
    assert make(methods=methods, baseline="RewardSDS").rivals() == {
        **rivals, "SDS": "RewardSDS", "RewardSDS": None, "VSD": "RewardSDS",
    }  # fmt: skip


def test_only_pictures_are_sampled():
    with pytest.raises(SettingsError, match="samples from the prior, which makes pictures"):
        make(task="3d", methods={"sampling": {"sampling_steps": 5}})
