"""Loads pages as a browser does: with cookies, redirects, and the files that the pages name."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from http.cookiejar import CookieJar
from urllib.parse import urljoin

_BASE = re.compile(r'<base href="([^"]+)"')
_NAMED = re.compile(r'(?:src|href)="([^"#]+)"|import\("([^"]+)"\)')
_TIMEOUT = 60


class PageError(RuntimeError):
    """A page or one of its files doesn't load."""


class Visitor:
    """A user with a browser, logged in at a Jupyter server.

    Parameters
    ----------
    server
        Address of the server with its base URL, without a slash at the end.
    token
        The server's token.
    """

    def __init__(self, server: str, token: str) -> None:
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
        self.get(f"{server}/lab?token={token}")
        self._server = server

    def get(self, url: str) -> tuple[str, str]:
        """Return the final address after redirects, and the text of the page.

        Raises
        ------
        PageError
            The server answers with an error.
        """
        try:
            with self._opener.open(url, timeout=_TIMEOUT) as answer:
                return answer.geturl(), answer.read().decode(errors="replace")
        except urllib.error.HTTPError as error:
            raise PageError(f"{url}: {error.code}") from error

    def load(self, path: str) -> int:
        """Load a page of the server, and the files that it names; return the number of files."""
        where, page = self.get(urljoin(self._server, path))
        base = _BASE.search(page)
        root = urljoin(where, base[1]) if base else where
        named = {urljoin(root, one or other) for one, other in _NAMED.findall(page)} - {root}
        if not named:
            raise PageError(f"{where} names no files:\n{page[:500]}")
        for url in sorted(named):
            self.get(url)
        return len(named)
