"""The last stage: measures everything on validation scenes and writes metrics.json and MODEL_CARD.md beside the
weights.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rewardsds.hardware import hardware
from rewardsds.priors.latent import LatentPrior
from rewardsds.priors.load import load_prior
from rewardsds.priors.multiview import enable_multiview_attention
from rewardsds.priors.sampling import sample
from rewardsds.rewards.load import load_reward
from rewardsds.toybox import captions
from rewardsds.toybox.data import ToyboxData
from rewardsds.toybox.judge import Judge, load_judge
from rewardsds.toybox.models import (
    IMAGE_SIZE,
    LATENT_SHAPE,
    TEXT_LENGTH,
    count_flops,
    count_parameters,
    decode_latents,
    encode_images,
    folder_megabytes,
    load_autoencoder,
    load_clip,
    load_text_encoder,
    load_unet,
    normalise,
)
from rewardsds.toybox.specification import COLOURS, KINDS, SceneSpec
from rewardsds.toybox.tokenizer import build_tokenizer
from rewardsds.toybox.train.aesthetic import ladder
from rewardsds.toybox.train.clip import same_toys, tokenise
from rewardsds.toybox.train.common import Draws, say, write_json
from rewardsds.toybox.train.damage import DAMAGES, damage, draw_damage
from rewardsds.toybox.train.image_reward import MARGIN, preferences
from rewardsds.toybox.train.negatives import swap_colours
from rewardsds.toybox.train.pictures import FRONT, all_visible, choose_views, pictures, reconstruct
from rewardsds.toybox.train.settings import STAGES
from rewardsds.toybox.train.view_judge import front_from_back
from rewardsds.toybox.view_judge import load_view_judge

STEPS, GUIDANCE, PROMPTS, SETS = 30, 6.0, 96, 16
EXPORTS = ("prior", "clip", "aesthetic", "image-reward", "judge", "view-judge")


def write_card(
    data: ToyboxData,
    out: Path,
    batch: int = 64,
    seed: int = 0,
    device: str = "cpu",
    log: Callable[[str], None] = say,
    prompts: int = PROMPTS,
    steps: int = STEPS,
) -> dict[str, Any]:
    """Measures the models in out/weights on `data`; returns what it wrote to out/weights/metrics.json.

    batch: size of the retrieval batches. prompts: how many one-toy and how many two-toy prompts are sampled.
    steps: of the sampler.
    """
    weights = out / "weights"
    judge = load_judge(weights / "judge", device)
    metrics: dict[str, Any] = {"validation_scenes": len(data)}
    autoencoder = load_autoencoder(weights).to(device)
    metrics["autoencoder"] = measure_autoencoder(autoencoder, data, device)
    log(f"autoencoder: {metrics['autoencoder']}")
    metrics["clip"] = measure_clip(load_clip(weights).to(device), data, batch, device)
    log(f"clip: {metrics['clip']}")
    for name, measure in (("aesthetic", measure_aesthetic), ("image-reward", measure_image_reward)):
        if (weights / name).is_dir():
            metrics[name] = measure(weights / name, data, autoencoder, batch, device)
            log(f"{name}: {metrics[name]}")
    metrics["judge"] = measure_judge(judge, data, autoencoder, device)
    log(f"judge: {metrics['judge']}")
    if (weights / "view-judge").is_dir() and data.has_yaws:
        metrics["view-judge"] = front_from_back(load_view_judge(weights / "view-judge", device), data, device)
        log(f"view-judge: {metrics['view-judge']}")
    metrics["prior"] = measure_prior(
        load_prior(weights / "prior", device, torch.float32), judge, data, prompts, steps, seed, out / "card"
    )
    log(f"prior: {metrics['prior']}")
    metrics["cost"] = measure_cost(weights)
    metrics["hardware"] = hardware(device)
    stages = {
        stage: json.loads((out / stage / "stage.json").read_text())
        for stage in STAGES
        if (out / stage / "stage.json").exists()
    }
    metrics["stages"] = stages
    write_json(weights / "metrics.json", metrics)
    (weights / "MODEL_CARD.md").write_text(card(metrics))
    return metrics


@torch.no_grad()
def measure_autoencoder(autoencoder: Any, data: ToyboxData, device: str, most: int = 512) -> dict[str, float]:
    """Mean PSNR in dB of reconstructed pictures, also from latents with noise of deviation 0.1; latent
    deviation.
    """
    scenes = np.arange(min(most, len(data)))
    generator = torch.Generator().manual_seed(0)
    clean, noisy, latents = [], [], []
    for part in np.array_split(scenes, max(len(scenes) // 64, 1)):
        images = pictures(data, part, part % data.views.shape[1], device)
        coded = encode_images(autoencoder, images)
        disturbed = coded + 0.1 * torch.randn(coded.shape, generator=generator).to(device)
        clean.append(psnr(decode_latents(autoencoder, coded), images))
        noisy.append(psnr(decode_latents(autoencoder, disturbed), images))
        latents.append(coded)
    return {
        "psnr": float(torch.cat(clean).mean()),
        "psnr_of_noisy_latents": float(torch.cat(noisy).mean()),
        "latent_deviation": float(torch.cat(latents).std()),
    }


def psnr(images: Tensor, truth: Tensor) -> Tensor:
    """(M, 3, H, W) twice, in [0, 1] → (M,) in dB."""
    return -10 * (images - truth).square().mean(dim=(1, 2, 3)).clamp_min(1e-10).log10()


@torch.no_grad()
def measure_clip(clip: Any, data: ToyboxData, batch: int, device: str) -> dict[str, float]:
    """Top-1 retrieval both ways in batches of scenes with different toys, and colour-swap accuracy.

    Front views in which all toys show, canonical captions.
    """
    tokenizer = build_tokenizer()
    clip = clip.eval()

    def embed(scenes: np.ndarray, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        images = normalise(pictures(data, scenes, np.full(len(scenes), FRONT), device))
        seen = clip.visual_projection(clip.vision_model(pixel_values=images).pooler_output)
        read = clip.text_projection(
            clip.text_model(tokenise(tokenizer, list(texts)).to(device)).pooler_output
        )
        return torch.nn.functional.normalize(seen, dim=-1), torch.nn.functional.normalize(read, dim=-1)

    scenes = np.nonzero(all_visible(data, np.arange(len(data)), FRONT))[0]
    size = min(batch, len(scenes))
    found = []
    for group in _distinct(data, scenes, size):
        image, text = embed(group, [captions.describe(data.scenes[scene]["spec"]) for scene in group])
        scores, right = image @ text.T, torch.arange(len(group), device=device)
        found.append([float((scores.argmax(axis) == right).float().mean()) for axis in (1, 0)])
    swapped = [(scene, swap_colours(data.scenes[scene]["spec"])) for scene in scenes]
    swapped = [(scene, spec) for scene, spec in swapped if spec is not None]
    wins: list[Tensor] = []
    for start in range(0, len(swapped), 128):
        some = swapped[start : start + 128]
        group = np.array([scene for scene, _ in some])
        image, true = embed(group, [captions.describe(data.scenes[scene]["spec"]) for scene in group])
        _, wrong = embed(group, [captions.describe(spec) for _, spec in some])
        wins.append(((image * true).sum(-1) > (image * wrong).sum(-1)).float())
    forwards, backwards = torch.tensor(found).mean(0).tolist() if found else (float("nan"), float("nan"))
    return {
        "retrieval_batch": size,
        "retrieval_batches": len(found),
        "image_to_text_top1": forwards,
        "text_to_image_top1": backwards,
        "colour_swap_accuracy": float(torch.cat(wins).mean()) if wins else float("nan"),
        "colour_swap_scenes": len(swapped),
    }


@torch.no_grad()
def measure_aesthetic(
    folder: Path, data: ToyboxData, autoencoder: Any, batch: int, device: str, batches: int = 8
) -> dict[str, float]:
    """Share of pairs in which the better picture scores higher: true above damaged, by damage, and less damaged
    above more damaged. Damages are drawn as in training, half of the pictures come through the autoencoder.
    """
    reward = load_reward(folder, device, torch.float32)
    right: dict[str, list[Tensor]] = {"true_above_damaged": [], "milder_above_stronger": []}
    for index in range(batches):
        draws = Draws.of(99, index, device)
        scenes = draws.numpy.integers(0, len(data), batch)
        images = pictures(data, scenes, choose_views(data, scenes, draws.numpy), device)
        images = reconstruct(autoencoder, images, draws, 0.5)
        clean, milder, stronger = (
            reward(images[None, :, None], [""] * batch)[0].cpu() for images in ladder(images, draws)[0]
        )
        right["true_above_damaged"].append(clean > stronger)
        right["milder_above_stronger"].append(milder > stronger)
        severity, _ = draw_damage(batch, draws)
        for kind, name in enumerate(DAMAGES):
            worse = damage(images, severity, torch.full((batch,), kind, device=device), draws)
            right.setdefault(f"true_above_{name}", []).append(
                clean > reward(worse[None, :, None], [""] * batch)[0].cpu()
            )
    return {"pairs": batches * batch} | {
        name: float(torch.cat(found).float().mean()) for name, found in right.items()
    }


@torch.no_grad()
def measure_image_reward(
    folder: Path, data: ToyboxData, autoencoder: Any, batch: int, device: str, batches: int = 8
) -> dict[str, float]:
    """Share of pairs in the right order, of preferences drawn as in training, from scenes that it never saw.

    pairs: pictures of one caption whose utilities differ enough. quality: true above damaged. alignment: the
    caption's picture above another scene's. colour_swap: a picture with its caption above the same picture with
    its colours exchanged in the caption.
    """
    reward = load_reward(folder, device, torch.float32)
    found: dict[str, list[Tensor]] = {"pairs": [], "quality": [], "alignment": [], "colour_swap": []}
    for index in range(batches):
        draws = Draws.of(98, index, device)
        group = preferences(data, batch, draws, autoencoder)
        texts = [captions.describe(spec, draws.numpy) for spec in group.described[0]]
        four = torch.stack([*group.images, *group.images.roll(-1, 1)])
        scores = reward(four[:, :, None], texts).cpu()
        utilities = group.utilities.cpu()
        better = utilities[:, None] - utilities[None] > MARGIN
        found["pairs"].append((scores[:, None] > scores[None])[better])
        found["quality"].append(scores[0] > scores[1])
        found["alignment"].append((scores[0] > scores[2])[better[0, 2]])
        swapped = [swap_colours(spec) for spec in group.described[0]]
        chosen = [row for row, spec in enumerate(swapped) if spec is not None]
        wrong = [captions.describe(spec) for spec in swapped if spec is not None]
        right = [captions.describe(group.described[0][row]) for row in chosen]
        shown = group.images[:1, chosen][:, :, None]
        found["colour_swap"].append((reward(shown, right) > reward(shown, wrong))[0].cpu())
    measured: dict[str, float] = {}
    for name, parts in found.items():
        measured[f"{name}_accuracy"] = float(torch.cat(parts).float().mean())
        measured[f"{name}_count"] = len(torch.cat(parts))
    return measured


def _distinct(data: ToyboxData, scenes: np.ndarray, size: int) -> list[np.ndarray]:
    """Batches of `size` scenes no two of which show the same toys."""
    batches: list[np.ndarray] = []
    group: list[int] = []
    for scene in scenes:
        if not group or not bool(same_toys(data, [*group, scene])[-1, :-1].any()):
            group.append(int(scene))
        if len(group) == size:
            batches.append(np.array(group))
            group = []
    return batches or ([np.array(group)] if group else [])


@torch.no_grad()
def measure_judge(judge: Judge, data: ToyboxData, autoencoder: Any, device: str) -> dict[str, float]:
    """How the judge does on true front views in which all toys show.

    single: the most likely (kind, colour) is the toy's. two: all toys of two-toy scenes are found. The same
    for reconstructed pictures. swapped: share of two-toy scenes in which a colour-swapped scene is found as
    well.
    """
    scenes = np.nonzero(all_visible(data, np.arange(len(data)), FRONT))[0]
    singles = np.array([scene for scene in scenes if len(data.scenes[scene]["toys"]) == 1])
    twos = np.array([scene for scene in scenes if len(data.scenes[scene]["toys"]) == 2])
    found: dict[str, float] = {"single_scenes": len(singles), "two_scenes": len(twos)}

    def look(group: np.ndarray, reconstructed: bool) -> Tensor:
        images = pictures(data, group, np.full(len(group), FRONT), device)
        if not reconstructed:
            return images
        return torch.cat(
            [decode_latents(autoencoder, encode_images(autoencoder, part)) for part in images.split(64)]
        )

    for name, reconstructed in (("", False), ("_reconstructed", True)):
        if len(singles):
            pairs = judge.probabilities(look(singles, reconstructed)).pairs.flatten(1).argmax(1)
            truth = [_pair(*data.scenes[scene]["toys"][0]) for scene in singles]
            found[f"single_accuracy{name}"] = float((pairs == torch.tensor(truth)).float().mean())
        if len(twos):
            pairs = judge.probabilities(look(twos, reconstructed)).pairs.flatten(1)
            both = [
                min(float(row[_pair(*toy)]) for toy in data.scenes[scene]["toys"]) > 0.5
                for scene, row in zip(twos, pairs)
            ]
            found[f"two_accuracy{name}"] = float(np.mean(both))
    swapped = [(scene, swap_colours(data.scenes[scene]["spec"])) for scene in twos]
    swapped = [(scene, spec) for scene, spec in swapped if spec is not None]
    if swapped:
        images = look(np.array([scene for scene, _ in swapped]), False)
        found["swapped_found"] = float(judge.all_right(images, [spec for _, spec in swapped]).mean())
    return found


def _pair(kind: str, colour: str) -> int:
    return KINDS.index(kind) * len(COLOURS) + COLOURS.index(colour)


def measure_prior(
    prior: LatentPrior, judge: Judge, data: ToyboxData, prompts: int, steps: int, seed: int, folder: Path
) -> dict[str, Any]:
    """Share of sampled pictures in which the judge finds all that was asked for, by number of toys and views.

    Prompts are canonical captions of validation scenes whose toys the prior knows and whose colours are
    named. Contact sheets of the samples go to `folder`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, Any] = {"sampler": "DDIM", "steps": steps, "guidance_scale": GUIDANCE}
    kinds = captions.known_kinds(prior)
    found["kinds"] = list(kinds)

    def draw(texts: Sequence[str], poses: Tensor | None = None) -> Tensor:
        """Pictures (M, V, 3, 64, 64) on the CPU, 16 prompts at a time."""
        parts = []
        for start in range(0, len(texts), 16):
            part = slice(start, start + 16)
            cameras = None if poses is None else poses[part]
            latents = sample(prior, texts[part], generator, cameras, steps, GUIDANCE)
            parts.append(prior.decode(latents).cpu())
        return torch.cat(parts)

    for name, toys in (("one", 1), ("two", 2)):
        specs = _asked(data, toys, prompts, kinds)
        if not specs:
            continue
        texts = [captions.describe(spec) for _, spec in specs]
        images = draw(texts)[:, 0]
        only = [spec for _, spec in specs]
        found[f"{name}_prompts"] = len(specs)
        found[f"{name}_right"] = float(judge.all_right(images, only).mean())
        found[f"{name}_found"] = float(judge.finds(images, only).mean())
        save_sheet(images[:48], folder / f"{name}.png", columns=8)
        (folder / f"{name}.txt").write_text("\n".join(texts[:48]) + "\n")
        few = specs[: min(SETS, len(specs))]
        poses = torch.from_numpy(np.array(data.poses[[scene for scene, _ in few], :4]))
        sets = draw(texts[: len(few)], poses)
        found[f"{name}_four_views_prompts"] = len(few)
        found[f"{name}_four_views_right"] = float(judge.all_right(sets, only[: len(few)]).mean())
        save_sheet(sets.flatten(0, 1), folder / f"{name}_four_views.png", columns=8)
    return found


