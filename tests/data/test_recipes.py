"""Recipes of the page about training data, run as written with the packages that they are for."""

from __future__ import annotations

import re

import pytest

from tests.helpers.token_shards import write

pytestmark = [
    pytest.mark.slow,  # for what it installs
    pytest.mark.filterwarnings("ignore"),
]
COUNTS = [7, 1, 12]


@pytest.mark.parametrize(
    ("heading", "package"), [("datasets", "datasets"), ("WebDataset", "webdataset"), ("Lhotse", "lhotse")], ids=lambda own: own
)
def test_a_recipe_gives_every_row(root, tmp_path, monkeypatch, heading, package):
    pytest.importorskip(package)
    write(tmp_path / "tokens", COUNTS, groups=6)
    write(tmp_path / "tars", COUNTS, groups=6, format="tar")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    [recipe] = re.findall(rf"### {heading}\n.*?```py\n(.*?)```", (root / "docs/training-data.md").read_text(), re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(recipe, heading, "exec"), names)
    batches = list(names["loader"])
    assert sorted(int(name) for batch in batches for name in batch.columns["id"]) == list(range(sum(COUNTS)))
    assert {batch.inputs.shape[1] for batch in batches} == {6 * 11 - 1}
