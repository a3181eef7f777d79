from __future__ import annotations

import dataclasses
import html
import json
import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest
from report_lines import RECIPES, WILD, digits, study_results, tanh_net
from scipy.stats import t as student

import autoinit
from autoinit.errors import ArgumentError
from autoinit.reports.figures import ROWS, gain_map, heat_map, short
from autoinit.reports.reporting import report
from autoinit.reports.study_page import _span
from autoinit.reports.summary import POINTS, importance, mean, summarize
from autoinit.search.selection import Selection
from autoinit.study.results import StudyResults


@pytest.fixture(scope="module")
def results() -> StudyResults:
    return study_results()


@pytest.fixture(scope="module")
def selection() -> Selection:
    return autoinit.select(tanh_net(), digits(), budget=autoinit.Budget(steps=400), executor="sequential")


def figures_of(path: Path) -> dict[str, Any]:
    """Returns the figures in a page by their ids, as the browser reads them."""
    found = re.search(r'<script type="application/json" id="figures">(.*?)</script>', path.read_text(), re.DOTALL)
    assert found is not None
    return {figure["id"]: figure for figure in json.loads(found[1])}


def body_of(path: Path) -> str:
    """Returns a page's own text, without plotly.js."""
    return re.sub(r"<script>.*?</script>", "", path.read_text(), flags=re.DOTALL)


def test_interval_is_the_t_interval() -> None:
    values = [0.3, 0.5, 0.4, 0.7]
    found = mean(values)
    reach = student.ppf(0.975, 3) * statistics.stdev(values) / 2
    assert found.mean == pytest.approx(0.475)
    assert (found.low, found.high) == pytest.approx((0.475 - reach, 0.475 + reach))


def test_single_seed_has_no_interval() -> None:
    assert dataclasses.astuple(mean([0.3])) == (0.3, None, None, 1)


def test_gains_are_paired_by_seed(results: StudyResults) -> None:
    [tanh, *_] = summarize(results, "probe")
    recipe = RECIPES[1].key

    def totals(key: str) -> dict[int, float]:
        lines = [line for line in results.lines if line["task"] == tanh.name and line["recipe"] == key]
        return {x["seed"]: x["score"]["total"] for x in lines if x["stage"] == "probe" and x["lr_step"] == 0}

    own, theirs = totals("as_is"), totals(recipe)
    assert len(own) == 3
    assert tanh.gains[recipe].mean == pytest.approx(sum(own[seed] - theirs[seed] for seed in own) / 3)
    assert "as_is" not in tanh.gains


def test_recipe_that_diverged_is_not_the_best(results: StudyResults) -> None:
    relu = next(task for task in summarize(results, "probe") if task.name.startswith("relu"))
    assert relu.unfinished[WILD.key] == 3
    assert WILD.key not in relu.gains
    assert relu.best != WILD.key


def test_task_that_could_not_be_built_has_no_best(results: StudyResults) -> None:
    broken = next(task for task in summarize(results, "probe") if task.name.startswith("broken"))
    assert (broken.best, broken.gains) == (None, {})


def test_importance_is_the_variance_between_values(results: StudyResults) -> None:
    """Against the definition, on one task and one field: between-group over whole sum of squares."""
    task = "tanh.digits.sgd"
    central = [x for x in results.lines if x["task"] == task and x["stage"] == "probe" and x["lr_step"] == 0]
    scores = {
        key: statistics.fmean(x["score"]["total"] for x in central if x["recipe"] == key)
        for key in dict.fromkeys(x["recipe"] for x in central)
    }
    heads = {x["recipe"]: x["fields"].get("head") for x in central}
    middle = statistics.fmean(scores.values())
    between = 0.0
    for head in set(heads.values()):
        same = [score for key, score in scores.items() if heads[key] == head]
        between += len(same) * (statistics.fmean(same) - middle) ** 2
    whole = sum((score - middle) ** 2 for score in scores.values())
    one = StudyResults({}, {}, [line for line in results.lines if line["task"] == task])
    share = next(share for share in importance(one) if share.name == "head")
    assert share.share == pytest.approx(between / whole)
    assert share.chance == pytest.approx(1 / (len(scores) - 1))
    assert {"base", "log2_gain", "head", "learning rate"} == {share.name for share in importance(one)}


def test_gain_map_has_the_means_of_each_initializer_and_scale(results: StudyResults) -> None:
    tasks = summarize(results, "probe")
    fields = {line["recipe"]: line["fields"] for line in results.lines}
    figure = gain_map(tasks, fields)
    assert figure is not None
    (trace,), layout = figure.drawings[0].data, figure.drawings[0].layout
    rows, columns = layout["yaxis"]["ticktext"], layout["xaxis"]["ticktext"]
    assert columns == ["× 0.5", "× 1", "× 2", "× 1.07374e+09"]
    cell = trace["z"][rows.index("xavier_normal")][columns.index("× 1")]
    keys = [key for key, held in fields.items() if held.get("base") == "xavier_normal"]
    assert len(keys) == 2
    assert cell == pytest.approx(
        statistics.fmean(task.gains[key].mean for task in tasks if task.gains for key in keys), rel=1e-2
    )
    wild = columns.index("× 1.07374e+09")
    survived = [task.gains[WILD.key].mean for task in tasks if WILD.key in task.gains]
    assert [row[wild] for row in trace["z"] if row[wild] is not None] == pytest.approx(
        [statistics.fmean(survived)], rel=1e-2
    )
    assert "xavier_normal" not in trace["text"][rows.index("he_normal")][wild]
    assert "runs diverged or failed" in trace["text"][rows.index("he_normal")][wild]
    plain = {key: {"base": "he_normal"} for key in fields}
    assert gain_map(tasks, plain) is None, "one scale only"


