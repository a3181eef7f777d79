from __future__ import annotations

import inspect

from autoinit import errors
from autoinit.errors import AutoInitError, described, did_you_mean


def test_every_error_is_an_autoinit_error_and_a_standard_one() -> None:
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__]
    assert len(kinds) > 8
    for kind in kinds:
        assert issubclass(kind, AutoInitError)
        assert kind is AutoInitError or issubclass(kind, (ValueError, TypeError, RuntimeError))


def test_nearest_name_comes_first() -> None:
    assert did_you_mean("he_norml", ["xavier", "he_normal"]) == "Did you mean 'he_normal'? Known: he_normal, xavier."


def test_a_long_list_is_named_and_not_spelled_out() -> None:
    names = ["xavier", "he_normal"]
    assert did_you_mean("he_norml", names, "table()") == "Did you mean 'he_normal'? table() lists all."
    assert did_you_mean("zzz", names, "table()") == "table() lists all."


def test_no_guess_where_nothing_is_near() -> None:
    assert did_you_mean("zzz", ["xavier", "he_normal"]) == "Known: he_normal, xavier."


def test_an_exception_is_described_by_its_first_line() -> None:
    assert described(ValueError("one\ntwo")) == "ValueError: one"
    assert described(KeyError()) == "KeyError"
