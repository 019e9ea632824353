"""The figures of a comparison against values worked out by hand, and how they are written down."""

from __future__ import annotations

import csv
import io
import json

import pytest

from rewardsds.evaluation.metrics import Answer, MetricInfo
from rewardsds.evaluation.results import Figures, Scored, as_csv, as_json, as_markdown, column, machine_name
from rewardsds.evaluation.units import Asked, Cell

SHARE = MetricInfo("judge", "Judge", unit="%", digits=1, scale=100)
ERROR = MetricInfo("error", "Error", higher_is_better=False)


def scored(method: str, prompt: str, seed: int, judge: float | None, problem: str = "", **values) -> Scored:
    answers = {"judge": Answer(judge, "" if judge is not None else "not known"), "error": Answer(0.25)}
    given = {"network_evaluations": 100.0, "seconds": 2.0, **values}
    return Scored(
        Cell(method, Asked(prompt, prompt), seed, ()), "runs/x", "a.png", {} if problem else answers,
        problem=problem, **given,
    )  # fmt: skip


PLAIN = [
    scored("SDS", "a | b", 0, 0.0),
    scored("SDS", "a | b", 1, 0.5),
    scored("SDS", "c", 0, 0.5),
    scored("SDS", "d", 0, None),
]
OURS = [
    scored("Ours", "a | b", 0, 1.0, network_evaluations=300.0),
    scored("Ours", "a | b", 1, 1.0, network_evaluations=300.0),
    scored("Ours", "c", 0, 0.5, network_evaluations=300.0),
    scored("Ours", "d", 0, 0.0, problem="the disk is full"),
]


def figures(**values) -> Figures:
    metrics = [SHARE, ERROR]
    columns = [
        column("SDS", PLAIN, None, metrics, rival=None, best_of=1, optimised=()),
        column("Ours", OURS, PLAIN, metrics, rival="SDS", best_of=1, optimised=("judge",)),
    ]
    given = {
        "title": "T", "size": "", "task": "image", "prompts": 3, "seeds": [0, 1],
        "metrics": metrics, "columns": columns, "scored": [*PLAIN, *OURS], **values,
    }  # fmt: skip
    return Figures(**given)


def test_means_over_prompts_whose_seeds_are_averaged_first():
    plain, ours = figures().columns
    assert plain.scores["judge"] is not None
    assert plain.scores["judge"].value == pytest.approx(0.375)  # (0.25 + 0.5) / 2
    assert plain.n == {"judge": 2, "error": 3}
    assert (ours.made, ours.cells) == (3, 4)
    assert ours.network_evaluations == 300.0


def test_differences_are_paired_on_the_prompts_that_both_have():
    _, ours = figures().columns
    found = ours.against["judge"]
    assert found is not None
    assert found.difference.value == pytest.approx((0.75 + 0.0) / 2)
    assert found.n == 2
    assert found.wins == 0.75  # one won, one tied
    assert ours.against["error"] is not None
    assert ours.against["error"].difference == (0.0, 0.0, 0.0)


def test_markdown():
    text = as_markdown(figures(gaps={"hps": "no reward 'hps'"}))
    lines = text.splitlines()
    assert "| method | Judge ↑ | Error ↓ | network evaluations | seconds |" in lines
    assert "| SDS | 37.5% (25.0% to 50.0%) | 0.250 | 100 | 2.0 |" in lines
    (means,) = [line for line in lines if line.startswith("| Ours (3 of 4) | 75.0%")]
    assert "†" in means
    assert "| method | against | Judge ↑ | Error ↓ |" in lines
    assert [line for line in lines if line.startswith("| Ours (3 of 4) | SDS | +37.5%")]
    assert "- missing: hps: no reward 'hps'" in lines
    assert "- missing: Ours: d, seed 0: the disk is full" in lines
    assert text.count("†") == 3  # its mean, its difference, the footnote


def test_a_missing_result_is_never_a_zero():
    found = as_json(figures())["methods"]["Ours"]
    assert (found["results"], found["of"], found["against"]) == (3, 4, "SDS")
    assert found["differences"]["judge"]["difference"]["value"] == pytest.approx(0.375)
    assert found["scores"]["judge"]["value"] == pytest.approx(0.75)
    rows = list(csv.DictReader(io.StringIO(as_csv(figures()))))
    assert [row["judge"] for row in rows if row["prompt"] == "d"] == ["", ""]
    assert rows[-1]["problem"] == "the disk is full"
    assert rows[0]["prompt"] == "a | b"
    json.dumps(as_json(figures()), allow_nan=False)


def test_a_metric_that_fails_on_a_result_says_why():
    cells = [
        Scored(Cell("SDS", Asked(prompt, prompt), 0, ()), scores={"judge": answer, "error": Answer(0.5)})
        for prompt, answer in [("a", Answer(0.5)), ("b", Answer(None, "no answer", failed=True))]
    ]
    found = figures(scored=cells)
    assert found.problems == ["judge: failed on 1 of 2 results: no answer"]
    assert not found.unanswered
    assert "- missing: judge: failed on 1 of 2 results: no answer" in as_markdown(found).splitlines()
    assert figures(scored=cells, gaps={"judge": "it is away"}).problems == ["judge: it is away"]


def test_machines():
    fast, slow = (machine_name({"processor": "CPU", "cores": 8, **more}) for more in ({"gpu": "H200"}, {}))
    assert (fast, slow) == ("H200, 8 cores", "CPU, 8 cores")
    unknown = machine_name(None)
    for machines, said in (
        ({slow: 3}, "Machine: CPU, 8 cores."),
        ({unknown: 3}, "Machine: not recorded."),
        ({slow: 1, fast: 2}, "Several machines: CPU, 8 cores (1 run), H200, 8 cores (2 runs)."),
        ({slow: 1, unknown: 2}, "Machine: CPU, 8 cores (1 run), not recorded (2 runs)."),
    ):
        assert said in as_markdown(figures(machines=machines))
        assert as_json(figures(machines=machines))["machines"] == machines


def test_a_metric_that_knows_no_result_says_why():
    cells = [
        Scored(
            Cell("SDS", Asked(prompt, prompt), 0, ()),
            scores={"judge": Answer(None, why), "error": Answer(0.5)},
        )
        for prompt, why in [("a", "it does not know a"), ("b", "it does not know b")]
    ]
    found = figures(scored=cells)
    assert found.unanswered == ["Judge is known of no result: it does not know a; it does not know b"]
    assert "- Judge is known of no result: it does not know a; it does not know b" in as_markdown(found)
    assert figures().unanswered == []
