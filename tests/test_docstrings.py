"""What `help` shows of the public names: whole sentences, every argument and error, and examples that run."""

from __future__ import annotations

import doctest
import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest

import autoinit

PUBLIC = {name: getattr(autoinit, name) for name in dir(autoinit) if not name.startswith("_")}
CLASSES = {name: thing for name, thing in PUBLIC.items() if inspect.isclass(thing)}
ERRORS = {name: thing for name, thing in CLASSES.items() if issubclass(thing, Exception)}
NOUNS = {name: thing for name, thing in CLASSES.items() if name not in ERRORS}
VERBS: dict[str, Callable[..., Any]] = {
    name: thing for name, thing in PUBLIC.items() if callable(thing) and name not in CLASSES
}

NEVER_FAILS = {"catalogue"}
SLOW = {"run_study"}
"""Starts a worker, a process that has torch to load."""

FEWEST_WORDS = 80
FEWEST_WORDS_OF_A_NOUN = 25
LONGEST_LINE = 116
"""Characters of a line of `help`, which stands four columns further right in its file."""


def sections(thing: object) -> dict[str, str]:
    """Returns the sections of a Google-style docstring by their titles, what comes before the first as ""."""
    parts = re.split(r"^([A-Z]\w+):\n", inspect.getdoc(thing) or "", flags=re.MULTILINE)
    return {"": parts[0]} | dict(zip(parts[1::2], parts[2::2], strict=True))


def entries(section: str) -> dict[str, str]:
    """Returns what a section of Args, Attributes or Raises says of each name."""
    parts = re.split(r"^ {4}(\w+(?:, \w+)*): ", section, flags=re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in zip(parts[1::2], parts[2::2], strict=True)}


def words(thing: object) -> int:
    """Returns how many words a docstring has beside its example."""
    return sum(len(text.split()) for title, text in sections(thing).items() if title != "Example")


def examples(name: str, thing: object) -> list[doctest.DocTest]:
    """Returns the example of a function, which has to import all that it uses."""
    found = doctest.DocTestFinder(recurse=False).find(thing, name, globs={})
    return [test for test in found if test.examples]


def test_the_public_names_are_sorted_into_verbs_nouns_and_errors() -> None:
    assert {"select", "apply_", "recommend", "diagnose", "trace", "resolve"} <= VERBS.keys()
    assert {"catalogue", "report", "run_study", "coordinate_check"} <= VERBS.keys()
    assert {"Budget", "Recipe", "Plan", "Selection", "Graph", "Task", "Study"} <= NOUNS.keys()
    assert all(inspect.ismodule(PUBLIC[name]) for name in PUBLIC.keys() - VERBS.keys() - CLASSES.keys())


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_says_what_it_returns_and_does(name: str) -> None:
    first = (inspect.getdoc(VERBS[name]) or "").splitlines()[0]
    assert re.fullmatch(r"(Returns|Sets|Writes|Runs) .*\.", first), "the first line says what comes of it"
    assert words(VERBS[name]) >= FEWEST_WORDS


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_explains_every_argument_in_whole_sentences(name: str) -> None:
    told = entries(sections(VERBS[name]).get("Args", ""))
    assert list(told) == list(inspect.signature(VERBS[name]).parameters)
    fragments = {argument: text for argument, text in told.items() if not re.fullmatch(r"[A-Z].+ .+\.", text)}
    assert fragments == {}, "a sentence begins with a capital letter and ends with a full stop"


SUBJECTS = {
    "model",
    "make_model",
    "what",
    "source",
    "data",
    "recipe",
    "graph",
    "study",
    "path",
    "sparsity",
    "tasks",
    "inputs",
    "labels",
}
"""Arguments without which a verb means nothing: they are given by their place, all others by name alone."""


@pytest.mark.parametrize("name", VERBS)
def test_what_is_beside_model_and_data_is_given_by_name_in_every_verb(name: str) -> None:
    parameters = inspect.signature(VERBS[name]).parameters.values()
    by_place = {one.name for one in parameters if one.kind is not inspect.Parameter.KEYWORD_ONLY}
    assert by_place <= SUBJECTS
    assert {one.name for one in parameters if one.default is inspect.Parameter.empty} <= by_place


def test_an_argument_of_several_verbs_has_one_default_and_one_meaning_of_none() -> None:
    defaults: dict[str, dict[str, object]] = {}
    for name, verb in VERBS.items():
        for one in inspect.signature(verb).parameters.values():
            if one.default is not inspect.Parameter.empty:
                defaults.setdefault(one.name, {})[name] = one.default
    several = {argument: found for argument, found in defaults.items() if len(found) > 1}
    assert {"loss", "step", "lr", "optimizer", "only", "exclude", "recipes", "seed", "data"} <= several.keys()
    own = {("optimizer", "coordinate_check")}  # by its name, whose learning rates μP has rules for
    ways = ("inherit_", "rows_", "head_", "renew_", "ticket", "meta_learn")
    own |= {("method", verb) for verb in ways}  # each has ways of its own
    own |= {("steps", "ticket"), ("rounds", "ticket")}  # as many as the method needs
    odd = {
        argument: found
        for argument, found in several.items()
        if len({repr(value) for name, value in found.items() if (argument, name) not in own}) > 1
    }
    assert odd == {}


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_says_what_to_do_with_its_answer_and_which_errors_there_are(name: str) -> None:
    told = sections(VERBS[name])
    answers = inspect.signature(VERBS[name]).return_annotation != "None"
    assert ("Returns" in told) == answers
    raised = entries(told.get("Raises", ""))
    assert bool(raised) == (name not in NEVER_FAILS)
    assert raised.keys() <= ERRORS.keys()
    assert {error for error, text in raised.items() if not re.fullmatch(r"[A-Z].+\.", text)} == set()


@pytest.mark.parametrize("name", VERBS)
def test_help_fits_its_lines(name: str) -> None:
    assert [line for line in (inspect.getdoc(VERBS[name]) or "").splitlines() if len(line) > LONGEST_LINE] == []


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in VERBS])
def test_the_example_of_a_verb_runs_and_prints_what_it_shows(name: str) -> None:
    (example,) = examples(name, VERBS[name])
    calls = rf"autoinit\.{name}\("
    assert any(re.search(calls, step.source) for step in example.examples), "the example calls what it is of"
    assert any(step.want for step in example.examples), "the example shows what is printed"
    assert not any(doctest.SKIP in step.options for step in example.examples)
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert runner.run(example, out=said.append).failed == 0, "".join(said)


@pytest.mark.parametrize("name", NOUNS)
def test_a_noun_says_what_it_is_and_what_it_is_for(name: str) -> None:
    told = sections(NOUNS[name])
    assert len(told[""].split()) >= FEWEST_WORDS_OF_A_NOUN
    elliptic = r"(of|as)\b.*"
    attributes = entries(told["Attributes"])
    assert {attribute for attribute, text in attributes.items() if re.fullmatch(elliptic, text)} == set()


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_says_when_it_is_raised(name: str) -> None:
    told = ERRORS[name].__doc__
    assert told is not None
    assert re.fullmatch(r"[A-Z].{30,}\.", " ".join(told.split()))
