"""The HTML report in a real browser: no errors, links and filters that work, readable on a phone, complete on paper."""

import copy
import json
import os
import re
import shutil
import subprocess
from html import unescape
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from resonance_theory.cli import main
from resonance_theory.evidence.claims import coverage, ledger
from resonance_theory.evidence.claims.record import record_of
from resonance_theory.evidence.pages import gallery, markup, report
from resonance_theory.evidence.studies.study import studies
from resonance_theory.provenance import provenance

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
    command += ["--disable-ipc-flooding-protection"]  # links are followed faster than a reader would
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
      const target = document.getElementById(link.getAttribute("href").slice(1)); said.links++;
      location.hash = ""; await pause();
      link.dispatchEvent(new MouseEvent("click", {bubbles: true, cancelable: true})); await pause();
      if (!target || target.offsetParent === null || target.open === false) said.broken.push(link.outerHTML);
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
def test_filters_scroll_count_and_live_in_the_address(page, tmp_path):
    script = """
    const top = () => document.getElementById("ledger").getBoundingClientRect().top;
    buttons.find(b => b.dataset.verdict === "PROVED").click(); await pause();
    said.hash = location.hash; said.near = Math.abs(top()) < 120; said.count = shown.textContent; said.clear = clear.hidden;
    find.value = "zzzz"; find.dispatchEvent(new Event("input")); await pause();
    said.both = location.hash; said.empty = shown.textContent;
    clear.click(); await pause(); said.all = shown.textContent; said.plain = location.hash;
    said.cleared = clear.hidden && find.value === "";
    location.hash = "verdict=PROVED&find=no+such"; await pause(); said.back = [pressed().dataset.verdict, find.value];
    location.hash = "verdict=NONSENSE"; await pause(); said.unknown = shown.textContent;
    """
    said, console = look(page, tmp_path, script)
    assert console == []
    assert said == {
        "hash": "#verdict=PROVED",
        "near": True,
        "count": "1 of 3 shown",
        "clear": False,
        "both": "#verdict=PROVED&find=zzzz",
        "empty": "no claim matches",
        "all": "3 of 3 shown",
        "plain": "#ledger",
        "cleared": True,
        "back": ["PROVED", "no such"],
        "unknown": "3 of 3 shown",
    }


@browser
@pytest.mark.parametrize("width", [390, 1280])
def test_no_verdict_overprints_a_title(page, tmp_path, width):
    script = """
    said.over = claims.filter(claim => {
      const [verdict, title] = claim.querySelector("summary").children, range = document.createRange();
      range.selectNodeContents(verdict);
      const a = range.getBoundingClientRect(), b = title.getBoundingClientRect();
      return a.right > b.left && a.bottom > b.top && a.left < b.right && a.top < b.bottom;
    }).map(claim => claim.id);
    """
    assert look(page, tmp_path, script, [f"--window-size={width},900"])[0]["over"] == []


@browser
def test_a_phone_shows_everything_without_sideways_scrolling(page, tmp_path):
    # a frame of a phone's width, since a browser window may not get that narrow
    script = """
    const frame = document.createElement("iframe"); frame.style.border = 0; frame.width = 390; frame.height = 900;
    frame.srcdoc = document.documentElement.outerHTML.replace(/<script>addEventListener\\('load'[^]*$/, "");
    document.body.append(frame); await new Promise(done => frame.onload = done);
    const inner = frame.contentDocument; for (const claim of inner.querySelectorAll("details.claim")) claim.open = true;
    said.width = frame.contentWindow.innerWidth; said.scroll = inner.documentElement.scrollWidth;
    const size = element => parseFloat(frame.contentWindow.getComputedStyle(element).fontSize);
    said.small = [...inner.querySelectorAll("body *")].filter(e => !e.childElementCount && e.textContent.trim() && size(e) < 10.5)
      .filter(e => !e.closest("math, figure, script, style, title")).map(e => e.textContent);
    """
    said, console = look(page, tmp_path, script)
    assert console == []
    assert said["width"] == 390
    assert said["scroll"] <= 390
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
        pieces += [f"resonance verify {claim.id}", f"proofs/{claim.topic}/{claim.id}.py", claim.reason.split("$")[0]]
        missing = [p for p in pieces if re.sub(r"\s+", " ", p) not in card]
        assert not missing, claim.id


