"""Pages: whole, inert, usable by keyboard, and drawn as meant in a real browser, light and dark."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import struct
import subprocess
import threading
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from hubrank import check
from hubrank.check.policy import Policy
from hubrank.ranking.zoo_map import Place, ZooMap
from hubrank.report.check_page import check_page
from hubrank.report.figures import HeatRow, heatmap_svg, map_svg
from hubrank.report.search_page import search_page
from hubrank.report.zoo_maps import map_of_check, map_of_search
from hubrank.types import Ranking, Scored, TargetRun, Verdict
from hubrank.zoo.store import Zoo
from tests.builders import BASE, make_source, random_signature
from tests.check.builders import HOSTILE, NOW, card, good_adapter, hostile_report, make_zoo
from tests.check.test_formats import Tags

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
in_a_browser = pytest.mark.skipif(BROWSER is None, reason="no chromium is installed")
PAPER = {"light": (0xFD, 0xFD, 0xFB), "dark": (0x15, 0x17, 0x1A)}
EVERYTHING = "".join(HOSTILE.values()) + "<script src=http://evil.example/x.js></script><img src=http://evil.example/x.png>"


def ranking(name: str = "org/one", signature=None) -> Ranking:
    """Two sources, one of which shares one layer alone."""
    first = Scored(1, make_source(name), 3.0, 2.5, 0.2, (0.1, 0.3), 1.0)
    second = Scored(2, make_source("org/two"), 1.0, -0.5, -0.05, (None, -0.05), 0.5, warnings=("compared on 50%",))
    target = TargetRun(f"data/{name}.jsonl", 24, "classification", 2, 75, 1.5, "cpu")
    return Ranking(
        base=BASE,
        base_folder=None,
        methods=("lora",),
        estimator="three-views",
        target=target,
        sources=5,
        compared=2,
        skipped={"other base": 2, name: 1},
        rows=(first, second),
        verdict=Verdict(relevant=True, why=f"the nearest is near {name}"),
        energy=0.4,
        notes=(name,),
        signature=signature,
    )


def drawn(name: str = "org/one") -> ZooMap:
    """Four points: two sources of the ranking, one more, and the target."""
    places = (Place(name, "t", 0.0, 0.5), Place("org/two", None, -0.5, -0.2), Place("org/three", name, 0.4, -0.6))
    return ZooMap(BASE, "lora", (*places, Place("t.jsonl", None, 0.1, 0.0, guest=True)), 0.3, 3)


def both(name: str, text: str) -> list[str]:
    """The two kinds of page."""
    made = {"command": f"hubrank search --target {text}", "versions": [("hubrank", text)]}
    return [search_page(ranking(name), drawn(name), **made), check_page(hostile_report(text), drawn(text), **made)]


def tags(document: str) -> list[tuple[str, dict[str, str | None]]]:
    parsed = Tags()
    parsed.feed(document)
    return parsed.tags


@pytest.mark.parametrize("document", both("org/one", "plain"), ids=["search", "check"])
def test_a_page_loads_nothing_and_can_be_used_by_keyboard(document):
    found = tags(document)
    style = re.search(r"<style>(.*?)</style>", document, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = next(a["content"] for tag, a in found if tag == "meta" and a.get("http-equiv") == "Content-Security-Policy")
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert not {"script", "img", "link", "iframe", "object", "embed", "form", "base", "use", "image"} & {
        tag for tag, _ in found
    }
    assert "url(" not in style
    assert "@import" not in style
    ids = [a["id"] for _, a in found if "id" in a]
    assert len(ids) == len(set(ids))
    links = [a["href"] for tag, a in found if tag == "a"]
    assert all(link.startswith("#") and link[1:] in ids for link in links)
    assert links[0] == "#content"
    scrolled = [a for _, a in found if a.get("class") == "scroll"]
    assert scrolled
    assert all(a["tabindex"] == "0" and a["aria-label"] and a["role"] == "region" for a in scrolled)
    assert {"nav", "main", "header", "footer", "h1"} <= {tag for tag, _ in found}
    assert all("aria-label" in a or a.get("aria-hidden") == "true" for tag, a in found if tag == "svg")


def test_a_search_page_has_all_that_is_promised():
    document = search_page(ranking(), drawn(), command="hubrank search -t 'a b.jsonl'", versions=[("numpy", "2.4.6")])
    for anchor in ("ranking", "layers", "map", "skipped", "made"):
        assert f'<section id="{anchor}"' in document
    for text in ("hubrank search -t &#x27;a b.jsonl&#x27;", "numpy", "2.4.6", "other base", "compared on 50%", "PeftModel"):
        assert text in document
    assert '<section id="map"' not in search_page(ranking(), None, command="x", versions=[])


def test_a_check_page_of_a_real_check(tmp_path):
    cache = make_zoo(tmp_path)
    bad = good_adapter(tmp_path / "out" / "mine", seed=100, card=card(without=["license"]))
    with Zoo(cache) as zoo:
        report = check([bad], zoo=zoo, now=NOW, policy=Policy(), offline=True)
        places = map_of_check(zoo, report)
    assert [place.name for place in places.places if place.guest] == ["out/mine"]
    # The same weights as those of zoo/a0 lie in the same place.
    twin = {place.name: (place.x, place.y) for place in places.places}
    assert twin["out/mine"] == pytest.approx(twin["zoo/a0"], abs=0.05)
    document = check_page(report, places, command="hubrank check", versions=[])
    assert "card-license" in document
    assert 'href="#adapter-0"' in document


def test_the_map_of_a_search(tmp_path):
    with Zoo(make_zoo(tmp_path, 4)) as zoo:
        places = map_of_search(zoo, ranking(signature=random_signature(5)))
        assert [place.name for place in places.places][-1] == "one.jsonl"
        assert len(places.places) == 5
        assert map_of_search(zoo, ranking()) is None


def test_figures_with_nothing_to_show():
    assert "<svg" in heatmap_svg([HeatRow("x", None, [None, None])], ["0", "1"], label="empty")
    one = ZooMap(BASE, "lora", (Place("a", None, 0.0, 0.0), Place("b", None, 0.0, 0.0)), 0.0, 2)
    assert "nan" not in map_svg(one, anchors={}, near=["a", "b"], label="one place")


def first_pixel(png: bytes) -> tuple[int, ...]:
    """Red, green and blue of the upper left corner: no filter changes the first pixel of the first row."""
    at, data = 8, b""
    while at < len(png):
        length, kind = struct.unpack(">I4s", png[at : at + 8])
        data += png[at + 8 : at + 8 + length] if kind == b"IDAT" else b""
        at += 12 + length
    return tuple(zlib.decompress(data)[1:4])


def browse(tmp_path: Path, document: str, *more: str) -> str:
    """The page's DOM once it is loaded."""
    page = tmp_path / "page.html"
    page.write_text(document, "utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    flags += ["--no-first-run", "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}", "--disable-dev-shm-usage"]
    command = [BROWSER, *flags, *more, "--window-size=1000,900", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path)
    return done.stdout


