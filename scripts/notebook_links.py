"""A hook of mkdocs: notebooks link relative to the file, as a forge reads them; the site needs it relative to the page."""

import logging
import posixpath
import re

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

LINK = re.compile(r'(<a\b[^>]*\bhref=")([^":#]+)((?:#[^"]*)?")')
log = logging.getLogger("mkdocs.notebook_links")  # mkdocs counts its warnings: with --strict one ends the build


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The page with its links as the site needs them."""
    if not page.file.src_uri.endswith(".ipynb"):
        return html
    folder = posixpath.dirname(page.file.src_uri)

    def to_page(match: re.Match[str]) -> str:
        target = files.get_file_from_path(posixpath.normpath(posixpath.join(folder, match[2])))
        if target is None:
            log.warning("%s links to %s, which is not in docs/", page.file.src_uri, match[2])
            return match[0]
        return f"{match[1]}{target.url_relative_to(page.file)}{match[3]}"

    return LINK.sub(to_page, html)
