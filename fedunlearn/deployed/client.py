"""The ClientApp: answers tasks as the site's own file says, and does nothing else."""

from functools import cache

from flwr.app import Context

from fedunlearn.errors import InputError
from fedunlearn.runtime.flower import client_app
from fedunlearn.scenario import Site, open_site

KEY = "site-file"


@cache
def site_at(path: str) -> Site:
    """The site of a file, opened once a process."""
    return open_site(path)


def site_of(context: Context) -> Site:
    """The site of a node.

    Raises:
        InputError: its node_config names no file, or the file is wrong.
    """
    path = context.node_config.get(KEY)
    if not isinstance(path, str):
        raise InputError(
            f"node_config {dict(context.node_config)}: names no {KEY!r}; the site's owner starts the SuperNode with "
            f"""--node-config '{KEY}="/path/to/site.yaml"'"""
        )
    return site_at(path)


app = client_app(site_of)
