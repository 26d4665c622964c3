"""What became of a request after its first line: it was resumed, or rolled back."""

from pathlib import Path

from fedunlearn.lineage import Model
from tests.report.conftest import CLASSES, data, invented
from tests.report.reading import A, told


def test_what_an_earlier_line_edited_is_not_called_unchanged_when_the_rest_is_resumed(tmp_path: Path) -> None:
    models = [Model(n, "north", "incremental", CLASSES, (), data("a")) for n in ("first", "late")]
    family, line = invented(
        tmp_path,
        models,
        A,
        lambda r: {"status": "waiting" if r["name"] == "late" else "committed", "unmeasured": ["x"] * (r["name"] == "first")},
    )
    body = dict(line.body)
    facts = body["record"]["facts"]
    rows = [{**r, "status": "committed", "version_after": "f" * 64} for r in facts["models"] if r["name"] == "late"]
    record = {**body["record"], "facts": {**facts, "models": rows}}
    resumed = family.ledger.append("unlearned", {**body, "heads": {"late": "f" * 64}, "record": record, "resumes": line.number})
    plain, _ = told(family, resumed)
    found = {m["name"]: m for m in plain["models"]}
    assert (found["late"]["risk"], found["first"]["risk"]) == ("unknown", "doubtful")  # as its own line's record says
    assert found["first"]["findings"][0] == "Edited by ledger line 1 for this request, and that is in force."
    assert "each was edited and accepted by the gate" in plain["verdict"]["sentences"][0]
    assert "The version in force was not changed" not in str(plain)
    family.ledger.append(
        "rolled back", {"undoes": 2, "lifted": False, "request": "x", "heads": {"late": "0" * 64}, "reason": "by mistake"}
    )
    plain, read = told(family, resumed)
    assert {m["risk"] for m in plain["models"]} == {"open"}
    assert "because: by mistake" in "".join(read.text)
    assert plain["line"]["rolled_back"]["number"] == 3
