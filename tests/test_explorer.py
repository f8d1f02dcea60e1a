"""The explorer's own laws, in a real browser, against the package: a thousand random settings, to 1e-9."""

import json
import re
import shutil
import subprocess
from html import unescape

import numpy as np
import pytest

import resonance_theory as rt
from resonance_theory.evidence.pages import report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PAGE = (report.DATA / "explorer.html").read_text(encoding="utf-8")
PROBE = """<pre id="found"></pre><script>
document.getElementById("found").textContent = JSON.stringify(%s.map(v => {
  const x = settingsOf(v);
  return [...Object.values(RULES).map(rule => rule.success(x, v.capacity)), dropRate(x, v.capacity),
    ...Object.keys(RULES).map(rule => leastCapacity(rule, x, v.target * (rule === "expert" ? 1 : v.hit)))];
}));
</script>"""


def settings(count):
    rng = np.random.default_rng(4)
    for i in range(count):
        tokens, experts = int(2 ** rng.uniform(1, 12)), int(rng.integers(2, 65))
        top = int(rng.integers(1, min(experts, 8) + 1))
        mean = max(tokens * top / experts, 1)
        yield {
            "tokens": tokens,
            "experts": experts,
            "top": top,
            "capacity": int(np.clip(mean * rng.uniform(0.05, 2.5), 1, tokens)),
            "hit": float(rng.uniform(0.01, 1)),
            "percentile": float(rng.choice([0.01, 1.0, rng.uniform(0.01, 1)])),
            "falsePositive": float(rng.uniform(0.001, 0.5)),
            "correlation": float(rng.choice([0, 0, rng.uniform(0, 0.1), 0.1])) if i % 3 else 0.0,
            "target": float(rng.uniform(0.5, 0.99)),
        }


def in_browser(given, tmp_path):
    file = tmp_path / "explorer.html"
    file.write_text(PAGE.replace("</body>", PROBE % json.dumps(given) + "</body>"), encoding="utf-8")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=60000", "--dump-dom"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    found = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.S)
    assert found, done.stderr[-2000:]
    return json.loads(unescape(found[1]))


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_a_thousand_settings(tmp_path):
    given = list(settings(1000))
    rows = in_browser(given, tmp_path)
    assert len(rows) == 1000
    searched = 0
    for v, (token, resonance, expert, drop, *least) in zip(given, rows):
        s, c, share = v["tokens"], v["capacity"], v["top"] / v["experts"]
        counts = {"counts": rt.BetaBinomial(v["correlation"])} if v["correlation"] else {}
        rates = rt.Rates(
            experts=v["experts"], top=v["top"], hit=v["hit"], candidate_tail=share * v["percentile"], **counts
        )
        assert token == pytest.approx(float(rt.token_choice.success(s, c, rates)), rel=1e-9, abs=1e-12)
        assert resonance == pytest.approx(float(rt.resonance.success(s, c, rates)), rel=1e-9, abs=1e-9)
        alone = rt.Rates(experts=v["experts"], false_positive=v["falsePositive"])
        assert expert == pytest.approx(float(rt.expert_choice.success(s, c, alone)), rel=1e-9, abs=1e-9)
        assert drop == pytest.approx(float(rt.token_choice.drop_rate(s, c, rates)), rel=1e-9, abs=1e-12)
        for rule, all_of, goal, found in zip(
            (rt.token_choice, rt.resonance, rt.expert_choice),
            (rates, rates, alone),
            (v["hit"] * v["target"], v["hit"] * v["target"], v["target"]),
            least,
        ):
            searched += 1
            assert rule.success(s, found, all_of) >= goal - 1e-9
            assert found == 1 or rule.success(s, found - 1, all_of) < goal + 1e-9
    assert searched == 3000


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_the_comparison_can_fail(tmp_path):
    """One candidate more in the page's law of token choice: many settings differ."""
    given = list(settings(80))
    right = in_browser(given, tmp_path)
    wrong = PAGE.replace("Math.min(1, c / (n + 1))", "Math.min(1, c / (n + 2))")
    assert wrong != PAGE
    file = tmp_path / "wrong"
    file.mkdir()
    globals()["PAGE"], kept = wrong, PAGE
    try:
        moved = in_browser(given, file)
    finally:
        globals()["PAGE"] = kept
    assert sum(abs(a[0] - b[0]) > 1e-9 for a, b in zip(right, moved)) > 20


def test_nothing_is_loaded():
    assert not re.search(r'(src|href)="(?!#)', PAGE)
    assert "http" not in PAGE.replace("http-equiv", "")
