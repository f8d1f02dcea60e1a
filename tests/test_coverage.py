"""Every quantitative statement of the two papers is named in the source of at least one claim."""

import json
import re

import pytest

from resonance_theory.cli import main
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.claims.coverage import Statement, coverage, published, records
from resonance_theory.evidence.claims.ledger import claim_ids, load
from resonance_theory.evidence.pages import report

STATEMENTS = published()


@pytest.fixture(scope="module")
def covered():
    return {(s.paper, s.place): [c.id for c in claims] for s, claims in coverage()}


@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda s: f"{s.paper} {s.place}")
def test_a_claim_names_it(statement, covered):
    assert covered[statement.paper, statement.place], f"no claim's source names one of {statement.names}"


def test_places_are_distinct_and_every_cited_equation_is_listed():
    assert len({(s.paper, s.place) for s in STATEMENTS}) == len(STATEMENTS)
    listed = {
        paper: " ".join(s.place + " " + " ".join(s.names) for s in STATEMENTS if s.paper == paper)
        for paper in ("ETR", "LocMoE")
    }
    for claim_id in claim_ids():
        for paper, cited in re.findall(
            r"(ETR|LocMoE) ((?:Theorem|Corollary|Remark|Lemma|eq\.) \d+)", load(claim_id).source
        ):
            assert re.search(re.escape(cited) + r"(?!\d)", listed[paper]), (
                f"{claim_id} cites {paper} {cited}, not listed"
            )


def test_the_coverage_test_can_fail():
    statement = Statement("ETR", "eq. 1", "a test", ("ETR eq. 1",))
    assert statement.cited("ETR eq. 1 (arXiv)")
    assert not statement.cited("ETR Theorem 5, eq. 11; ETR eq. 11")
    stranger = Claim(title="t", statement="s", source="new", kind="bound", expected=Verdict.PROVED)
    assert all(not claims for _, claims in coverage([stranger]))


def test_the_command_shows_it(capsys):
    assert main(["claims", "--published"]) == 0
    text = capsys.readouterr().out
    assert "ETR Theorem 5, eq. 11" in text
    assert "token_choice_published" in text
    assert main(["claims", "--published", "--json", "-"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert [(r["paper"], r["place"]) for r in record] == [(s.paper, s.place) for s in STATEMENTS]
    assert main(["claims", "--published", "corollary"]) == 0
    assert "corollary_6" in capsys.readouterr().out


def test_the_report_shows_it(tmp_path):
    result = load("locmoe_times").evaluate(alpha=1e-8).to_json()
    rows = [row for row in records() if row["claims"] == ["locmoe_times"]]
    assert rows
    record = {
        "format": report.FORMAT,
        "version": "0",
        "python": "3",
        "platform": "test",
        "packages": {},
        "full": False,
        "seed": 0,
        "false_alarm_budget": 1e-6,
        "seconds": 0.0,
        "passed": True,
        "claims": [result],
        "published": rows,
    }
    page = report.write(record, tmp_path).read_text()
    assert 'href="#locmoe_times"' in page
    assert rows[0]["text"] in page
    assert rows[0]["text"] in (tmp_path / "ledger.md").read_text()
    older = {key: value for key, value in record.items() if key != "published"}
    assert "Published statements" not in report.write(older, tmp_path).read_text()
