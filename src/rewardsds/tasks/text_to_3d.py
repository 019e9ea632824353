"""Text to 3D: an object is optimised through a multi-view prior (arXiv 2503.09601, section 4.2)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from rewardsds.priors.base import Prior
from rewardsds.priors.view_dependent import PerpNeg, ViewDependentPrior, ViewWords
from rewardsds.rewards.base import Reward
from rewardsds.rewards.views import OverViews
from rewardsds.runs.loop import Job
from rewardsds.runs.settings import changed
from rewardsds.scenes.export import fitting_distance, turntable_cameras, write_turntable, write_views
from rewardsds.scenes.gaussians.scene import GaussianScene
from rewardsds.scenes.mesh.files import write_glb
from rewardsds.scenes.mesh.scene import MeshScene
from rewardsds.tasks.objects import as_scene, begin_from, make_objects
from rewardsds.tasks.parts import load_parts
from rewardsds.tasks.settings import TextTo3DSettings

STEPS_TO_COME_BACK = 100  # of opacities, after a reset
PREVIEW_SIZE = 128  # pixels of each of a preview's four views


def build(settings: TextTo3DSettings) -> Job:
    """The parts of a run, from resolved settings."""
    parts = load_parts(
        settings, lambda reward: look(reward, settings), lambda prior: told_views(prior, settings)
    )
    seeds = settings.seeds
    objects = make_objects(seen_together(settings, parts.prior))
    for one in objects:
        one.trajectory()  # what is no file of cameras is told before the run begins

    def preview() -> Tensor:
        """Four sides beside each other, particles below each other, (3, B H, 4 W)."""
        with torch.no_grad():
            sides = [one.render_images(turntable_cameras(4), PREVIEW_SIZE)[0] for one in objects]
        return torch.cat([torch.cat(list(views), dim=-1) for views in sides], dim=-2)

    def export(folder: Path) -> Sequence[str]:
        names: list[str] = []
        for seed, one in zip(seeds, objects):
            ending = "" if len(seeds) == 1 else f"_{seed}"
            video, views, ply = f"turntable{ending}.mp4", f"views{ending}.png", f"object{ending}.ply"
            size, distance = settings.video_size, fitting_distance(one)
            write_turntable(
                one.render_images, folder / video, settings.video_frames, size, relative_distance=distance
            )
            write_views(one.render_images, folder / views, size=size, relative_distance=distance)
            names += [video, views]
            if isinstance(one, GaussianScene):
                one.export_ply(folder / ply)
                names.append(ply)
            elif isinstance(one, MeshScene):
                write_glb(one.textured_mesh(), folder / f"object{ending}.glb")
                names.append(f"object{ending}.glb")
        return names

    return Job(
        scene=as_scene(objects),
        guidance=parts.guidance,
        prompts=parts.texts * len(seeds),
        seeds=seeds,
        preview=preview,
        export=export,
        begin=lambda: begin_from(settings, objects),
        notes=[*parts.notes, *view_notes(parts.prior, settings), *schedule_notes(settings)],
    )


def seen_together(settings: TextTo3DSettings, prior: Prior) -> TextTo3DSettings:
    """With the number of views that the prior looks at together, where none is given."""
    if settings.camera.together is not None:
        return settings
    camera = settings.camera.model_copy(update={"together": prior.views})
    return settings.model_copy(update={"camera": camera})


def look(reward: Reward, settings: TextTo3DSettings) -> Reward:
    """The reward as it is asked about an object: about its views together, or about each by itself."""
    how, views = settings.reward_over_views, settings.rewarded_views
    if how == "together" and views is None:
        return reward
    return OverViews(reward, how, views)


def schedule_notes(settings: TextTo3DSettings) -> list[str]:
    """Milestones that do nothing in this run, and opacities that are reset too near its end."""
    camera, notes = settings.camera, []
    beyond = [step for step in camera.milestones if step >= settings.steps]
    if beyond:
        notes.append(
            f"camera.milestones {' '.join(map(str, beyond))} are never reached: the run has {settings.steps} steps"
        )
    elif camera.milestones and len(camera.groups) == len(camera.resolution) == 1:
        notes.append(
            f"camera.milestones {' '.join(map(str, camera.milestones))} change nothing, as camera.groups and "
            f"camera.resolution have one value each: give {len(camera.milestones) + 1} of either"
        )
    resets = settings.gaussians.opacity_resets(settings.steps) if settings.backbone == "gaussians" else []
    if resets and settings.steps - resets[-1] < STEPS_TO_COME_BACK:
        notes.append(
            f"gaussians.opacity_reset_every {settings.gaussians.opacity_reset_every} resets opacities after step "
            f"{resets[-1]} of {settings.steps}, and the result will be faint: give a lower --gaussians.densify-stop"
        )
    return notes


def view_notes(prior: Prior, settings: TextTo3DSettings) -> list[str]:
    """What the prior does not know of the words that tell it the view, and what is set of them that changes nothing."""
    given = settings.view_prompts
    if not isinstance(prior, ViewDependentPrior):
        off = given.use == "off"
        why = (
            "--view-prompts.use is off" if off else "the prior sees cameras: --view-prompts.use on adds words"
        )
        return [
            f"--view-prompts.{name.replace('_', '-')} changes nothing, as {why}"
            for name in changed(given)
            if name != "use"
        ]
    notes = []
    if prior.perp_neg is None and "perp_neg_weight" in changed(given):
        notes.append("--view-prompts.perp-neg-weight changes nothing without --view-prompts.perp-neg")
    words = prior.words
    unknown = prior.unknown_words(" ".join((words.front, words.side, words.back, words.overhead)))
    if unknown:
        notes.append(f"the prior does not know these words about views: {', '.join(unknown)}")
    return notes


def told_views(prior: Prior, settings: TextTo3DSettings) -> Prior:
    """The prior, told in words from where each view is seen if it knows no cameras."""
    words = settings.view_prompts
    if words.use == "off" or (words.use == "auto" and prior.views > 1):
        return prior
    return ViewDependentPrior(
        prior,
        ViewWords(
            words.front, words.side, words.back, words.overhead, words.front_angle, words.overhead_elevation
        ),
        PerpNeg(words.perp_neg_weight) if words.perp_neg else None,
    )
