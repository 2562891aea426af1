"""A Sphinx extension of this book: pages carry no code that would start Thebe, which the network alone has.

Jupyter Book loads sphinx-thebe whether it is wanted or not, which leaves on every page a script that names a server
(twice, so that browsers report an error).
"""

from typing import Any


def setup(app: Any) -> dict[str, Any]:
    """Connect to Sphinx."""
    app.connect("html-page-context", without_thebe, priority=900)  # after those who add scripts
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def without_thebe(app: Any, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Take Thebe's scripts and styles off a page, known by their name or, of inline scripts, by their body."""
    for kind in ("script_files", "css_files"):
        texts = [(file, f"{file} {getattr(file, 'attributes', {}).get('body', '')}") for file in context.get(kind, [])]
        context[kind] = [file for file, text in texts if "thebe" not in text.lower()]
