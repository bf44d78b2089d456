import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_citation_names_this_version_and_the_paper_of_the_readme():
    citation, readme, project = ((ROOT / name).read_text() for name in ("CITATION.cff", "README.md", "pyproject.toml"))
    version = re.search('^version = "(.*)"$', project, re.MULTILINE)[1]
    assert f"\nversion: {version}\n" in citation
    for key in ("title", "booktitle", "year"):
        assert re.search(rf"\b{key} *= {{(.*)}}", readme)[1] in citation
