"""Pages loaded as a browser loads them: with cookies, redirects, and the files that they name."""

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
    """A page, or a file that it needs, doesn't load."""


class Visitor:
    """Somebody with a browser, logged in at a Jupyter server.

    Parameters
    ----------
    server
        Address of the server with its base URL, without a slash at its end.
    token
        What it wants to see first.
    """

    def __init__(self, server: str, token: str) -> None:
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
        self.get(f"{server}/lab?token={token}")
        self._server = server

    def get(self, url: str) -> tuple[str, str]:
        """Return where an address leads, and the text that is there.

        Raises
        ------
        PageError
            Nothing is there.
        """
        try:
            with self._opener.open(url, timeout=_TIMEOUT) as answer:
                return answer.geturl(), answer.read().decode(errors="replace")
        except urllib.error.HTTPError as error:
            raise PageError(f"{url}: {error.code}") from error

    def load(self, path: str) -> int:
        """Load a page of the server's site, and the files that it names; return how many those are."""
        where, page = self.get(urljoin(self._server, path))
        base = _BASE.search(page)
        root = urljoin(where, base[1]) if base else where
        named = {urljoin(root, one or other) for one, other in _NAMED.findall(page)} - {root}
        if not named:
            raise PageError(f"{where} names no files:\n{page[:500]}")
        for url in sorted(named):
            self.get(url)
        return len(named)
