"""Links between the files of the repository: their targets exist, anchors included; pages are reachable."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(
    [
        *ROOT.glob("*.md"),
        *(p for p in (ROOT / "docs").rglob("*.md") if "_build" not in p.parts),
        *(ROOT / "experiments").glob("*/README.md"),
    ]
)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def prose(text: str) -> str:
    """The text without its code and equations."""
    return re.sub(r"^```.*?^```$|`[^`\n]+`|^\$\$.*?^\$\$", "", text, flags=re.S | re.M)


def anchors(page: Path) -> set[str]:
    """Anchors of headings, as GitHub and MyST make them, and explicit targets."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.S | re.M)
    titles = re.findall(r"^#+ (.+)$", text, re.M)
    slugs = {re.sub(r"[^\w\- ]", "", t.lower()).strip().replace(" ", "-") for t in titles}
    return slugs | set(re.findall(r"^\(([\w-]+)\)=$", text, re.M))


@pytest.mark.parametrize("page", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(prose(page.read_text())):
        if re.match(r"[a-z]+:", link):
            assert link.startswith("https://"), f"{link}: not a secure address"
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link}: no such file"
        assert not anchor or anchor in anchors(target), f"{link}: no such heading"


def test_every_page_of_the_documentation_is_reachable() -> None:
    pages = {p.relative_to(ROOT / "docs").with_suffix("").as_posix() for p in FILES if "docs" in p.parts}
    listed = {"index"}
    for page in FILES:
        for block in re.findall(r"```\{toctree\}\n(.*?)```", page.read_text(), re.S):
            folder = page.parent.relative_to(ROOT / "docs")
            listed |= {
                (folder / line).as_posix() for line in block.split() if re.fullmatch(r"[a-z_/]+", line)
            }
    assert pages <= listed


def test_a_dead_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Here\n\n[there](nowhere.md) and [below](#missing)")
    with pytest.raises(AssertionError, match="no such file"):
        test_links_lead_somewhere(page)
    page.write_text("# Here\n\n[below](#missing) and [above](#here)")
    with pytest.raises(AssertionError, match="no such heading"):
        test_links_lead_somewhere(page)
