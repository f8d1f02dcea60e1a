"""The HTML report in a real browser: no errors, links and filters that work, readable on a phone, complete on paper."""

import json
import re
import shutil
import subprocess
from html import unescape
from html.parser import HTMLParser

import pytest

from resonance_theory.evidence.claims import coverage, ledger
from resonance_theory.evidence.claims.record import record_of
from resonance_theory.evidence.pages import markup, report, results
from resonance_theory.evidence.studies.study import studies

IDS = ["cluster_timings", "exchangeability_identity", "token_choice_published"]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
browser = pytest.mark.skipif(
    CHROMIUM is None, reason="needs chromium, the only part that looks at the page as a reader does"
)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    book = ledger.verify(IDS)
    record = record_of(book, 1.0)
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
@pytest.mark.parametrize("name", [name for name, _ in report.PAGES])
def test_a_phone_shows_everything_without_sideways_scrolling(page, tmp_path, name):
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
    said, console = look(page.with_name(name), tmp_path, script)
    assert console == []
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


def test_claims_lead_to_the_studies_that_test_them(page):
    html = page.read_text(encoding="utf-8")
    known = set(studies())
    findings = {file.stem for file in (ledger.folder("simulations") / "findings").glob("*.md")}
    named = {(claim.id, name) for claim in map(ledger.load, ledger.claim_ids()) for name in claim.studies}
    assert {name for _, name in named} <= known
    # every training study bears on a claim; Chen et al.'s only checks the training code
    assert findings - {name for _, name in named} == {"chen_mixture"}
    training = page.with_name("training.html").read_text(encoding="utf-8")
    shown = [(claim_id, name) for claim_id, name in named if claim_id in IDS]
    assert shown
    for claim_id, name in shown:
        card = re.search(rf'<details[^>]* id="{claim_id}".*?</details>', html, re.S)[0]
        assert (f'href="training.html#{name}"' if name in findings else f"resonance simulate {name}") in card
        assert name not in findings or f'<section id="{name}">' in training


# --- training results, speed and figures ---------------------------------------------------------------------------


def plain(html):
    return re.sub(r"\s+", " ", unescape(re.sub(r"<svg.*?</svg>|<math.*?</math>|<[^>]+>", "", html, flags=re.S)))


def test_every_finding_is_on_its_page_with_its_figures(page):
    html = page.with_name("training.html").read_text(encoding="utf-8")
    files = sorted((ledger.folder("simulations") / "findings").glob("*.md"))
    assert len(files) >= 2
    for file in files:
        section = re.search(rf'<section id="{file.stem}">(.*?)</section>', html, re.S)[1]
        text = plain(section).replace("*", "")
        for line in file.read_text(encoding="utf-8").splitlines()[1:]:
            for cell in re.split(r"\||\$[^$]+\$|\[|\]\([^)]+\)|\]", re.sub(r"^[-#]+ |[`*\\]", "", line)):
                assert set(cell) <= set("-: ") or re.sub(r"\s+", " ", cell).strip() in text, (file.stem, cell)
        drawn = [f for f in results.figures() if f"{file.stem}.jsonl" in f.data]
        assert section.count("<svg") == len(drawn)
        assert all(figure.caption in text for figure in drawn)


def test_every_other_figure_and_the_benchmark_are_on_theirs(page):
    html, training = (page.with_name(f"{name}.html").read_text(encoding="utf-8") for name in ("figures", "training"))
    text = plain(html)
    for figure in results.figures():
        assert (figure.caption in text) != (figure.caption in plain(training)), figure.name
    table = re.search(r'<table class="speed">(.*?)</table>', html, re.S)[1]
    runs = json.loads((ledger.folder("simulations") / "results/router_benchmark.json").read_text())["runs"]
    assert table.count("<tr>") == 1 + len(runs[0]["A"]["routers"])
    slowest = max(run["C"]["routers"]["Switch router (transformers)"]["ratio"] for run in runs)
    assert f" to {slowest:.2f})" in table.split("Switch")[1]


