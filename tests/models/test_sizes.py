"""Priors in their true sizes, against their published numbers of parameters; and plans by hand."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from rewardsds.catalogue import known
from rewardsds.models import doctor, sizes

GIB = 2**30


def millions(*modules: torch.nn.Module) -> float:
    return sum(value.numel() for module in modules for value in module.parameters()) / 1e6


@pytest.mark.parametrize(
    "name, network, texts",
    [
        ("sd-2.1-base", 865.9, [340.4]),
        ("sdxl", 2567.5, [123.1, 693.0]),
        ("sd-3-medium", 2028.3, [123.1, 693.0, 4762.3]),
        ("flux-dev", 11901.4, [123.1, 4762.3]),
    ],
)
def test_the_published_numbers_of_parameters(name: str, network: float, texts: list[float]):
    prior = sizes.make(name, "meta", torch.bfloat16)
    assert millions(prior.network) == pytest.approx(network, abs=0.05)
    assert [millions(one) for one in prior.text_encoders] == pytest.approx(texts, abs=0.05)
    assert millions(prior.network, prior.vae, *prior.text_encoders) == pytest.approx(
        known(name).parameters, rel=0.002
    )
    assert {value.dtype for value in prior.network.parameters()} == {torch.bfloat16}


def test_mvdream_sees_four_views_with_cameras():
    prior = sizes.make("mvdream", "meta", torch.float16)
    assert (prior.views, prior.image_size, prior.sees_cameras) == (4, 256, True)


def test_the_recorded_memory_is_what_is_found_now():
    recorded = doctor.sizes()
    assert set(recorded) == set(sizes.PRIORS)
    prior = sizes.make("sd-2.1-base", sizes.META, torch.float16)
    own = recorded["sd-2.1-base"]["fp16"]
    assert own["weights"] == sizes.weights_bytes(prior.network, prior.vae)
    assert own["step"] == pytest.approx(sizes.step_bytes("sd-2.1-base", 1, dtype=torch.float16), rel=0.05)


def test_sdxls_autoencoder_is_recorded_in_the_precision_that_it_runs_in():
    """In fp16 it overflows, so that it is in fp32 there too, and a step takes as much in either."""
    own = doctor.sizes()["sdxl"]
    assert own["fp16"]["step"] == pytest.approx(own["fp32"]["step"], rel=0.01)
    found = sizes.step_bytes("sdxl", 1, dtype=torch.float16)
    assert own["fp16"]["step"] == pytest.approx(found, rel=0.05)
    assert sizes.step_bytes("sdxl", 1, dtype=torch.bfloat16) == pytest.approx(found / 2, rel=0.05)


def test_a_fifth_of_t5_stays_in_float32():
    """Of its 24 layers the last matrices, of 4096 × 10240; as transformers loads it in float16."""
    half, whole = (sizes.make("flux-dev", "meta", dtype) for dtype in (torch.float16, torch.bfloat16))
    more = sizes.weights_bytes(half.text_encoders[1]) - sizes.weights_bytes(whole.text_encoders[1])
    assert more == 2 * 24 * 4096 * 10240
    assert doctor.sizes()["flux-dev"]["fp16"]["largest_text_encoder"] == sizes.weights_bytes(
        half.text_encoders[1]
    )


@pytest.mark.slow
def test_a_chunk_bounds_what_candidates_take():
    assert sizes.step_bytes("sd-2.1-base", 6, chunk=1) < 0.75 * sizes.step_bytes("sd-2.1-base", 6)


@pytest.fixture
def one_prior(monkeypatch: pytest.MonkeyPatch) -> None:
    size = {
        "weights": 4 * GIB,
        "text_encoders": 5 * GIB,
        "largest_text_encoder": 3 * GIB,
        "step": GIB,
        "candidate": GIB // 2,
    }
    twice = {key: 2 * value for key, value in size.items()}
    monkeypatch.setattr(doctor, "sizes", lambda: {"x": {"fp16": size, "bf16": size, "fp32": twice}})
    monkeypatch.setattr(doctor, "SLACK", 1.0)


@pytest.mark.parametrize(
    "gib, fits, needed",
    [
        (15.0, "as it is", 14.0),
        (14.0, "as it is", 14.0),
        (13.0, "with --offload", 9.0),
        (8.0, "with --offload, in chunks, which is slower", 7.0),
    ],
)
@pytest.mark.usefixtures("one_prior")
def test_the_mildest_options_that_fit(gib: float, fits: str, needed: float):
    """4 GiB of weights, text encoders of 2 and 3, 10 candidates at ½; the reward is added.

    With --offload the larger encoder comes beside the weights before the step does: chunks need no less than that.
    """
    reward = known(doctor.REWARD).memory()
    found = doctor.plan("x", (gib + reward) * GIB, candidates=10)
    assert (found.fits, found.precision) == (fits, "fp16")
    assert found.options == (("--offload",) if "offload" in fits else ())
    assert found.needed / GIB == pytest.approx(needed + reward)


@pytest.mark.usefixtures("one_prior")
def test_what_fits_in_no_other_way_may_without_a_reward():
    """Which is then in nobody's memory."""
    found = doctor.plan("x", 7 * GIB, candidates=10)
    assert found.fits == "with --offload --weighting none: without a reward"
    assert found.options == ("--offload", "--weighting", "none")
    assert found.needed / GIB == pytest.approx(7.0)
    found = doctor.plan("x", 6.9 * GIB, candidates=10)
    assert (found.fits, found.options) == (None, ())
    assert found.needed / GIB == pytest.approx(7.0)