def _asked(data: ToyboxData, toys: int, most: int, kinds: Sequence[str]) -> list[tuple[int, SceneSpec]]:
    specs: list[tuple[int, SceneSpec]] = []
    for scene, entry in enumerate(data.scenes):
        spec: SceneSpec = entry["spec"]
        known = all(group.colour and group.kind in kinds for group in spec.groups)
        if len(spec.groups) == toys == spec.toys and known:
            specs.append((scene, spec))
    return specs[:most]


def save_sheet(images: Tensor, path: Path, columns: int) -> None:
    """(M, 3, H, W) in [0, 1] → one PNG, row by row."""
    from PIL import Image

    count, _, height, width = images.shape
    rows = -(-count // columns)
    sheet = np.full((rows * height, columns * width, 3), 255, np.uint8)
    for index, image in enumerate((images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()):
        top, left = index // columns * height, index % columns * width
        sheet[top : top + height, left : left + width] = image
    Image.fromarray(sheet).resize((sheet.shape[1] * 2, sheet.shape[0] * 2), Image.Resampling.NEAREST).save(
        path
    )


def measure_cost(weights: Path) -> dict[str, Any]:
    """GFLOP a view (two FLOP per multiply-add), millions of parameters, and MB on disk."""
    autoencoder, clip, unet = load_autoencoder(weights), load_clip(weights), load_unet(weights)
    text_encoder, judge = load_text_encoder(weights), load_judge(weights / "judge")
    enable_multiview_attention(unet)
    image = torch.zeros(1, 3, IMAGE_SIZE, IMAGE_SIZE)
    tokens = torch.full((1, TEXT_LENGTH), clip.config.text_config.eos_token_id)
    states = torch.zeros(4, TEXT_LENGTH, unet.config.cross_attention_dim)

    def four_views() -> object:
        return unet(
            torch.zeros(4, *LATENT_SHAPE),
            torch.zeros(4, dtype=torch.long),
            states,
            class_labels=torch.zeros(4, 16),
            cross_attention_kwargs={"views": 4},
        )

    return {
        "gflop": {
            "encode": count_flops(lambda: autoencoder.encode(image)) / 1e9,
            "decode": count_flops(lambda: autoencoder.decode(torch.zeros(1, *LATENT_SHAPE))) / 1e9,
            "unet_of_four_views": count_flops(four_views) / 4e9,
            "clip_image": count_flops(lambda: clip.vision_model(pixel_values=image)) / 1e9,
            "clip_text": count_flops(lambda: clip.text_model(tokens)) / 1e9,
            "judge": count_flops(lambda: judge.network(image)) / 1e9,
        },
        "parameters_millions": {
            name: count_parameters(model) / 1e6
            for name, model in (
                ("autoencoder", autoencoder),
                ("unet", unet),
                ("text_encoder", text_encoder),
                ("clip", clip),
                ("judge", judge.network),
            )
        },
        "megabytes": {
            name: folder_megabytes(weights / name) for name in EXPORTS if (weights / name).is_dir()
        },
    }


# ---------------------------------------------------------------------------------------------------- text


def card(metrics: dict[str, Any]) -> str:
    """The model card; every figure comes out of `metrics`."""
    cost, clip, judge = metrics["cost"], metrics["clip"], metrics["judge"]
    auto, prior, stages = metrics["autoencoder"], metrics["prior"], metrics["stages"]
    rows = [
        (
            "reconstruction",
            f"{auto['psnr']:.1f} dB PSNR ({auto['psnr_of_noisy_latents']:.1f} dB with noise 0.1 on latents)",
        ),
        (
            "image → text, top-1",
            f"{_percent(clip['image_to_text_top1'])} in batches of {clip['retrieval_batch']}",
        ),
        (
            "text → image, top-1",
            f"{_percent(clip['text_to_image_top1'])} in batches of {clip['retrieval_batch']}",
        ),
        (
            "colour-swap accuracy",
            f"{_percent(clip['colour_swap_accuracy'])} of {clip['colour_swap_scenes']} scenes: "
            "the true caption scores above the one with two toys' colours exchanged",
        ),
    ]
    if "aesthetic" in metrics:
        found = metrics["aesthetic"]
        rows.append(
            (
                "aesthetic head, true render above a damaged one",
                f"{_percent(found['true_above_damaged'])} of {found['pairs']} pairs ("
                + ", ".join(f"{name} {_percent(found[f'true_above_{name}'])}" for name in DAMAGES)
                + f"); milder damage above stronger {_percent(found['milder_above_stronger'])}",
            )
        )
    if "image-reward" in metrics:
        found = metrics["image-reward"]
        rows.append(
            (
                "ImageReward, pairs of pictures in the right order",
                f"{_percent(found['pairs_accuracy'])} of {found['pairs_count']} (true above damaged "
                f"{_percent(found['quality_accuracy'])}, the caption's own scene above another "
                f"{_percent(found['alignment_accuracy'])}); colour swap {_percent(found['colour_swap_accuracy'])}",
            )
        )
    for name, text in (("one", "one toy"), ("two", "two toys")):
        if f"{name}_right" in prior:
            rows.append(
                (
                    f"sampled pictures right, {text}",
                    f"{_percent(prior[f'{name}_right'])} of {prior[f'{name}_prompts']} "
                    f"({_percent(prior[f'{name}_found'])} of the asked toys)",
                )
            )
            rows.append(
                (
                    f"sampled four-view sets right, {text}",
                    f"{_percent(prior[f'{name}_four_views_right'])} of {prior[f'{name}_four_views_prompts']}",
                )
            )
    for key, text in (
        ("single_accuracy", "judge, single toys: most likely kind and colour both right"),
        ("single_accuracy_reconstructed", "the same on reconstructed pictures"),
        ("two_accuracy", "judge, two toys: both found"),
        ("two_accuracy_reconstructed", "the same on reconstructed pictures"),
        ("swapped_found", "judge, two toys: exchanged colours found too (an error)"),
    ):
        if key in judge:
            rows.append((text, _percent(judge[key])))
    if "view-judge" in metrics:
        told = (f"{kind} {_percent(found['told'])}" for kind, found in metrics["view-judge"].items())
        rows.append(("judge of views, front told from back", ", ".join(told)))
    flops = cost["gflop"]
    lines = [
        "# The toybox models",
        "",
        "Small networks for the procedural toybox world, in the file formats of the real ones. They know",
        "the toys, colours, relations and grounds below, at 64 × 64 pixels, and nothing else.",
        "",
        f"- Toys that they know ({len(prior['kinds'])} of the world's {len(KINDS)}): {', '.join(prior['kinds'])}.",
        f"- Colours: {', '.join(COLOURS)}.",
        "- Licence: Apache-2.0, as the package. All training data are rendered by the package itself.",
        "",
        "## How they score",
        "",
        f"On {metrics['validation_scenes']} validation scenes, with combinations of toys that training never "
        f"saw. Pictures are sampled with {prior['steps']} {prior['sampler']} steps at guidance scale "
        f"{prior['guidance_scale']:g} and judged by the judge.",
        "",
        "| | |",
        "|---|---|",
        *[f"| {name} | {value} |" for name, value in rows],
        "",
        "## What they cost",
        "",
        "| | million parameters | GFLOP a picture |",
        "|---|---|---|",
    ]
    parts = {
        "autoencoder": f"{flops['encode']:.2f} to encode, {flops['decode']:.2f} to decode",
        "unet": f"{flops['unet_of_four_views']:.2f} (four views together)",
        "clip": f"{flops['clip_image']:.2f}, a caption {flops['clip_text']:.2f}",
        "judge": f"{flops['judge']:.2f}",
    }
    lines += [
        f"| {name} | {cost['parameters_millions'][name]:.2f} | {value} |" for name, value in parts.items()
    ]
    sizes = cost["megabytes"]
    lines += [
        "",
        f"{sum(sizes.values()):.1f} MB in all (half-precision safetensors).",
        "",
        "## How they were trained",
        "",
    ]
    lines += [
        "| stage | scenes | steps | scenes a step | rate | minutes | on |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, stage in stages.items():
        own = stage["settings"]
        lines.append(
            f"| {name} | {stage['scenes']} | {stage['steps']} | {own['batch']} | {own['learning_rate']:g} "
            f"| {stage['minutes']:.1f} | {_machine(stage['hardware'])} |"
        )
    lines += ["", *_LOSSES, "", "## Limits", "", *_LIMITS, ""]
    return "\n".join(lines)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _machine(found: dict[str, Any]) -> str:
    return found.get("gpu") or f"{found['processor']}, {found['threads']} threads"


_LOSSES = (
    "AdamW, linear warm-up and cosine decay; what is shipped is an exponential average of the weights.",
    "",
    "- **Autoencoder**: absolute, squared and gradient error; latents held near unit scale; noise on",
    "  latents before decoding.",
    "- **CLIP**: symmetric InfoNCE (arXiv 2103.00020) with two wrong captions of each picture's own",
    "  (colours exchanged between toys, a wrong colour, a wrong kind, left for right). Pictures and captions",
    "  also have to say which coloured toys they hold, by one set of directions in the shared space; this",
    "  and other heads that help in training are thrown away. A quarter of the pictures come through the",
    "  autoencoder.",
    "- **Prior**: error of the predicted noise, min-SNR weighted (arXiv 2303.09556), at timesteps spread evenly",
    "  over a batch (arXiv 2107.00630); three quarters of the",
    "  batches are four-view sets with multi-view attention and camera embedding (arXiv 2308.16512), a",
    "  quarter single front views whose camera embedding is zero; a tenth of the captions is empty. The",
    "  text tower is the CLIP's, frozen.",
    "- **Aesthetic head**: linear on CLIP's features; a true picture above a damaged one above a more damaged",
    "  one (blur, noise, oversaturation, floaters), and a little squared error to ratings from 10 to 0.",
    "- **ImageReward**: BLIP's towers, the picture's started from CLIP's; Bradley-Terry over pictures of a",
    "  caption, ranked by the share of asked toys that they show less the damage done to them.",
    "- **Judge**: binary cross-entropy of every kind and every (kind, colour), on scenes and from a seed",
    "  of its own.",
    "- **Judge of views**: cross-entropy of the side (front, left, back, right) from which the largest toy is seen,",
    "  of toys that have a front; on the judge's scenes, from another seed.",
)

_LIMITS = (
    "- Words outside the toybox grammar mean nothing to these models; the package names them to the user.",
    "- The prior binds colours to the wrong toy now and then, as large models do. Reward-weighted sampling",
    "  is for that, and the toybox is a bench for it: the prior is not trained until this stops.",
    "- The judge looks for kinds and colours only: counts, relations, sides and grounds go unjudged. It",
    "  must never be used as a reward: whatever is optimised against it can no longer be measured by it.",
    "- The aesthetic head does not read the caption, and what it was not shown it cannot rate. ImageReward tells",
    "  damaged and foreign pictures apart; whether it also reads which toy has which colour, see colour swap.",
    "- Cameras look at the origin from 0° to 30° elevation; single views come from the front, within 50°.",
)