def test_heat_map_of_many_recipes_keeps_those_of_the_most_tasks(results: StudyResults) -> None:
    task = next(task for task in summarize(results, "probe") if task.gains)
    gain = next(iter(task.gains.values()))
    several = [
        dataclasses.replace(
            task, name=f"task {n}", gains={"orthogonal": gain, **{f"random {n}.{m}": gain for m in range(30)}}
        )
        for n in range(4)
    ]
    figure = heat_map(several)
    assert figure is not None
    rows = figure.drawings[0].layout["yaxis"]["ticktext"]
    assert len(rows) == ROWS
    assert "orthogonal" in rows
    assert f"Only the {ROWS} that were tried on the most tasks are shown, of " in figure.note
    few = heat_map(several[:1])
    assert few is not None
    assert "Only the" not in few.note


def test_labels_are_cut_and_safe() -> None:
    assert short("a<b>") == "a&lt;b&gt;"
    assert short("orthogonal calibration=lsuv_centred", 26) == "orthogonal ca…lsuv_centred"


def test_study_report_has_every_part(results: StudyResults, tmp_path: Path) -> None:
    path = tmp_path / "study.html"
    report(results, path)
    text = body_of(path)
    for title in (
        "What was run",
        "Best recipe of each task",
        "The longer trainings",
        "Learning curves",
        "Recipes and families",
        "What mattered",
        "Layers",
        "Failures",
        "Damaged lines",
    ):
        assert f"<h2>{title}</h2>" in text
    assert "records.jsonl:7: not JSON at column 12" in text
    assert "TypeError" in text
    assert "in broken_net" in text, "the whole traceback is there"
    assert "the loss was not finite at step 1 (× 3)" in text
    assert "one seed" not in text.replace("rests on a single seed", "")
    figures = figures_of(path)
    assert set(figures) == {"gains-probe", "gains-long", "curves", "heat-map", "gain-map", "importance", "layers"}
    assert {drawing["label"] for drawing in figures["layers"]["drawings"]} == {"tanh.digits.sgd", "relu.digits.sgd"}
    for drawing in figures["curves"]["drawings"]:
        assert any(trace["name"] == "as_is" for trace in drawing["data"])
        assert all(len(trace["x"]) == len(trace["y"]) <= POINTS for trace in drawing["data"])


@pytest.mark.parametrize(
    ("times", "told"),
    [
        (["2026-11-25T19:04:21+00:00", None, "2026-11-25T20:04:00+01:00"], "2026-11-25 19:04:00 to 19:04:21 UTC"),
        (["2026-11-25T23:59:00Z", "2026-11-26T06:30:00Z"], "2026-11-25 23:59:00 to 2026-11-26 06:30:00 UTC"),
        ([None], ""),
    ],
)
def test_span_is_of_one_clock_whatever_the_zones(times: list[str | None], told: str) -> None:
    assert _span(times) == told


def test_one_seed_is_said_plainly(results: StudyResults, tmp_path: Path) -> None:
    lines = [line for line in results.lines if line["seed"] == 0]
    report(dataclasses.replace(results, lines=lines), tmp_path / "study.html")
    text = body_of(tmp_path / "study.html")
    assert "with one seed there is no telling how far by chance" in text
    assert "<td>one seed</td><td>1</td>" in text


def test_tasks_that_are_not_begun_are_counted_and_not_listed(results: StudyResults, tmp_path: Path) -> None:
    lines = [line for line in results.lines if line["task"] != "relu.digits.sgd"]
    report(dataclasses.replace(results, lines=lines), tmp_path / "study.html")
    text = body_of(tmp_path / "study.html")
    assert f"{len(lines)} trials on 2 of 3 tasks." in text
    assert "1 task without a finished trial yet" in text
    assert '<td class="words">relu.digits.sgd</td>' not in text
    assert '<td class="words">broken.digits.sgd</td>' in text, "it could not be built, which is told"
    report(results, tmp_path / "study.html")
    text = body_of(tmp_path / "study.html")
    assert f"{len(results.lines)} trials on 3 tasks." in text
    assert "without a finished trial" not in text


def test_study_without_a_trial_is_still_a_page(results: StudyResults, tmp_path: Path) -> None:
    report(dataclasses.replace(results, lines=[]), tmp_path / "study.html")
    text = body_of(tmp_path / "study.html")
    assert "No trial is finished yet." in text
    assert set(figures_of(tmp_path / "study.html")) == {"layers"}


