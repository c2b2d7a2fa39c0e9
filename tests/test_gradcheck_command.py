"""The exit code of `gradcheck`, which ports and CI rely on."""

import json

import pytest

from lora_np import reference
from lora_np.cli import main
from lora_np.reference import Row


@pytest.mark.parametrize("error, code", [(1e-9, 0), (2e-7, 1)])
def test_the_exit_code_says_whether_a_row_fails(error, code, tmp_path, monkeypatch, capsys):
    rows = [Row("gelu", "x", seed, 1e-9 if seed else error, 60) for seed in (0, 1)]
    monkeypatch.setattr(reference, "gradcheck", lambda: rows)
    assert main(["gradcheck", "--json", str(tmp_path / "rows.json")]) == code
    assert f"{2 - code} of 2 rows have an error of at most 1e-07" in capsys.readouterr().out
    assert [row["passed"] for row in json.loads((tmp_path / "rows.json").read_text("utf-8"))] == [code == 0, True]
