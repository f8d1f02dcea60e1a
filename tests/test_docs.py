"""The site's generated pages; the site itself where its generator is installed (`make docs`)."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from html import unescape
from pathlib import Path

import numpy as np
import pytest

from resonance_theory.evidence.claims import ledger
from resonance_theory.evidence.pages import gallery

ROOT = Path(__file__).resolve().parents[1]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def build():
    spec = importlib.util.spec_from_file_location("docs_build", ROOT / "docs" / "build.py")
    found = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = found  # its dataclass looks itself up
    spec.loader.exec_module(found)
    return found


@pytest.fixture(scope="module")
def pages(build):
    return build.pages()


def test_every_claim_has_a_page_with_its_parts(pages):
    ids = ledger.claim_ids()
    for claim in map(ledger.load, ids):
        page = pages[f"theory/{claim.id}.md"]
        parts = [claim.title, claim.expected.value, f"resonance verify {claim.id}", *claim.formal]
        parts += [
            line.strip()
            for line in (ROOT / "proofs" / claim.topic / f"{claim.id}.py").read_text(encoding="utf-8").splitlines()
        ]
        parts += [f"{c.kind}: " for c in claim.checks]
        assert not [part for part in parts if part not in page], claim.id
        assert page.count("??? abstract") == len(claim.checks) + len(claim.simulations) + 1, claim.id
        assert f"({claim.id}.md)" in pages["theory/index.md"]
    assert {path.split("/")[1] for path in pages if path.startswith("theory/")} == {f"{i}.md" for i in ids} | {
        "index.md",
        "tags.md",
    }


def test_evidence_of_a_run_is_shown_and_its_absence_said(build):
    claim = ledger.load("exchangeability_identity")
    assert "not run for this page" in build.claim_page(claim, None, [])
    run = claim.evaluate(alpha=1e-9).to_json()
    page = build.claim_page(claim, run, [])
    assert "not run for this page" not in page
    assert page.count('<b class="holds">holds</b>') == len(run["checks"])
    failed = {**run, "verdict": "VIOLATED", "problem": "a check fails"}
    page = build.claim_page(claim, failed, [])
    assert "VIOLATED" in page
    assert "PROVED<" not in page
    assert "a check fails" in page


def test_a_record_of_another_version_of_the_claim_is_not_shown(build):
    claim = ledger.load("exchangeability_identity")
    run = claim.evaluate(alpha=1e-9).to_json()
    assert build.still_valid(claim, run)
    assert not build.still_valid(claim, None)
    for change in ({"statement": "1 = 1"}, {"proof": ""}, {"checks": run["checks"][1:]}):
        assert not build.still_valid(claim, run | change)


def test_every_public_name_is_in_the_reference(build, pages):
    for name, path in build.modules().items():
        module = importlib.import_module(path)
        homes = getattr(
            module, "_NAMES", {}
        )  # of names that load on first use, which the reference finds where they are
        for public in getattr(module, "__all__", []):
            assert f"::: {homes.get(public, path)}.{public}\n" in pages[f"api/{name}.md"], f"{name}.{public}"


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium, which resolves the colours as a reader's browser does")
@pytest.mark.parametrize("scheme", ["default", "slate"])
def test_statements_and_proofs_are_readable_in_light_and_dark(scheme, tmp_path):
    """Contrast of at least 4.5 to 1 (WCAG AA) of the text of claims on its tint, in the theme's colours."""
    theme = """[data-md-color-scheme=default] { --md-default-bg-color:#fff; --md-code-bg-color:#f5f5f5;
        --md-typeset-color:#000000de; }
      [data-md-color-scheme=slate] { --md-default-bg-color:#1e2129; --md-code-bg-color:#272a35; --md-typeset-color:#e2e4e9; }
      :root { --md-code-bg-color:#f5f5f5; --md-typeset-color:#000000de; }
      body { background:var(--md-default-bg-color); color:var(--md-typeset-color); }"""
    styles = theme + "".join(
        (ROOT / file).read_text() for file in ("resonance_theory/data/claim.css", "docs/assets/site.css")
    )
    script = """const of = e => { const s = getComputedStyle(e); return [s.color, s.backgroundColor]; };
      document.title = JSON.stringify([...document.querySelectorAll(".statement, .proof pre")].map(of));"""
    body = '<div class="claim-body"><div class="statement">x</div><div class="proof"><pre>y</pre></div></div>'
    page = tmp_path / "page.html"
    page.write_text(
        f"<style>{styles}</style><body data-md-color-scheme={scheme} class=md-typeset>{body}<script>{script}</script>"
    )
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    done = subprocess.run([*command, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=60)
    pairs = json.loads(unescape(re.search("<title>(.*?)</title>", done.stdout)[1]))
    assert len(pairs) == 2
    for pair in pairs:
        light, dark = sorted(map(luminance, pair), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, pair


def luminance(colour):
    """Relative luminance of an opaque CSS colour; a translucent one counts as its opaque self."""
    channels = [float(v) / 255 for v in re.findall(r"[\d.]+", colour)[:3]]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in channels]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def test_links_of_the_checkout_become_links_of_the_site(build):
    text = "[all](proofs) [a](proofs/geometry/cap_law.py) [b](../proofs/exact_laws/loads.py) [c](docs/faq.md) [d](https://example.org/docs/)"
    assert (
        build.site_links(text)
        == "[all](theory/index.md) [a](theory/cap_law.md) [b](theory/loads.md) [c](faq.md) [d](https://example.org/docs/)"
    )


def test_results_and_tour_have_their_pages(build, pages):
    for file in (ROOT / "simulations" / "findings").glob("*.md"):
        page = pages[f"results/{file.stem}.md"]
        assert file.read_text(encoding="utf-8").rstrip().splitlines()[-1] in page
        assert f"({file.stem}.md)" in pages["results/index.md"]
        if (ROOT / "paper_figures" / f"{file.stem}.py").exists():
            assert f"](../figures/{file.stem}.svg)" in page
    assert "](figures/router_speed.svg)" in pages["figures.md"]
    assert "```text\nhit rate 0." in pages["tour.md"]
    text = "[a](findings/x.md) [b](../../proofs/geometry/cap_law.py) [c](../results/x.jsonl) [d](https://example.org)"
    assert build.result_links(text) == "[a](x.md) [b](../theory/cap_law.md) c [d](https://example.org)"


def test_formulas(build):
    html = build.formulas(r'a <span class="arithmatex">\(x&lt;\frac{1}{2}\)</span> <div class="arithmatex">\[y\]</div>')
    assert html.count("<math") == 2
    assert "<mfrac>" in html
    assert 'display="block"' in html
    assert "arithmatex" not in html


def test_figures_stand_beside_the_finding_that_draws_them(build, pages):
    findings = {finding.name: finding for finding in build.findings()}
    assert len(findings) >= 2
    assert set(findings) == {file.stem for file in build.FINDINGS.glob("*.md")}
    for name in gallery.names():
        _, caption, data = gallery.about(name)
        assert caption in pages["figures.md"]
        for study in {Path(file).stem for file in data} & set(findings):
            assert caption in pages[f"results/{study}.md"]
    for name in build.schemas():
        assert f"(schemas/{name}.json)" in pages["records.md"]


def test_pages_of_systems_show_the_figures_that_they_name(build):
    assert build.drawn("a\n\n`resonance figures x_y` draws it. b") == (
        "a\n\n![The figure x_y](../figures/x_y.svg)\n\n`resonance figures x_y` draws it. b"
    )
    for path in (ROOT / "docs" / "systems").glob("*.md"):
        text = path.read_text(encoding="utf-8")
        named = re.findall(r"`resonance figures (\w+)`", text)
        assert set(named) <= set(gallery.names())
        assert build.drawn(text).count("](../figures/") == len(named)


def test_site(tmp_path):
    """Strict: a broken link or an unknown name fails the build; and nothing is fetched when a page is read."""
    pytest.importorskip("mkdocs", reason="the site's generator comes with `make docs`")
    pytest.importorskip("mkdocstrings")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    html = {path: path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.html")}
    assert len(html) > len(ledger.claim_ids())
    for path, text in html.items():
        assert not re.search(r'<(?:script|link|img|iframe)[^>]+(?:src|href)="(?:https?:)?//', text), path
        assert "arithmatex" not in text, path
    start = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert 'href="tour.html"' in start
    assert 'href="results/index.html"' in start
    assert (tmp_path / "figures" / "router_speed.svg").exists()
    assert json.loads((tmp_path / "schemas" / "ledger.json").read_text())["$id"] == "ledger.json"
    assert 'href="theory/index.html"' in start  # and from there two clicks to any claim's proof and code
    listed = (tmp_path / "theory" / "index.html").read_text(encoding="utf-8")
    assert not [
        i
        for i in ledger.claim_ids()
        if f'href="{i}.html"' not in listed or not (tmp_path / "theory" / f"{i}.html").exists()
    ]
