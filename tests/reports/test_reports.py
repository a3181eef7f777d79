from __future__ import annotations

import base64
import dataclasses
import gzip
import html
import json
import math
import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest
from plotly.offline import get_plotlyjs
from report_lines import RECIPES, WILD, digits, study_results, tanh_net
from scipy.stats import t as student

import autoinit
from autoinit.errors import ArgumentError
from autoinit.judging.curves import LossCurve
from autoinit.judging.gate import Gain
from autoinit.judging.trials import Stage
from autoinit.recipes.recipe import OWN
from autoinit.reports import page
from autoinit.reports.figures import ROWS, gain_map, heat_map, pairs_figure, race_figure
from autoinit.reports.labels import LINE, axis_labels, explained, legend_labels
from autoinit.reports.reporting import report
from autoinit.reports.study_page import _span, conclusions, telling
from autoinit.reports.summary import POINTS, Share, by_value, importance, summarize
from autoinit.screen.columns import shortened
from autoinit.search.selection import Selection
from autoinit.study.results import Mean, StudyResults, mean


@pytest.fixture(scope="module")
def results() -> StudyResults:
    return study_results()


@pytest.fixture(scope="module")
def selection() -> Selection:
    return autoinit.select(tanh_net(), digits(), budget=autoinit.Budget(steps=400), executor="sequential")


def figures_of(path: Path) -> dict[str, Any]:
    """Returns the figures in a page by their ids, as the browser reads them."""
    found = re.search(r'<script type="(.*?)" id="figures">(.*?)</script>', path.read_text(), re.DOTALL)
    assert found is not None
    plain = found[2] if found[1] == "application/json" else gzip.decompress(base64.b64decode(found[2]))
    return {figure["id"]: figure for figure in json.loads(plain)}


def body_of(path: Path) -> str:
    """Returns a page's own text, without its scripts and plotly.js."""
    return re.sub(r'<script( type="text/plain" id="\w+")?>.*?</script>', "", path.read_text(), flags=re.DOTALL)


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
    assert "<details data-printed><summary>What the words mean</summary>" in text
    assert "<details><summary>The study as it was given</summary>" in text, "pages of it are not printed unasked"
    assert "TypeError" in text
    assert "in broken_net" in text, "the whole traceback is there"
    assert "the loss was not finite at step 1 (× 3)" in text
    assert "one seed" not in text.replace("rests on a single seed", "")
    figures = figures_of(path)
    assert set(figures) == {"gains-probe", "gains-long", "curves", "heat-map", "gain-map", "importance", "layers"}
    assert {drawing["label"] for drawing in figures["layers"]["drawings"]} == {"tanh.digits.sgd", "relu.digits.sgd"}
    for drawing in figures["curves"]["drawings"]:
        assert any(trace["name"] == "own weights" for trace in drawing["data"])
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
    assert re.search(r">one seed</td><td [^>]*>1</td>", text)


def test_tasks_that_are_not_begun_are_counted_and_not_listed(results: StudyResults, tmp_path: Path) -> None:
    lines = [line for line in results.lines if line["task"] != "relu.digits.sgd"]
    report(dataclasses.replace(results, lines=lines), tmp_path / "study.html")
    text = body_of(tmp_path / "study.html")
    assert f"{len(lines)} trials on 2 of 3 tasks." in text
    assert "1 task without a finished trial yet" in text
    assert ">relu.digits.sgd</td>" not in text
    assert ">broken.digits.sgd</td>" in text, "it could not be built, which is told"
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
    for title in (
        "How to use it",
        "What was measured",
        "Loss curves",
        "Layers",
        "Leaderboard",
        "Every run",
        "Plan, parameter by parameter",
    ):
        assert f"<h2>{title}</h2>" in text
    for name in selection.plan:
        assert f">{name}</td>" in text
    figures = figures_of(path)
    assert {"race", "layers", "trials"} <= set(figures)
    shown = sum(len(trace["x"]) for trace in figures["trials"]["drawings"][0]["data"])
    assert shown == selection.trials.score.notna().sum()
    assert selection.why[1:] in html.unescape(text)
    if selection.gain is not None:
        assert figures["gain"]["drawings"][0]["data"][0]["x"][0] == pytest.approx(selection.gain.factor, rel=1e-3)


HE = autoinit.Recipe(base="he_normal")
ORTHOGONAL = autoinit.Recipe(base="orthogonal", log2_gain=-0.5, calibration="lsuv")


