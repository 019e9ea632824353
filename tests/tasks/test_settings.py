"""Settings: what is refused and how it is said, YAML, and that each of them is read by something."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trimesh
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from rewardsds.errors import SettingsError
from rewardsds.runs.settings import Settings, read_yaml, to_yaml
from rewardsds.tasks.run import settings_from
from rewardsds.tasks.settings import (
    BridgeSettings,
    GraderSettings,
    InversionSettings,
    NFSDSettings,
    TextTo3DSettings,
    TextToImageSettings,
    ViewPromptSettings,
    slug,
)


@pytest.mark.parametrize(
    "values, told",
    [
        ({"prompt": ""}, "it is empty"),
        ({"prompts": ["a dog"]}, "one of them is enough"),
        ({"prompt": " \n\t"}, "it is empty"),
        ({"prompt": "x" * 10_000}, "at most 2000 characters are allowed, got 10000"),
        ({"candidates": 1}, "needs at least 2: raise candidates or lower weighting_k"),
        ({"candidates": 3, "weighting_k": 2}, "needs at least 4"),
        ({"candidates": 2, "weighting": "best", "weighting_k": 3}, "needs at least 3"),
        ({"rollout_steps": 0}, "rollout_steps is 0"),
        ({"reward_steps": -1}, "reward_steps is -1"),
        ({"steps": 10, "reward_steps": 11}, "the run has only 10 steps"),
        (
            {"reward_steps": "half"},
            "reward_steps is 'half': expected a whole number of steps, 0 or more, or a share",
        ),
        (
            {"reward_steps": 0.5},
            "reward_steps is 0.5: expected a whole number of steps, 0 or more, or a share",
        ),
        ({"reward_steps": True}, "reward_steps is True: expected a whole number"),
        ({"reward_steps": "101%"}, "reward_steps is '101%': expected"),
        ({"reward_steps": "-1%"}, "reward_steps is '-1%': expected"),
        ({"temperature": 0}, "temperature is 0"),
        ({"reward": "grader:"}, "has a grader without a model: name one, for example grader:"),
        ({"reward": "min(clip, 0.5 * grader: )"}, "has a grader without a model"),
        (
            {"reward": "grader:m", "reward_gradient": 10},
            "reward_gradient is 10, but the reward grader:m has no",
        ),
        (
            {"reward": "clip + 0.5 * grader:a/b:c", "reward_gradient": 1},
            "the reward grader:a/b:c has no gradient",
        ),
        ({"reward": "min(clip,grader:m)", "reward_gradient": 1}, "the reward grader:m has no gradient"),
        ({"guidance_scale": float("nan")}, "guidance_scale is nan"),
        ({"t_range_start": (0.7, 0.3)}, "0 <= low <= high <= 1"),
        ({"weighting": "worst"}, "weighting is 'worst'"),
        ({"device": "tpu"}, "device is 'tpu'"),
        ({"colour": 3}, "unknown setting colour"),
        ({"candidates": 0, "steps": 0}, "; "),
    ],
)
def test_wrong_settings_are_told_in_one_line(values: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingsError) as error:
        TextToImageSettings(**{"prompt": "a red cube", **values})
    message = str(error.value)
    assert told in message
    assert "\n" not in message
    assert len(message) < 400


@pytest.mark.parametrize(
    "views, told",
    [((), "name at least one view"), ((0, 4), "names 4: there are 4 views"), ((-1,), "names -1")],
)
def test_views_that_are_not_there(views: tuple[int, ...], told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        TextTo3DSettings(prompt="a red cube", rewarded_views=views)


def test_settings_at_the_bounds_are_accepted() -> None:
    TextToImageSettings(prompt="x" * 2_000, candidates=2, steps=10, reward_steps=10)
    TextToImageSettings(prompt="x", candidates=4, weighting_k=2)
    assert TextToImageSettings(prompt="x", candidates=1, weighting="none").uses_reward is False
    assert TextToImageSettings(prompt="x", reward_steps=0).uses_reward is False


@pytest.mark.parametrize(
    "given, steps, count",
    [
        ("0%", 10, 0),
        ("50%", 10, 5),
        ("100%", 7, 7),
        ("12.5%", 160, 20),
        (3, 10, 3),
        ("3", 10, 3),
        ("10%", 4, 1),
        (None, 10, None),
    ],
)
def test_reward_steps_may_be_a_share_of_the_steps(
    given: int | str | None, steps: int, count: int | None
) -> None:
    settings = TextToImageSettings(prompt="x", steps=steps, reward_steps=given)
    assert settings.resolved_reward_steps == count
    assert settings.resolved().reward_steps == count
    assert settings.uses_reward == (count != 0)


def test_rewardsds_is_on_by_default() -> None:
    settings = TextTo3DSettings(prompt="a red cube")
    assert (settings.candidates, settings.rollout_steps, settings.weighting, settings.reward) == (
        4,
        1,
        "best-worst",
        "clip",
    )


@given(
    prompt=st.text(min_size=1, max_size=60).filter(lambda text: text.strip()),
    candidates=st.integers(2, 64),
    guidance_scale=st.floats(0, 1000),
    ends=st.tuples(st.floats(0, 0.5), st.floats(0.5, 1)),
    reward_steps=st.none() | st.integers(0, 100) | st.floats(0, 100).map("{:f}%".format),
    views=st.integers(1, 8),
)
def test_yaml_round_trip(
    prompt: str,
    candidates: int,
    guidance_scale: float,
    ends: tuple[float, float],
    reward_steps: int | str | None,
    views: int,
) -> None:
    settings = TextTo3DSettings(
        prompt=prompt,
        candidates=candidates,
        guidance_scale=guidance_scale,
        t_range_end=ends,
        reward_steps=reward_steps,
        camera={"views": views},  # pyright: ignore[reportArgumentType]
    )
    assert settings_from(yaml.safe_load(to_yaml(settings))).model_dump() == settings.model_dump()


def test_yaml_names_its_task_and_not_its_folder(tmp_path: Path) -> None:
    text = to_yaml(TextToImageSettings(prompt="a red cube", out=tmp_path))
    assert text.startswith("task: image\n")
    assert str(tmp_path) not in text


@pytest.mark.parametrize("text", ["[1, 2]", "just words", "a: [", "1: 2", ""])
def test_files_that_hold_no_settings(text: str, tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError) as error:
        read_yaml(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_settings_of_an_unknown_task() -> None:
    with pytest.raises(SettingsError, match="expected image, 3d or edit"):
        settings_from({"task": "video", "prompt": "x"})


@pytest.mark.parametrize(
    "text, expected",
    [
        ("a penguin with a brown bag in the snow", "a-penguin-with-a-brown-bag-in-the-snow"),
        ("A «DSLR» photo!", "a-dslr-photo"),
        ("../../etc/passwd", "etc-passwd"),
        ("ein grüner Apfel", "ein-grüner-apfel"),
        ("🦄", "prompt"),
        ("word " * 40, "word-word-word-word-word-word-word-word-word"),
        ("x" * 500, "x" * 12),
    ],
)
def test_slug(text: str, expected: str) -> None:
    assert slug(text) == expected


def test_default_folder_names_task_prompt_and_seed() -> None:
    settings = TextTo3DSettings(prompt="a red cube", seed=7).with_out()
    assert settings.out == Path("runs/3d-a-red-cube-7")


def test_every_field_says_what_it_is() -> None:
    for kind in (TextToImageSettings, TextTo3DSettings):
        for name, field in kind.model_fields.items():
            assert field.description, name


# --- a setting that nothing reads is a lie ------------------------------------------------------------------


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> dict[str, set[str]]:
    """Names of the attributes that are read of settings, by class name, after their validation."""
    seen: dict[str, set[str]] = {}
    real = BaseModel.__getattribute__ if "__getattribute__" in vars(BaseModel) else object.__getattribute__

    def recording(self: Any, name: str) -> Any:
        seen.setdefault(type(self).__name__, set()).add(name)
        return real(self, name)

    from rewardsds.scenes.gaussians.settings import GaussianSettings
    from rewardsds.scenes.image import LatentImageSettings
    from rewardsds.scenes.mesh.settings import MeshSettings
    from rewardsds.scenes.nerf.settings import NeRFSettings
    from rewardsds.scenes.settings import BackgroundSettings, CameraSettings

    objects = (GaussianSettings, NeRFSettings, MeshSettings, CameraSettings, BackgroundSettings)
    for kind in (Settings, LatentImageSettings, *objects):
        monkeypatch.setattr(kind, "__getattribute__", recording, raising=False)
    return seen


def test_every_setting_is_read_by_something(
    reads: dict[str, set[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fake_task import quiet, redness, tiny_prior
    from oracles import GaussianMixturePrior
    from rewardsds.tasks import parts
    from rewardsds.tasks.run import run

    class Prior(GaussianMixturePrior):
        """The oracle, which has nothing that could be saved."""

        def in_chunks(self, size: object) -> None: ...
        def rest_text_encoders(self) -> None: ...
        def slice_attention(self) -> None: ...
        def tile_autoencoder(self) -> None: ...
        def compile(self) -> None: ...

    monkeypatch.setattr(parts, "load_prior", lambda *given: Prior(tiny_prior(8).mixtures))
    monkeypatch.setattr(parts, "load_reward", lambda *given, **options: redness)
    small = {"prior": "tiny", "prompt": "red", "steps": 3, "threads": 1, "previews_every": 2}
    gaussians = {
        "initial_gaussians": 80,
        "densify_start": 0,
        "prune_start": 0,
        "densify_every": 1,
        "opacity_reset_every": 1,
    }
    made = [
        TextToImageSettings(**small),
        TextToImageSettings(**small, weighting="softmax", reward_steps=2),
        TextToImageSettings(**small, loss="recon", weighting="none"),
        TextToImageSettings(**small, weighting="advantage"),
        TextToImageSettings(**small, loss="bridge", bridge={"source": "", "target": ""}),  # pyright: ignore
        TextToImageSettings(**small, loss="sdi", inversion={"steps": 2}),  # pyright: ignore[reportArgumentType]
        TextToImageSettings(**small, loss="ism"),
        TextToImageSettings(**small, loss="nfsd"),
        TextTo3DSettings(
            **small,
            gaussians=gaussians,  # pyright: ignore[reportArgumentType]
            camera={"resolution": [8]},  # pyright: ignore[reportArgumentType]
            video_size=16,
            video_frames=2,
            view_prompts={  # pyright: ignore[reportArgumentType]
                "use": "on",
                "perp_neg": True,
                "front": "",
                "side": "",
                "back": "",
                "overhead": "",
            },
        ),
        TextTo3DSettings(
            **small,
            gaussians={**gaussians, "strategy": "mcmc"},  # pyright: ignore[reportArgumentType]
            camera={"resolution": [8]},  # pyright: ignore[reportArgumentType]
            video_size=16,
            video_frames=2,
        ),
        TextTo3DSettings(
            **small,
            backbone="nerf",
            nerf={  # pyright: ignore[reportArgumentType]
                "levels": 2,
                "environment": True,
                "orientation_weight": 0.01,
                "occupancy_resolution": 4,
                "occupancy_every": 1,
            },
            camera={"resolution": [8]},  # pyright: ignore[reportArgumentType]
            video_size=16,
            video_frames=2,
        ),
        TextTo3DSettings(
            **small,
            backbone="mesh",
            init=tmp_path / "box.ply",
            extraction={"texture_size": 32},  # pyright: ignore[reportArgumentType]
            mesh={"total_variation_weight": 0.1},  # pyright: ignore[reportArgumentType]
            camera={"resolution": [8]},  # pyright: ignore[reportArgumentType]
            video_size=16,
            video_frames=2,
        ),
    ]
    trimesh.creation.box((0.5, 0.5, 0.5)).export(tmp_path / "box.ply")
    reads.clear()  # the rules across fields have read some already
    for index, settings in enumerate(made):
        run(settings.model_copy(update={"out": tmp_path / str(index)}), console=quiet())
    from rewardsds.scenes.gaussians.settings import GaussianSettings
    from rewardsds.scenes.mesh.settings import MeshSettings
    from rewardsds.scenes.nerf.settings import NeRFSettings
    from rewardsds.scenes.settings import BackgroundSettings, CameraSettings

    chosen = {
        "temperature",
        "guidance_rescale",
        "weighting_k",
        "advantage_factor",
        "bridge",
        "nfsd",
        "inversion",
    }
    kinds = (
        TextToImageSettings,
        TextTo3DSettings,
        GaussianSettings,
        NeRFSettings,
        MeshSettings,
        CameraSettings,
        BackgroundSettings,
        BridgeSettings,
        NFSDSettings,
        InversionSettings,
        GraderSettings,
        ViewPromptSettings,
    )
    for kind in kinds:
        unread = kind.model_fields.keys() - reads[kind.__name__]
        assert not unread - chosen - {"vsd"}, kind.__name__  # vsd needs a UNet: see test_cli
    assert chosen <= reads["TextToImageSettings"]


def test_the_estimator_of_vsd_suits_the_prior():
    def estimator(**values: Any) -> tuple[bool | None, float | None]:
        vsd = TextToImageSettings(prompt="a red cube", loss="vsd", **values).resolved().vsd
        return vsd.convolutions, vsd.learning_rate

    assert estimator() == (True, 3e-3)
    assert estimator(prior="models/sd") == (False, 1e-3)
    assert estimator(vsd={"convolutions": False, "learning_rate": 1e-4}) == (False, 1e-4)
    assert estimator(prior="models/sd", vsd={"convolutions": True}) == (True, 1e-3)


def test_a_function_whose_module_is_like_a_grader_is_none():
    settings = TextToImageSettings(prompt="a", reward="clip + my_grader:score", reward_gradient=1)
    assert settings.reward_gradient == 1
    assert TextToImageSettings(prompt="a", reward="clip + 0.5 * grader:m").reward_gradient == 0
