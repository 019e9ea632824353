"""Figures in cells, by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rewardsds.errors import SettingsError
from rewardsds.evaluation.metrics import MetricInfo, metric_info
from rewardsds.evaluation.statistics import Estimate
from rewardsds.evaluation.tables import (
    cell,
    check_files,
    csv_text,
    heading,
    json_text,
    markdown,
    number,
    write_files,
)

SHARE, COSINE, GRADE = metric_info("judge"), metric_info("clip"), MetricInfo("own", "Own", digits=2)


@pytest.mark.parametrize(
    "value, info, sign, shown",
    [
        (0.755, SHARE, False, "75.5%"),
        (1.0, SHARE, False, "100.0%"),
        (0.25339, COSINE, False, "25.34"),
        (-0.5, GRADE, False, "−0.50"),
        (0.13, SHARE, True, "+13.0%"),
        (-0.13, SHARE, True, "−13.0%"),
        (-0.0001, GRADE, False, "0.00"),
        (-0.0001, GRADE, True, "0.00"),
        (10.0, GRADE, False, "10.00"),
    ],
)
def test_a_number_is_shown_as_its_metric_is(value: float, info: MetricInfo, sign: bool, shown: str) -> None:
    assert number(value, info, sign) == shown


def test_a_mean_has_its_interval_where_something_varies() -> None:
    assert cell(Estimate(0.755, 0.681, 0.82), SHARE) == "75.5% (68.1% to 82.0%)"
    assert cell(Estimate(0.5, 0.5, 0.5), SHARE) == "50.0%"
    assert cell(None, SHARE) == "–"


def test_tables_keep_what_is_in_their_cells() -> None:
    assert markdown(["a", "b|c"], [["x\ny", "1"]]) == ["| a | b\\|c |", "| --- | --- |", "| x y | 1 |"]
    assert csv_text(["a", "b"], [["x, y", None], ['say "z"', 0.1]]) == 'a,b\n"x, y",\n"say ""z""",0.1\n'
    assert (heading(SHARE), heading(metric_info("back-as-front"))) == ("Judge finds ↑", "Back as front ↓")
    assert json.loads(json_text({"ä": 0.1})) == {"ä": 0.1}
    with pytest.raises(ValueError):
        json_text({"a": float("nan")})


def test_files_are_written_by_their_ending_and_replaced_only_by_force(tmp_path: Path) -> None:
    paths = [tmp_path / "new" / "a.JSON", tmp_path / "a.csv"]
    check_files(paths, force=False)
    write_files(paths, {".json": lambda: "{}\n", ".csv": lambda: "a\n", ".md": lambda: "never"})
    assert [path.read_text() for path in paths] == ["{}\n", "a\n"]
    with pytest.raises(SettingsError, match="--force"):
        check_files(paths, force=False)
    check_files(paths, force=True)


@pytest.mark.parametrize(
    "names, told",
    [
        (["a.txt"], "ends in .json, .csv, .md"),
        (["a"], "ends in .json, .csv, .md"),
        (["a.md", "./a.md"], "are the same"),
        (["a.md/../b.md", "b.md"], "are the same"),
        (["folder.csv"], "is a folder"),
    ],
)
def test_files_that_cannot_be_written(
    names: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder.csv").mkdir()
    with pytest.raises(SettingsError, match=told):
        check_files([Path(name) for name in names], force=False)