def better(selection: Selection, **changes: Any) -> Selection:
    """Returns a selection that has chosen other weights, with three paired runs in which they won."""
    runs: list[tuple[Stage, autoinit.Recipe, int, float]] = [
        *[("search", recipe, 0, last) for recipe, last in ((OWN, 2.2), (ORTHOGONAL, 0.5), (HE, 1.1))],
        *[("gate", recipe, seed, last) for seed in range(3) for recipe, last in ((OWN, 2.2), (ORTHOGONAL, 0.4))],
    ]
    curves = [
        LossCurve(number, stage, recipe, 0.05, seed, 3, (1, 2, 3), (2.3, last + 0.1 * seed, last), ((3, last + 0.1),))
        for number, (stage, recipe, seed, last) in enumerate(runs)
    ]
    chosen: dict[str, Any] = {
        "recipe": ORTHOGONAL,
        "plan": dataclasses.replace(selection.plan, recipe=ORTHOGONAL),
        "kept": False,
        "answer": "better",
        "why": "from the model's own weights the loss stays at 2.3, from these it reaches 0.4 in 3 steps",
        "gain": Gain(math.log(0.2), math.log(0.1), math.log(0.3), 3),
        "held_back": None,
        "contender": ORTHOGONAL,
        "curves": tuple(curves),
    }
    return dataclasses.replace(selection, **{**chosen, **changes})


def test_title_is_a_sentence_and_says_the_answer(selection: Selection, tmp_path: Path) -> None:
    path = tmp_path / "init.html"
    kept: dict[str, Any] = {"kept": True, "recipe": OWN, "gain": None, "why": "a reason"}
    for what, title, lead in (
        (
            better(selection),
            "Weights by “orthogonal, gain × 0.71, LSUV” train better than your own",
            "From the model's own weights the loss stays at 2.3, from these it reaches 0.4 in 3 steps. The training "
            "loss comes to 20 % of that from your own weights over 3 paired runs, which is beyond noise.",
        ),
        (
            better(selection, gain=Gain(math.log(0.9), math.log(0.8), math.log(0.95), 5)),
            "Weights by “orthogonal, gain × 0.71, LSUV” train better than your own",
            "The training loss is 10 % lower over 5 paired runs, which is beyond noise.",
        ),
        (
            better(selection, answer="no better", **kept),
            "Your own weights stay: nothing better was found",
            "Your own weights are kept. The reason: a reason.",
        ),
        (
            better(selection, answer="unsure", remedy='budget="91s" would', **kept),
            "It could not be told whether other weights train better than your own",
            'Your own weights are kept. The reason: a reason. What would tell: budget="91s".',
        ),
        (
            better(selection, answer="no better", trials=selection.trials.head(0), **kept),
            "There are no other weights to choose",
            "The reason: a reason.",
        ),
    ):
        report(what, path)
        text = html.unescape(body_of(path))
        assert f"<h1>{title}</h1>" in text
        assert f"<title>{title}</title>" in text
        assert lead in text


def test_three_lines_to_copy_do_what_they_say(selection: Selection, tmp_path: Path) -> None:
    chosen = better(selection, lr=0.05)
    report(chosen, tmp_path / "init.html")
    found = re.search(r"<pre>(selection\.save.*?)</pre>", body_of(tmp_path / "init.html"), re.DOTALL)
    assert found is not None
    lines = html.unescape(found[1]).splitlines()
    assert len(lines) == 3
    names: dict[str, Any] = {"selection": chosen, "autoinit": autoinit, "model": tanh_net()}
    exec("\n".join(lines).replace("init.json", str(tmp_path / "init.json")), names)
    assert names["lr"] == 0.05

    narrow = autoinit.Recipe(base="he_normal", widths="mup", base_width=16)
    widths = better(selection, lr=0.05, plan=autoinit.resolve(narrow, selection.graph))
    report(widths, tmp_path / "init.html")
    found = re.search(r"<pre>(selection\.save.*?)</pre>", body_of(tmp_path / "init.html"), re.DOTALL)
    assert found is not None
    names = {"selection": widths, "autoinit": autoinit, "model": tanh_net()}
    exec(html.unescape(found[1]).replace("init.json", str(tmp_path / "init.json")), names)
    assert {group["lr"] for group in names["groups"]} > {0.05}

    report(better(selection, kept=True, answer="no better"), tmp_path / "init.html")
    assert "There is nothing to set" in body_of(tmp_path / "init.html")
    assert "<pre>selection.save" not in body_of(tmp_path / "init.html")


