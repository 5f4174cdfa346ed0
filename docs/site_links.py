"""A hook of mkdocs: links that lead to no page or file of the site become plain text.

Pages are read in the repository, too, where they link to files beside `docs/` and to folders.
"""

import re
from posixpath import dirname, join, normpath

_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)#:]+)(#[^)]*)?\)")


def on_page_markdown(markdown, *, page, config, files):
    """Called for each page before it is rendered."""
    folder = dirname(page.file.src_uri)

    def link(match):
        text, target, _ = match.groups()
        path = normpath(join(folder, target))
        is_outside = path.startswith("../")
        is_folder = any(uri.startswith(f"{path}/") for uri in files.src_uris)
        return text if is_outside or is_folder else match[0]

    return _LINK.sub(link, markdown)