@pytest.mark.parametrize(
    "gib, fits, needed, bytes_per_value",
    [
        (28.0, "as it is", 28.0, 4),
        (27.0, "with --chunk 1", 20.0, 4),
        (18.0, "with --precision bf16", 14.0, 2),
        (13.0, "with --precision bf16 --chunk 1", 10.0, 2),
    ],
)
@pytest.mark.usefixtures("one_prior")
def test_a_cpu_has_nowhere_to_put_anything(gib: float, fits: str, needed: float, bytes_per_value: int):
    """Twice of the above in fp32; it makes no chunks of its own accord."""
    reward = known(doctor.REWARD).memory(bytes_per_value)
    found = doctor.plan("x", (gib + reward) * GIB, candidates=10, gpu=False, bf16=True)
    assert (found.fits, found.precision) == (fits, "fp32" if bytes_per_value == 4 else "bf16")
    assert found.options == tuple(fits.removeprefix("with ").split() if "--" in fits else ())
    assert found.needed / GIB == pytest.approx(needed + reward)
    assert doctor.plan("x", GIB, candidates=10, gpu=False, bf16=True).fits is None


@pytest.mark.parametrize(
    "name, candidates, fp16, bf16",
    [
        ("sdxl", 1, None, "with --precision bf16"),
        ("sdxl", 10, None, "with --precision bf16 --offload, in chunks, which is slower"),
        ("sd-3-medium", 10, None, "with --precision bf16 --offload, in chunks, which is slower"),
        ("mvdream", 10, "as it is", "as it is"),
        (
            "mvdream",
            40,
            "with --offload, in chunks, which is slower",
            "with --offload, in chunks, which is slower",
        ),
        ("flux-dev", 10, None, None),
    ],
)
def test_what_a_gpu_of_16_gigabytes_holds(name: str, candidates: int, fp16: str | None, bf16: str | None):
    """In fp16 Stable Diffusion XL's autoencoder, and a fifth of Stable Diffusion 3's T5, are in fp32."""
    for known_bf16, fits in ((False, fp16), (True, bf16)):
        found = doctor.plan(name, 15.4 * GIB, candidates, bf16=known_bf16)
        assert (found.fits if found.fits is None or "--weighting" not in found.fits else None) == fits
        assert found.precision == ("bf16" if found.fits and "bf16" in found.fits else found.precision)
        assert found.fits is None or found.needed <= 15.4 * GIB