def test_paired_runs_are_drawn_with_their_band(selection: Selection) -> None:
    chosen = better(selection)
    figure = pairs_figure(chosen.curves, chosen.contender)
    assert figure is not None
    assert figure.note.startswith("3 pairs of runs")
    data = figure.drawings[0].data
    lines = {trace["name"]: trace for trace in data if "name" in trace and trace.get("showlegend") is not False}
    assert list(lines) == ["own weights", "orthogonal, gain × 0.71, LSUV"]
    mine = lines["orthogonal, gain × 0.71, LSUV"]
    assert mine["y"] == pytest.approx([2.3, 0.5, 0.4])
    lower, upper = data[2:4]
    assert (lower["y"], upper["y"]) == ([2.3, 0.4, 0.4], [2.3, 0.6, 0.4])
    assert upper["fill"] == "tonexty"
    crosses = [trace for trace in data if trace.get("mode") == "markers"]
    assert [trace["y"] for trace in crosses] == [[2.3], [0.5]]
    assert pairs_figure(chosen.curves[:3], chosen.contender) is None
    assert pairs_figure(chosen.curves, None) is None


def test_a_run_that_diverged_cuts_the_band_short(selection: Selection) -> None:
    *rest, last = better(selection).curves
    short = dataclasses.replace(last, steps=(1, 2), losses=(2.3, 9.0))
    figure = pairs_figure([*rest, short], ORTHOGONAL)
    assert figure is not None
    assert [len(trace["x"]) for trace in figure.drawings[0].data if trace.get("fill")] == [3, 2]


def test_race_shows_own_weights_the_choice_and_the_leaders(selection: Selection) -> None:
    figure = race_figure(better(selection).curves, ORTHOGONAL, ["he_normal", "lecun_normal"])
    assert figure is not None
    names = [trace["name"] for trace in figure.drawings[0].data if trace.get("showlegend") is not False]
    assert names == ["own weights", "orthogonal, gain × 0.71, LSUV", "he_normal"]
    assert race_figure((), None, []) is None


def test_layers_are_drawn_before_and_after(selection: Selection, tmp_path: Path) -> None:
    assert selection.before
    report(better(selection, after=selection.before), tmp_path / "init.html")
    [drawing] = figures_of(tmp_path / "init.html")["layers"]["drawings"]
    assert [trace["name"] for trace in drawing["data"]][::2] == ["own weights", "orthogonal, gain × 0.71, LSUV"]
    assert drawing["layout"]["yaxis"]["title"]["text"] == "spread of outputs"
    report(better(selection, before=(), after=()), tmp_path / "init.html")
    assert "layers" not in figures_of(tmp_path / "init.html")


def test_a_saved_selection_gives_the_same_page(selection: Selection, tmp_path: Path) -> None:
    selection.save(tmp_path / "init.json", full=True)
    report(selection, tmp_path / "one.html")
    report(tmp_path / "init.json", tmp_path / "other.html")
    one, other = ((tmp_path / name).read_text() for name in ("one.html", "other.html"))
    written = re.compile(r"Written [-\d: ]+ UTC")
    assert written.sub("", one) == written.sub("", other)


def test_pages_are_small(results: StudyResults, selection: Selection, tmp_path: Path) -> None:
    for what in (results, better(selection), autoinit.diagnose(tanh_net(), digits())):
        report(what, tmp_path / "page.html")
        assert (tmp_path / "page.html").stat().st_size < 1_000_000


def test_figures_of_many_tasks_are_compressed(results: StudyResults, tmp_path: Path) -> None:
    first = results.lines[0]["task"]
    lines = [
        {**line, "task": f"task {place}"} for place in range(60) for line in results.lines if line["task"] == first
    ]
    report(dataclasses.replace(results, lines=lines), tmp_path / "page.html")
    assert len(figures_of(tmp_path / "page.html")["curves"]["drawings"]) == 120
    assert (tmp_path / "page.html").stat().st_size < 1_500_000


def test_labels_tell_recipes_apart() -> None:
    long = "orthogonal, gain × 0.94, last/first × 1.6, head bias zero, centred LSUV"
    labels = axis_labels([long, long.replace("1.6", "1.7"), "a<b>", "autoencoder_sigmoid.digits.adam"])
    assert len(set(labels)) == 4
    assert labels[0].startswith("orthogonal, gain × 0.94,<br>")
    assert labels[2] == "a&lt;b&gt;"
    assert legend_labels([long]) == ["orthogonal, gain × 0.94,<br>last/first × 1.6, head bias zero,<br>centred LSUV"], (
        "whole"
    )
    assert labels[3] == "autoencoder_sigmoid.<br>digits.adam"
    assert all(len(html.unescape(part)) <= 30 for label in labels for part in label.split("<br>"))


def test_a_long_name_on_an_axis_loses_its_middle_as_in_a_table() -> None:
    name = "a-name-that-has-no-place-to-be-broken-at"
    assert axis_labels([name]) == [shortened(name, LINE, "middle")]