@in_a_browser
@pytest.mark.parametrize(("scheme", "number"), [("dark", 0), ("light", 1)])
def test_light_and_dark(tmp_path, scheme, number):
    """That the sheet counts at all says that the policy admits it by its hash."""
    shot = tmp_path / "shot.png"
    browse(tmp_path, both("org/one", "plain")[0], f"--blink-settings=preferredColorScheme={number}", f"--screenshot={shot}")
    assert first_pixel(shot.read_bytes()) == PAPER[scheme]


@in_a_browser
@pytest.mark.parametrize("kind", [0, 1], ids=["search", "check"])
def test_hostile_names_do_nothing_in_a_browser(tmp_path, kind):
    asked = []

    class Evil(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.headers.get("Host"), self.path))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Evil)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        rules = f"--host-resolver-rules=MAP evil.example 127.0.0.1:{server.server_port}"
        dom = browse(tmp_path, both(EVERYTHING, EVERYTHING)[kind], rules, "--dump-dom")
        # That the server would have heard of it: a page without our care asks for the picture.
        careless = "<!doctype html><title>x</title><img src=http://evil.example/control.png>"
        browse(tmp_path, careless, rules, "--dump-dom")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert {path for _, path in asked} == {"/control.png"}
    assert "</html>" in dom
    found = tags(dom)
    assert not {"script", "img", "iframe"} & {tag for tag, _ in found}
    assert not any(name.startswith("on") for _, attributes in found for name in attributes)
