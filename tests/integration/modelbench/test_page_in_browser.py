"""The page in a real browser: nothing overlaps, is cut off or fetched. Needs Chromium and playwright."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Iterator

import pytest

from defectd.modelbench.page import render
from support.benched import entry, findings, refused

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (pip install playwright)")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (apt-get install chromium)")

PAGES = {
    "four runtimes": findings(),
    "equal runtimes": findings(
        *(entry(f"runtime-{n}", began_s=25.0 * n, seed=n, typical_ms=8.0 + n / 50) for n in range(6))
    ),
    "one runtime with an outlier": findings(
        entry("torchscript", "chosen", latency_ms=[5 + n / 99 for n in range(199)] + [900])
    ),
    "nothing works": findings(refused("torchscript", "torch cannot be imported: " + "a long story " * 40)),
}
FLAWS = """() => {
  const flaws = [];
  for (const svg of document.querySelectorAll("svg.chart")) {
    const edge = svg.getBoundingClientRect();
    const texts = [...svg.querySelectorAll("text")].map(one => [one.textContent, one.getBoundingClientRect()]);
    texts.forEach(([words, a], index) => {
      if (a.left < edge.left - 1 || a.right > edge.right + 1 || a.top < edge.top - 1 || a.bottom > edge.bottom + 1)
        flaws.push(`cut off: ${words}`);
      for (const [other, b] of texts.slice(index + 1))
        if (a.left < b.right && b.left < a.right && a.top + 2 < b.bottom - 2 && b.top + 2 < a.bottom - 2)
          flaws.push(`overlap: ${words} / ${other}`);
    });
  }
  if (document.documentElement.scrollWidth > innerWidth) flaws.push("wider than the window");
  return flaws;
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    options = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(executable_path=CHROMIUM, args=list(options))
        yield running
        running.close()


@pytest.mark.parametrize("width", [1280, 800])
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_the_page_has_no_flaw(tmp_path: Path, browser: Any, name: str, theme: str, width: int) -> None:
    file = tmp_path / "bench.html"
    file.write_text(render(PAGES[name]), encoding="utf-8")
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=theme)
    fetched: list[str] = []
    page.on("request", lambda request: fetched.append(request.url))
    page.goto(file.as_uri())
    assert page.evaluate(FLAWS) == []
    assert fetched == [file.as_uri()]
    page.close()