def test_every_picture_has_a_name_or_is_decoration(page):
    """For screen readers: an SVG is one picture with a name, or hidden."""
    for name in ("index.html", "training.html", "figures.html"):
        pictures = re.findall(r"<svg[^>]*>", page.with_name(name).read_text(encoding="utf-8"))
        assert pictures
        for picture in pictures:
            assert 'aria-hidden="true"' in picture or re.search(r'role="img" aria-label="[^"]', picture), picture


def test_the_pages_load_nothing_and_their_links_lead_somewhere(page):
    html = {name: page.with_name(name).read_text(encoding="utf-8") for name, _ in report.PAGES}
    anchors = {name: set(re.findall(r'\bid="([^"]+)"', text)) for name, text in html.items()}
    for name, text in html.items():
        assert not re.search(r'<(?:script|link|img|iframe)[^>]+(?:src|href)="(?!data:)', text), name
        assert text.count("aria-current") == 2  # the page in its list of pages, and the style of it
        ids = re.findall(r'\bid="([^"]+)"', text)
        assert len(ids) == len(set(ids)), name
        for address in re.findall(r'<a href="([^"]+)"', text):
            file, _, anchor = address.partition("#")
            assert (file or name) in html, address
            assert not anchor or anchor in anchors[file or name], address


def test_an_installation_without_the_folders_says_so_in_one_sentence(page, tmp_path, monkeypatch):
    def absent(name):
        raise FileNotFoundError(name)

    monkeypatch.setattr(results, "folder", absent)
    record = report.read(page.with_name("ledger.json"))
    index = report.write(record, tmp_path)
    assert IDS[0] in index.read_text(encoding="utf-8")
    for name in ("training.html", "figures.html"):
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert text.count(f"<p>{report.ABSENT}</p>") == 1
        assert "<svg" not in text


def test_a_figure_without_its_data_is_missed_in_one_sentence(page, tmp_path, monkeypatch):
    def unreadable(name):
        raise ValueError("stored result x.json cannot be read")

    monkeypatch.setattr(results, "_svg", unreadable)
    report.write(report.read(page.with_name("ledger.json")), tmp_path)
    text = (tmp_path / "figures.html").read_text(encoding="utf-8")
    sentence = "This figure could not be drawn: stored result x.json cannot be read"
    training = (tmp_path / "training.html").read_text(encoding="utf-8")
    assert text.count(sentence) + training.count(sentence) == len(results.figures())


def test_markdown():
    link = {"cap_law": "#cap_law"}.get
    page = {"a.md": "#a"}.get
    text = (
        "## Cap_law & *x*\n\ncap_law, `cap_law`, [cap_law](a.md), [gone](b.md), <i> $x_1*y*$ `$`\n\n| a |\n|---|\n| 1 |"
    )
    html = markup.markdown(text, link, page)
    assert "<h3>Cap_law &amp; <em>x</em></h3>" in html
    assert html.count('<a href="#cap_law">cap_law</a>') == 2
    assert '<a href="#a">cap_law</a>, gone, &lt;i&gt; <math' in html
    assert "<code>$</code>" in html
    assert '<div class="scroll"><table>' in html


def test_markup():
    link = {"cap_law": "#cap_law"}.get
    assert markup.rich_text("see cap_law & no_claim, `a < b`", link) == (
        'see <a href="#cap_law">cap_law</a> &amp; no_claim, <code>a &lt; b</code>'
    )
    assert "<mfrac>" in markup.rich_text(r"half is $\frac{1}{2}$.")
    text = "N1. First\nflows.\n\nThen\n    a  <= b\n    c\nso.\n1. one\n   more\n2. two\n- last"
    assert markup.proof(text).splitlines() == [
        '<p class="prose">N1. First flows.</p>',
        '<p class="prose">Then</p>',
        "<pre>a  ≤ b",
        "c</pre>",
        '<p class="prose">so.</p>',
        '<p class="step">1. one more</p>',
        '<p class="step">2. two</p>',
        '<p class="step">- last</p>',
    ]
