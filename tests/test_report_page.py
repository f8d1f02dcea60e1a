"""The HTML report in a real browser: no errors, links and filters that work, readable on a phone, complete on paper."""

import json
import re
import shutil
import subprocess
from html import unescape
from html.parser import HTMLParser

import pytest

from resonance_theory import _markup, report
from resonance_theory.cli import report_record
from resonance_theory.verification import coverage, ledger

IDS = ["cluster_timings", "exchangeability_identity", "token_choice_published"]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
browser = pytest.mark.skipif(
    CHROMIUM is None, reason="needs chromium, the only part that looks at the page as a reader does"
)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    book = ledger.verify(IDS)
    record = report_record(book, 1.0)
    record["published"] = coverage.records([ledger.load(i) for i in IDS])
    return report.write(record, tmp_path_factory.mktemp("report"))


def look(page, tmp_path, script="", flags=()):
    """Open the page with a script of ours at its end; returns what it put in `said`, and the console's lines."""
    copy = tmp_path / "page.html"
    ours = (
        "<script>addEventListener('load', () => setTimeout(async () => { const said = {}; const pause = () => "
        "new Promise(done => setTimeout(done, 30));" + script + "\nconst out = document.createElement('output');"
        "out.id = 'said'; out.textContent = JSON.stringify(said); document.body.append(out); }, 50));</script>"
    )
    copy.write_text(page.read_text(encoding="utf-8").replace("</body>", ours + "</body>"), encoding="utf-8")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--virtual-time-budget=8000"]
    command += [*flags, "--dump-dom", copy.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    said = re.search(r'<output id="said">(.*?)</output>', done.stdout, re.S)
    assert said, done.stderr[-2000:]
    return json.loads(unescape(said[1])), [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@browser
def test_an_error_on_the_console_would_be_seen(page, tmp_path):
    _, lines = look(page, tmp_path, "console.error('seen');")
    assert any("seen" in line for line in lines)


@browser
def test_links_and_filters(page, tmp_path):
    script = """
    const shown = () => claims.filter(c => c.offsetParent !== null).map(c => c.id).sort();
    said.all = shown();
    buttons.find(b => b.dataset.verdict === "PROVED").click(); said.proved = shown();
    said.links = 0; said.broken = [];
    for (const link of document.querySelectorAll("a[href^='#']")) {   // while most claims are filtered away
      for (const claim of claims) claim.open = false;
      buttons.find(b => b.dataset.verdict === "PROVED").click();
      location.hash = ""; await pause(); link.click(); await pause();
      const target = document.getElementById(link.hash.slice(1)); said.links++;
      if (!target || !target.open || target.offsetParent === null) said.broken.push(link.hash);
    }
    buttons[0].click();
    find.value = "telescop no-such-word"; find.dispatchEvent(new Event("input")); said.none = shown();
    find.value = "POISSON strip"; find.dispatchEvent(new Event("input")); said.found = shown();
    """
    said, console = look(page, tmp_path, script)
    assert console == []
    assert said["all"] == IDS
    assert said["proved"] == ["exchangeability_identity"]
    assert said["links"] >= 2 * len(IDS)
    assert said["broken"] == []
    assert said["none"] == []
    assert said["found"] == ["token_choice_published"]


@browser
def test_a_phone_shows_everything_without_sideways_scrolling(page, tmp_path):
    # a frame of a phone's width, since a browser window may not get that narrow
    script = """
    const frame = document.createElement("iframe"); frame.style.border = 0; frame.width = 420; frame.height = 900;
    frame.srcdoc = document.documentElement.outerHTML.replace(/<script>addEventListener\\('load'[^]*$/, "");
    document.body.append(frame); await new Promise(done => frame.onload = done);
    const inner = frame.contentDocument; for (const claim of inner.querySelectorAll("details.claim")) claim.open = true;
    said.width = frame.contentWindow.innerWidth; said.scroll = inner.documentElement.scrollWidth;
    const size = element => parseFloat(frame.contentWindow.getComputedStyle(element).fontSize);
    said.small = [...inner.querySelectorAll("body *")].filter(e => !e.childElementCount && e.textContent.trim() && size(e) < 10.5)
      .filter(e => !e.closest("math, figure, script, style, title")).map(e => e.textContent);
    """
    said, _ = look(page, tmp_path, script)
    assert said["width"] == 420
    assert said["scroll"] <= 420
    assert said["small"] == []


@browser
def test_paper_shows_every_claim_open(page, tmp_path):
    script = """
    const open = () => claims.filter(claim => claim.open).length;
    said.before = open(); dispatchEvent(new Event("beforeprint")); said.print = open();
    dispatchEvent(new Event("afterprint")); said.after = open();
    """
    assert look(page, tmp_path, script)[0] == {"before": 0, "print": len(IDS), "after": 0}


class Cards(HTMLParser):
    """The text of each claim's card, by its anchor."""

    def __init__(self, text):
        super().__init__()
        self.cards, self.current = {}, None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag == "details":
            self.current = dict(attributes)["id"]
            self.cards[self.current] = ""

    def handle_endtag(self, tag):
        if tag == "details":
            self.current = None

    def handle_data(self, data):
        if self.current:
            self.cards[self.current] += data


def test_a_card_tells_the_whole_story(page):
    cards = Cards(page.read_text(encoding="utf-8")).cards
    assert sorted(cards) == IDS
    for claim in map(ledger.load, IDS):
        card = re.sub(r"\s+", " ", cards[claim.id])
        pieces = [claim.title, claim.source, *claim.formal, claim.mutation, *(c.name for c in claim.checks)]
        pieces += [re.split(r"[$`<>=]|->", line)[0].strip() for line in claim.proof.splitlines()]
        pieces += [f"resonance verify {claim.id}", f"proofs/{claim.id}.py", claim.reason.split("$")[0]]
        missing = [p for p in pieces if re.sub(r"\s+", " ", p) not in card]
        assert not missing, claim.id


def test_markup():
    link = {"cap_law": "#cap_law"}.get
    assert _markup.rich_text("see cap_law & no_claim, `a < b`", link) == (
        'see <a href="#cap_law">cap_law</a> &amp; no_claim, <code>a &lt; b</code>'
    )
    assert "<mfrac>" in _markup.rich_text(r"half is $\frac{1}{2}$.")
    text = "N1. First\nflows.\n\nThen\n    a  <= b\n    c\nso.\n1. one\n   more\n2. two\n- last"
    assert _markup.proof(text).splitlines() == [
        '<p class="prose">N1. First flows.</p>',
        '<p class="prose">Then</p>',
        "<pre>a  ≤ b",
        "c</pre>",
        '<p class="prose">so.</p>',
        '<p class="step">1. one more</p>',
        '<p class="step">2. two</p>',
        '<p class="step">- last</p>',
    ]
