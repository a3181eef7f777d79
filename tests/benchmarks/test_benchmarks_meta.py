"""The benchmark of learned starts: its sinusoids, and its tables."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks.common import data, jobs
from benchmarks.inheritance import meta


def test_sinusoids_are_sines_and_repeat() -> None:
    first, again = (list(itertools.islice(meta.waves(3, 5, 100)(), 4)) for _ in range(2))
    for ((x, y), (new_x, new_y)), ((same, _), _) in zip(first, again, strict=True):
        assert torch.equal(x, same)
        assert len(x) == 5
        assert new_x.abs().max() <= 5
        waves = torch.cat([new_x.sin(), new_x.cos()], 1)
        found = torch.linalg.lstsq(waves, new_y).solution
        torch.testing.assert_close(torch.cat([x.sin(), x.cos()], 1) @ found, y, rtol=1e-3, atol=1e-3)
        assert 0.1 <= float(found.norm()) <= 5


def test_the_tables_have_each_start_at_its_best_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meta, "RESULTS", tmp_path / "meta.jsonl")
    assert meta.report() == "There is no result yet."
    both = [
        {"steps": steps, "rate": rate, "mean": mean, "half": 0.1}
        for steps in (1, 5, 10)
        for rate, mean in ((0.01, 0.5), (0.03, 0.25), (0.1, float("nan")))
    ]
    beside = {"learning": 2.0, "seconds": 3.0, "date": "d", "commit": "c"}
    for question in meta.STARTS:
        jobs.append_row(meta.RESULTS, {"question": question, "start": "maml", "scores": both, **beside})
    lines = meta.report().splitlines()
    assert "| maml | 0.50 ± 0.10 | 0.25 ± 0.10 (0.03) | 0.50 ± 0.10 | 0.25 ± 0.10 (0.03) | 2 s |" in lines
    assert "| maml | 50.0 ± 10.0 % | 0.01 | 2 s |" in lines


def test_series_are_read_whatever_their_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the form that the package has, which need not be there."""
    folder = tmp_path / "datasets" / "data" / "JapaneseVowels"
    folder.mkdir(parents=True)
    (folder / "JapaneseVowels_TRAIN.ts").write_text("#who\n@dimensions 2\n@data\n1,2,3:4,5,6:2\n\n")
    (folder / "JapaneseVowels_TEST.ts").write_text("@data\n7:8:1\n")
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(data.importlib.util, "find_spec", lambda name: spec)
    x, y = data.japanese_vowels.__wrapped__()
    assert x.tolist() == [[[1, 2, 3], [4, 5, 6]], [[7, 0, 0], [8, 0, 0]]]
    assert y.tolist() == [1, 0]
    monkeypatch.setattr(data.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match="pip install --no-deps aeon"):
        data.japanese_vowels.__wrapped__()


def test_networks_take_the_rows_of_their_question() -> None:
    for few, shape in ((meta.FEW["digits"], (1, 14, 14)), (meta.FEW["voices"], (12, 29))):
        model = few.network(few.ways)
        assert isinstance(model[few.head], torch.nn.Linear)
        assert model(torch.zeros(3, *shape)).shape == (3, few.ways)