def test_claims_lead_to_the_studies_that_test_them(page, tmp_path):
    known = set(studies())
    findings = {file.stem for file in (ledger.folder("simulations") / "findings").glob("*.md")}
    named = {(claim.id, name) for claim in map(ledger.load, ledger.claim_ids()) for name in claim.studies}
    assert {name for _, name in named} <= known
    # every training study bears on a claim; Chen et al.'s only checks the training code
    assert findings - {name for _, name in named} == {"chen_mixture"}
    shown = [(claim_id, name) for claim_id, name in named if claim_id in IDS and name in findings]
    assert shown
    (tmp_path / "docs" / "results").mkdir(parents=True)  # the site that `make docs` writes beside the report
    for file in ("index.html", *(f"results/{name}.html" for name in findings)):
        (tmp_path / "docs" / file).touch()
    beside = report.write(report.read(page.with_name("ledger.json")), tmp_path / "report")
    for claim_id, name in shown:
        cards = [
            re.search(rf'<details[^>]* id="{claim_id}".*?</details>', p.read_text(encoding="utf-8"), re.S)[0]
            for p in (page, beside)
        ]
        assert f"resonance simulate {name}" in cards[0]
        assert f'href="../docs/results/{name}.html"' in cards[1]
    assert 'href="../docs/figures.html"' in beside.read_text(encoding="utf-8")
    assert "../docs" not in page.read_text(encoding="utf-8")


def test_every_picture_has_a_name_or_is_decoration(page):
    """For screen readers: an SVG is one picture with a name, or hidden."""
    pictures = re.findall(r"<svg[^>]*>", page.read_text(encoding="utf-8"))
    assert len(pictures) > 3
    for picture in pictures:
        assert 'aria-hidden="true"' in picture or re.search(r'role="img" aria-label="[^"]', picture), picture


