"""The pages as a whole: all are in the navigation, links lead somewhere, and the reference has every public name."""

import re
from pathlib import Path

import pytest

import depthsieve

ROOT = Path(__file__).parents[2]
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")])


def text_of(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^(```+)[^`\n]*\n.*?^\1$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors_of(page: Path) -> set[str]:
    """Names of a page's headings, as GitHub and the site form them."""
    headings = re.findall(r"^#+ (.*)$", text_of(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_is_in_the_navigation_once() -> None:
    trees = re.findall(r"```\{toctree\}\n(.*?)```", "\n".join(page.read_text() for page in PAGES), re.DOTALL)
    listed = [line for tree in trees for line in tree.splitlines() if line and not line.startswith(":")]
    notebooks = (ROOT / "docs").rglob("*.ipynb")
    docs = [page for page in (*PAGES, *notebooks) if ROOT / "docs" in page.parents]
    names = [str(page.relative_to(ROOT / "docs").with_suffix("")) for page in docs]
    assert sorted([*(line.partition("<")[2].rstrip(">") or line for line in listed), "index"]) == sorted(names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if re.match(r"\w+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_file(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors_of(target), f"{page.name}: {link}: {sorted(anchors_of(target))}"


def test_the_reference_has_every_public_name() -> None:
    text = (ROOT / "docs" / "reference_python.md").read_text()
    assert sorted(re.findall(r"^\.\. auto(?:function|class):: (\w+)$", text, re.MULTILINE)) == depthsieve.__all__
