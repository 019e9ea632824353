"""Priors in their true sizes, against their published numbers of parameters; and plans by hand."""

from __future__ import annotations

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
    prior = sizes.make("sd-2.1-base", sizes.META, torch.bfloat16)
    assert recorded["sd-2.1-base"]["weights"] == sizes.weights_bytes(prior, texts=False)
    found = sizes.step_bytes("sd-2.1-base", 1)
    assert recorded["sd-2.1-base"]["step"] == pytest.approx(found, rel=0.05)


@pytest.mark.slow
def test_a_chunk_bounds_what_candidates_take():
    assert sizes.step_bytes("sd-2.1-base", 6, chunk=1) < 0.75 * sizes.step_bytes("sd-2.1-base", 6)


@pytest.fixture
def one_prior(monkeypatch: pytest.MonkeyPatch) -> None:
    size = {"weights": 4 * GIB, "text_encoders": 2 * GIB, "step": GIB, "candidate": GIB // 2}
    monkeypatch.setattr(doctor, "sizes", lambda: {"x": size})
    monkeypatch.setattr(doctor, "SLACK", 1.0)


@pytest.mark.parametrize(
    "gib, fits, needed",
    [
        (12.0, "as it is", 11.0),
        (11.0, "as it is", 11.0),
        (10.0, "with --offload", 9.0),
        (7.0, "with --offload, in chunks, which is slower", 5.0),
        (4.5, None, 5.0),
    ],
)
@pytest.mark.usefixtures("one_prior")
def test_the_mildest_options_that_fit(gib: float, fits: str | None, needed: float):
    """4 GiB of weights, 2 of text encoders, 10 candidates at ½; the reward is added."""
    reward = known(doctor.REWARD).memory()
    found = doctor.plan("x", (gib + reward) * GIB, candidates=10)
    assert found.fits == fits
    assert found.options == (("--offload",) if fits and "offload" in fits else ())
    assert found.needed / GIB == pytest.approx(needed + reward)


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