def test_names_cannot_break_the_page(results: StudyResults, tmp_path: Path) -> None:
    lines = [{**line, "recipe": line["recipe"].replace("he_normal", "</script><b>")} for line in results.lines]
    report(dataclasses.replace(results, lines=lines), tmp_path / "study.html")
    page = (tmp_path / "study.html").read_text()
    assert "</script><b>" not in page
    assert "\\u003c/script>\\u003cb>" not in page, "plotly reads markup in names: they are escaped for it, too"
    assert any("&lt;/script&gt;&lt;b&gt;" in str(figure) for figure in figures_of(tmp_path / "study.html").values())


def test_selection_report_shows_the_choice(selection: Selection, tmp_path: Path) -> None:
    path = tmp_path / "init.html"
    report(selection, path)
    text = body_of(path)
    for title in ("The choice", "Leaderboard", "Trials", "Plan, parameter by parameter"):
        assert f"<h2>{title}</h2>" in text
    for name in selection.plan:
        assert f">{name}</td>" in text
    figures = figures_of(path)
    assert {"losses", "trials"} <= set(figures)
    shown = sum(len(trace["x"]) for trace in figures["trials"]["drawings"][0]["data"])
    assert shown == selection.trials.score.notna().sum()
    assert html.escape(selection.headline) in text
    if selection.gain is not None:
        assert figures["gain"]["drawings"][0]["data"][0]["x"][0] == pytest.approx(-selection.gain.estimate, rel=1e-3)


def test_diagnosis_report_shows_findings_and_layers(tmp_path: Path) -> None:
    model = tanh_net()
    autoinit.apply_(model, autoinit.Recipe(base="xavier_normal", log2_gain=-6.0), digits())
    diagnosis = autoinit.diagnose(model, digits())
    assert diagnosis.findings
    report(diagnosis, tmp_path / "diagnosis.html")
    text = body_of(tmp_path / "diagnosis.html")
    assert all(finding.text.split("'")[0] in text for finding in diagnosis.findings)
    [drawing] = figures_of(tmp_path / "diagnosis.html")["layers"]["drawings"]
    assert len(drawing["data"][0]["y"]) == len(diagnosis.signals.layers)


def test_plotly_knows_every_word_of_the_figures(results: StudyResults, selection: Selection, tmp_path: Path) -> None:
    """plotly.js passes over what it does not know; plotly's Python objects refuse it."""
    for what in (results, selection, autoinit.diagnose(tanh_net(), digits())):
        report(what, tmp_path / "page.html")
        for figure in figures_of(tmp_path / "page.html").values():
            for drawing in figure["drawings"]:
                go.Figure(data=drawing["data"], layout=drawing["layout"])


def test_page_names_no_other_address(results: StudyResults, tmp_path: Path) -> None:
    report(results, tmp_path / "study.html")
    text = body_of(tmp_path / "study.html")
    assert "http://" not in text
    assert "https://" not in text
    assert "default-src 'none'" in text


def test_older_report_is_replaced_whole(results: StudyResults, tmp_path: Path) -> None:
    path = tmp_path / "study.html"
    path.write_text("old")
    report(results, str(path))
    assert path.read_text().startswith("<!DOCTYPE html>")
    assert [each.name for each in tmp_path.iterdir()] == ["study.html"]


def test_wrong_object_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"made of a Selection .* Got dict"):
        report({}, tmp_path / "a.html")  # type: ignore[arg-type]


def test_unusable_paths_are_refused(results: StudyResults, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="is a folder"):
        report(results, tmp_path)
    with pytest.raises(ArgumentError, match="does not exist"):
        report(results, tmp_path / "none" / "a.html")
    with pytest.raises(ArgumentError, match="Got None"):
        report(results, None)  # type: ignore[arg-type]


def test_full_disk_is_told_and_keeps_the_old_report(results: StudyResults) -> None:
    full = Path("/dev/shm")
    if not Path("/dev/full").exists() or not full.is_dir():
        pytest.skip("needs Linux")
    code = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from autoinit.reports.reporting import StudyResults, report\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        "report(StudyResults({}, {}, []), sys.argv[1])\n"
    )
    path = full / "autoinit-report-test.html"
    path.write_text("old")
    try:
        done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
        assert "ArgumentError" in done.stderr
        assert "cannot be written: File too large" in done.stderr
        assert path.read_text() == "old"
    finally:
        path.unlink()


@pytest.mark.parametrize("library", ["plotly", "jinja2"])
def test_missing_library_is_named(
    library: str, results: StudyResults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ArgumentError, match=rf"{library} is not installed: pip install .*\[report\]"):
        report(results, tmp_path / "a.html")
    assert list(tmp_path.iterdir()) == []


def test_study_report_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom autoinit.reports.reporting import StudyResults, report\n"
        "assert 'plotly' not in sys.modules\n"
        f"report(StudyResults({{}}, {{}}, []), {str(tmp_path / 'a.html')!r})\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