def test_the_page_loads_nothing_and_its_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    assert not re.search(r'<(?:script|link|img|iframe)[^>]+(?:src|href)="(?!data:)', text)
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    links = re.findall(r'<a href="([^"]+)"', text)
    assert len(links) > len(IDS)
    inside = [link for link in links if link != "explorer.html"]
    assert {link[0] for link in inside} == {"#"}
    assert {link[1:] for link in inside} <= set(ids)
    assert (page.parent / "explorer.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_an_installation_without_the_folders_has_its_ledger(page, tmp_path, monkeypatch):
    def absent(name):
        raise FileNotFoundError(name)

    record = report.read(page.with_name("ledger.json"))
    monkeypatch.setattr(gallery, "folder", absent)
    text = report.write(record, tmp_path).read_text(encoding="utf-8")
    assert f'id="{IDS[0]}"' in text
    assert "<figure>" not in text


def test_a_figure_without_its_data_is_missed_in_one_sentence(page, tmp_path, monkeypatch):
    def unreadable(name):
        raise ValueError("stored result x.json cannot be read")

    monkeypatch.setattr(gallery, "svg", unreadable)
    text = report.write(report.read(page.with_name("ledger.json")), tmp_path).read_text(encoding="utf-8")
    assert text.count("This figure could not be drawn: stored result x.json cannot be read") == 1


def test_rates_that_any_rate_meets_come_last_and_are_counted_apart(tmp_path):
    book = ledger.verify(["capacity_law_token_choice"])
    rows = [row for check in book.results[0]["checks"] for row in check["rows"]]
    idle = sum(map(report.vacuous, rows))
    assert 0 < idle < len(rows)
    text = report.write(record_of(book, 1.0), tmp_path).read_text(encoding="utf-8")
    assert f"{idle} of them met by any rate" in text
    last = text.rindex("<circle", 0, text.index("distance from the law"))
    assert "any rate meets this" in text[text.rindex('<div class="row">', 0, last) : last]


# --- records from elsewhere -----------------------------------------------------------------------------------------

HOSTILE = [
    "<script>boom()</script>",
    r"$\text{<script>boom()</script>}$",
    r"$\text{&lt;script&gt;boom()&lt;/script&gt;}$",
    r"$\href{javascript:boom()}{x}$",
    r"$\style{background:url(javascript:boom())}{x}$",
    r"$\class{boom}{x} \color{\"><script>boom()</script>}{y}$",
    "`<img src=x onerror=boom()>`",
    "[x](javascript:boom()) ![x](javascript:boom())",
    '"><svg onload=boom()>',
    "``` <script>boom()</script> $<script>boom()</script>",
]


class Elements(HTMLParser):
    """Every tag with its attributes, and the text outside them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


def fields(value, path=()):
    """Paths of all texts of a record."""
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from fields(entry, (*path, key))
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            yield from fields(entry, (*path, index))
    elif isinstance(value, str):
        yield path


def put(record, path, value):
    for key in path[:-1]:
        record = record[key]
    record[path[-1]] = value


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_of_a_record_becomes_markup(page, tmp_path, text, monkeypatch):
    monkeypatch.setattr(report, "_bounds", str)  # without the figure, whose styles are its own
    record = report.read(page.with_name("ledger.json"))
    record["audit"], record["audit_table"] = {"layers": []}, "table"
    changed = copy.deepcopy(record)
    for path in fields(record):
        if path[-1] not in ("format", "status", "relation", "time", "commit", "grade"):
            put(changed, path, text)
    (tmp_path / "l.json").write_text(json.dumps(changed))
    index = report.write(report.read(tmp_path / "l.json"), tmp_path / "r")
    html = index.read_text(encoding="utf-8")
    safe, found = Elements(page.read_text(encoding="utf-8")), Elements(html)
    assert [tag for tag, _ in found.tags].count("script") == [tag for tag, _ in safe.tags].count("script") == 1
    for tag, attributes in found.tags:
        assert tag not in ("img", "iframe", "object", "embed", "base", "form"), tag
        assert not [name for name in attributes if name.startswith("on") or name == "style"], attributes
        assert attributes.get("href", "#").startswith("#") or attributes["href"] == "explorer.html", attributes
    # what is no formula is read as it was written
    assert "$" in text or "`" in text or text in found.text
    markdown = (tmp_path / "r" / "ledger.md").read_text(encoding="utf-8")
    assert not re.search(r"<(?!/?code>)", markdown)
    assert "](javascript" not in re.sub(r"&#91;[^]]*\]\(", "", markdown)
    ElementTree.parse(tmp_path / "r" / "junit.xml")


WHOLE = "the whole file"


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("claims", 0, "statement"), r"$\frac{$", "must be LaTeX"),
        (("claims", 0, "statement"), r"$\left($", "must be LaTeX"),
        (("claims", 0, "statement"), "$" + "{" * 20000 + "}" * 20000 + "$", "must be LaTeX"),
        (("claims", 0, "proof"), r"$\newcommand{\a}{\a\a}\a$", "must not define macros"),
        (("claims", 0, "title"), "a\x00b", "U+0000"),
        (("claims", 0, "title"), "a\ud800b", "U+D800"),
        (("claims", 0, "title"), ["a"], "$.claims[0].title: ['a'] is not of type 'string'"),
        (("claims", 0, "seconds"), float("nan"), "NaN is not finite"),
        (("seconds",), float("inf"), "Infinity is not finite"),
        (("packages",), [1], "$.packages: [1] is not of type 'object'"),
        (("packages",), {"numpy": 2}, "$.packages.numpy"),
        (("claims", 0, "checks"), {}, "$.claims[0].checks"),
        (("claims", 0), "claim", "$.claims[0]"),
        (("published",), [{"paper": "ETR"}], "required property"),
        (WHOLE, "[" * 100000, "nested"),
        (WHOLE, '{"a":' * 60 + "1" + "}" * 60, "nested"),
        (WHOLE, '{"format": "resonance-theory ledger 1", "seed": 1e999}', "1e999 is not finite"),
        (WHOLE, '{"seed": ' + "9" * 5000 + "}", "is not finite"),
    ],
)
def test_a_record_that_is_none_is_refused_in_one_sentence(page, tmp_path, path, value, words, capsys):
    file = tmp_path / "l.json"
    if path is WHOLE:
        file.write_text(value)
    else:
        record = json.loads(page.with_name("ledger.json").read_text())
        put(record, path, value)
        file.write_text(json.dumps(record))
    assert main(["report", str(file), str(tmp_path / "r")]) == 2
    out, err = capsys.readouterr()
    assert words in err
    assert len(err.splitlines()) == 1
    assert len(err) < 400
    assert out == ""
    assert not (tmp_path / "r").exists() or not list((tmp_path / "r").iterdir())


def test_a_record_must_be_a_file(tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe")
    for path in ("/dev/zero", tmp_path / "pipe", tmp_path):
        assert main(["report", str(path), str(tmp_path / "r")]) == 2
        assert "must be a file" in capsys.readouterr().err


def test_the_commit_is_shown(page, tmp_path):
    record = report.read(page.with_name("ledger.json"))
    made = {
        **provenance(),
        "commit": "0123456789abcdef" * 2 + "01234567",
        "dirty": True,
        "time": "2026-01-02T03:04:05Z",
    }
    text = report.write({**record, "provenance": made}, tmp_path).read_text(encoding="utf-8")
    assert "commit 0123456789ab with changes, 2026-01-02T03:04:05Z" in text
    assert report.read(tmp_path / "ledger.json")["provenance"] == made


def test_junit_is_xml_whatever_a_check_says(page, tmp_path):
    record = json.loads(page.with_name("ledger.json").read_text())
    claim = record["claims"][0]
    claim.update(passed=False, problem="\x1b[31mfailed\x00 \ud800")
    report.write({**record, "claims": [claim]}, tmp_path)
    failure = ElementTree.parse(tmp_path / "junit.xml").find(".//failure")
    assert failure.get("message") == "\ufffd[31mfailed\ufffd \ufffd"


def test_formulas():
    assert markup.mathml(r"C\ln n").count('<mspace width="0.167em" />') == 2
    assert "mspace" not in markup.mathml(r"(\ln(n))")
    assert "<mtext>&lt;b&gt;</mtext>" in markup.mathml(r"\text{<b>}")
    assert markup.mathml("x", "block").startswith('<math xmlns="http://www.w3.org/1998/Math/MathML" display="block">')


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