def test_where_weights_are_kept_the_page_says_which_rate_to_train_with(selection: Selection, tmp_path: Path) -> None:
    kept = dataclasses.replace(selection, kept=True, lr=0.01, given_lr=0.001, lr_given=False)
    for searched, said in ((True, "Train with lr 0.01: it was searched, the default was 0.001."), (False, "Train as")):
        report(dataclasses.replace(kept, lr_searched=searched), tmp_path / "page.html")
        page_text = (tmp_path / "page.html").read_text()
        assert said in page_text
        assert ("Train as you would" in page_text) is not searched


def test_a_page_says_what_was_searched_on_a_proxy(selection: Selection, tmp_path: Path) -> None:
    said = "searched on a proxy of 8,410 of 109,642 parameters; finals and gate are the model's own"
    for proxy in ("", said):
        path = tmp_path / "page.html"
        autoinit.report(dataclasses.replace(selection, proxy=proxy), path)
        assert (said in html.unescape(path.read_text())) == bool(proxy)


def test_words_in_labels_are_explained() -> None:
    words = dict(explained(["as_is", ORTHOGONAL.key, "he_normal"]))
    assert {"own weights", "gain", "LSUV", "he_normal"} == set(words)


def test_study_opens_on_the_task_with_the_most_to_tell(results: StudyResults, tmp_path: Path) -> None:
    tasks = summarize(results, "probe")
    most = telling(tasks)
    assert most is not None
    report(results, tmp_path / "study.html")
    figures = figures_of(tmp_path / "study.html")
    for name in ("curves", "layers"):
        figure = figures[name]
        assert figure["drawings"][figure["shown"]]["label"].startswith(most.name)
    assert f"The most to tell has {most.name}" in body_of(tmp_path / "study.html")
    sure, large, loss = Mean(0.3, 0.2, 0.4, 3), Mean(0.9, -0.1, 1.9, 3), Mean(-0.5, -0.6, -0.4, 3)
    several = [
        dataclasses.replace(tasks[0], name=name, gains={"he_normal": gain}, best="he_normal")
        for name, gain in (("loss", loss), ("large", large), ("sure", sure))
    ]
    assert [found.name for count in (1, 2, 3) if (found := telling(several[:count]))] == ["loss", "large", "sure"]
    assert telling([]) is None


def test_what_to_conclude_is_said(results: StudyResults) -> None:
    shares = [Share("head", 0.12, 0.1, 2, 2), Share("base", 0.8, 0.3, 4, 1), Share("learning rate", 0.5, 0.1, 3, 2)]
    first, second, rest = conclusions(results, shares)
    assert first.startswith("Decide on the initializer first: over 1 task it explains 80 % of the differences")
    [(best, low), *_, (worst, high)] = by_value(results, "base")
    assert low < 0 < high
    assert f"“{best}”" in first or best is None
    assert worst != best
    assert second.startswith("Then on the learning rate: over 2 tasks it explains 50 %")
    assert rest == "What makes little difference by itself: scale of the output layer. Leave it as it is."
    assert conclusions(results, shares[:1])[0].startswith("No choice explains by itself")


def test_values_are_compared_within_their_tasks(results: StudyResults) -> None:
    means = dict(by_value(results, "learning rate"))
    assert set(means) == {-1, 0, 1}
    assert sum(means.values()) == pytest.approx(0.0, abs=0.5)
    assert by_value(results, "colour") == []


def test_bundle_of_plotly_is_the_version_that_the_figures_are_checked_with() -> None:
    """Figures are validated by the Python package, drawn by the bundle: both have to be of one version."""
    code = gzip.decompress((Path(page.__file__).parent / page.PLOTLY_JS).read_bytes()).decode()
    found = re.search(r"plotly\.js \(cartesian - minified\) v([\d.]+)", code)
    assert found is not None
    assert f"plotly.js v{found[1]}" in get_plotlyjs()[:200]
    assert "MIT" in (Path(page.__file__).parent / "plotly.LICENSE").read_text()


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
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 12, 1 << 12))\n"
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


@pytest.mark.parametrize("library", ["jinja2"])
def test_missing_library_is_named(
    library: str, results: StudyResults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ArgumentError, match=rf"{library}, which is not installed: pip install .*\[report\]"):
        report(results, tmp_path / "a.html")
    assert list(tmp_path.iterdir()) == []


def test_study_report_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom autoinit.reports.reporting import StudyResults, report\n"
        f"report(StudyResults({{}}, {{}}, []), {str(tmp_path / 'a.html')!r})\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