@pytest.mark.parametrize("candidates", [1, 4, 10, 40])
@pytest.mark.parametrize("gib", [4, 8, 11, 15.4, 23, 39, 79])
@pytest.mark.parametrize("gpu", [True, False])
def test_options_of_plans_are_the_commands_own(gpu: bool, gib: float, candidates: int):
    """And no plan without them would fit."""
    from rewardsds.arguments import parse
    from rewardsds.cli import MakeImage

    for name in sizes.PRIORS:
        found = doctor.plan(name, gib * GIB, candidates, gpu, bf16=True)
        made = parse(MakeImage, ["a car", *found.options], "rewardsds image").settings
        assert found.precision == (
            made.precision if made.precision != "auto" else "fp16" if gpu else "fp32"
        ) or (found.fits is None)
        assert (made.weighting == "none") == ("--weighting" in found.options)
        assert (made.chunk == 1) == ("--chunk" in found.options)
        if found.options:
            more = doctor.plan(name, 1000 * GIB, candidates, gpu, bf16=True)
            assert (more.fits, more.needed > gib * GIB) == ("as it is", True)


def test_what_is_recommended_on_a_gpu_is_scored_by_a_real_reward(monkeypatch: pytest.MonkeyPatch):
    """The toybox's rewards have bare names; the paper's settings would take one of them for Stable Diffusion."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *index: (80 * GIB, 80 * GIB))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(
        doctor, "hardware", lambda device: {"processor": "x", "cores": 2, "memory_gigabytes": 8}
    )
    lines = doctor.doctor()
    commands = [line for line in lines if "--preset paper" in line]
    assert [line.split()[0] for line in commands] == ["3d", "image"]
    assert "--prior models/mvdream --reward models/image-reward" in commands[0]
    assert commands[1].endswith(f"--prior {known('sd-2.1-base').repos[0]} --reward models/image-reward")
    said = "\n".join(lines)
    for name in ("mvdream", "image-reward"):
        file = f"models/files/{known(name).files[0]}"
        assert f"rewardsds models fetch {name} --folder models/files" in said
        assert f"rewardsds models convert {name} {file} models/{name}" in said


@pytest.mark.parametrize("problem", [None, "gsplat finds no CUDA toolkit (nvcc) to build its kernels with"])
def test_doctor_asks_every_gpu_and_whether_gsplat_works(monkeypatch: pytest.MonkeyPatch, problem: str | None):
    """Before Ampere bf16 is emulated, which torch counts as supported."""
    from rewardsds.scenes.gaussians import rasterization

    cards = [
        SimpleNamespace(name="Old", major=7, minor=5, total_memory=15 * GIB),
        SimpleNamespace(name="New", major=9, minor=0, total_memory=80 * GIB),
    ]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *given: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *index: (10 * GIB, 15 * GIB))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: cards[index])
    monkeypatch.setattr(
        doctor, "hardware", lambda device: {"processor": "x", "cores": 2, "memory_gigabytes": 8}
    )
    monkeypatch.setattr(doctor, "_version", lambda name: "1.5.3" if name == "gsplat" else None)
    monkeypatch.setattr(rasterization, "gsplat_problem", lambda: problem)
    rows = {line[2:16].strip(): line[17:] for line in doctor.doctor()}
    assert "capability 7.5, fp16, CUDA" in rows["GPU 0"]
    assert "capability 9.0, bf16 and fp16, CUDA" in rows["GPU 1"]
    assert rows["gsplat"] == ("1.5.3" if problem is None else f"1.5.3, which cannot be used: {problem}")
    assert rows["openai"].startswith("not installed (")


def test_doctor_says_what_is_there(capsys: pytest.CaptureFixture[str]):
    from rewardsds.cli import main

    assert main(["doctor", "--candidates", "4"]) == 0
    said = capsys.readouterr().out
    for wanted in (
        "machine",
        "GPU",
        torch.__version__,
        "toybox",
        "what fits",
        "4 candidates",
        "flux-dev",
        "recommended",
    ):
        assert wanted in said
    assert main(["doctor", "--candidates", "0"]) == 2
    assert "expected 1 to 1024" in capsys.readouterr().err
