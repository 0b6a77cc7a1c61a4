"""A local MediaWiki: its Action API with CirrusSearch and TextExtracts, as far as searches go.

Written from https://www.mediawiki.org/wiki/API:Query, API:Search, Extension:TextExtracts and
Manual:Maxlag_parameter. Parameters that MediaWiki would ignore with a warning are refused here, so
that a name which is out of date fails a test.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from local_http import Answer, LocalServer, Raw, Received

MOST_TITLES = 50
MOST_EXTRACTS = 20
MOST_QUERY_CHARS = 300
_PARAMETERS = frozenset(
    "action format formatversion maxlag redirects prop exintro explaintext exlimit excontinue "
    "exsectionformat inprop ppprop continue titles generator gsrsearch gsrnamespace "
    "gsrlimit".split()
)
_BOOLEANS = ("redirects", "exintro", "explaintext")
_NUMBERS = {"maxlag": (0, 999), "exlimit": (1, 20), "gsrlimit": (1, 500), "excontinue": (0, 10**9)}
# The form of https://foundation.wikimedia.org/wiki/Policy:Wikimedia_Foundation_User-Agent_Policy.
_USER_AGENT = re.compile(r"\w[\w.-]*/[\w.]+ \([^()]+\)( [\w.-]+/[\w.]+)*")
_NOT_IN_TITLES = re.compile(r"[#<>\[\]{}]")


@dataclass(frozen=True)
class WikiPage:
    """A page of the wiki.

    Attributes:
        title: Its title, which is unique.
        intro: The text before the first heading.
        rest: The text after it, which is searched but not part of an introduction.
        disambiguation: Whether it lists the meanings of its title.
        redirect: Title of the page to which it leads, or None.
    """

    title: str
    intro: str = ""
    rest: str = ""
    disambiguation: bool = False
    redirect: str | None = None


class MediaWikiServer(LocalServer):
    """A wiki of some pages; see `LocalServer` for latency, faults and counts.

    Attributes:
        lag: Seconds by which the slowest database is behind.
        error: Code of an error that every request gets, with status 200; None for none.
        has_extracts: Whether the extension TextExtracts is installed.
    """

    def __init__(self, pages: Iterable[WikiPage], **settings: Any) -> None:
        """Describe the server.

        Args:
            pages: Its pages; the first page has the id 1.
            **settings: Those of `LocalServer`.
        """
        super().__init__(**settings)
        self.pages = {page.title: page for page in pages}
        self.ids = {title: number for number, title in enumerate(self.pages, 1)}
        self.lag = 0.0
        self.error: str | None = None
        self.has_extracts = True

    def respond(self, request: Received) -> Answer:
        """Check the request as Wikimedia's edge and MediaWiki do, and answer it."""
        if (request.method, request.path) != ("GET", "/w/api.php"):
            return 404, "not found"
        if not _USER_AGENT.fullmatch(request.headers.get("user-agent", "")):
            return 403, "Please set a user-agent and respect our robot policy"
        asked = request.query
        if self.error is not None:
            return 200, self.describe_error(200, self.error, self.error)
        if self.lag > float(asked.get("maxlag", "inf")):
            message = f"Waiting for a database: {self.lag} seconds lagged."
            body = json.dumps(self.describe_error(200, message, "maxlag"))
            headers = {"Retry-After": "5", "X-Database-Lag": str(self.lag)}
            return 200, Raw(body.encode(), headers)
        if (flaw := find_flaw(asked)) is not None:
            return 200, self.describe_error(200, *flaw)
        return 200, self._answer(asked)

    def describe_error(self, status: int, message: str, code: str = "internal_api_error") -> Any:
        """MediaWiki's error, or for an HTTP error the words of a proxy in front of it."""
        return message if status != 200 else {"error": {"code": code, "info": message}}

    def _answer(self, asked: Mapping[str, str]) -> dict[str, Any]:
        steps: dict[str, list[dict[str, Any]]] = {}
        if "titles" in asked:
            rows = self._look_up(asked["titles"].split("|"), steps)
        else:
            rows = [
                {**self._describe(page), "index": rank}
                for rank, page in enumerate(self._find(asked), 1)
            ]
        continued = self._add_extracts(rows, asked)
        if not rows:
            return {"batchcomplete": True}
        answer = {"query": {**steps, "pages": rows}}
        if continued is not None:
            return {"continue": {"excontinue": continued, "continue": "||info|pageprops"}} | answer
        # As MediaWiki does, the answer says where the search could go on.
        more = {"gsroffset": len(rows), "continue": "gsroffset||"} if "gsrsearch" in asked else {}
        return {"batchcomplete": True, "continue": more} | answer

    def _look_up(self, names: list[str], steps: dict[str, list[Any]]) -> list[dict[str, Any]]:
        """Resolve titles; pages come in the order of their ids, as in MediaWiki's answers."""
        found: dict[str, dict[str, Any]] = {}
        for name in dict.fromkeys(names):
            title = normalise(name)
            if title != name:
                step = {"fromencoded": False, "from": name, "to": title}
                steps.setdefault("normalized", []).append(step)
            page = self.pages.get(title)
            if page is not None and page.redirect is not None:
                steps.setdefault("redirects", []).append({"from": title, "to": page.redirect})
                title, page = page.redirect, self.pages.get(page.redirect)
            if _NOT_IN_TITLES.search(title):
                reason = "The requested page title contains invalid characters"
                found[title] = {"title": title, "invalidreason": reason, "invalid": True}
            elif page is None:
                found[title] = {"ns": 0, "title": title, "missing": True}
            else:
                found[title] = self._describe(page)
        return sorted(found.values(), key=lambda row: row.get("pageid", -1))

    def _find(self, asked: Mapping[str, str]) -> list[WikiPage]:
        """Pages with all words of the query, or with one if they are joined by OR.

        Those with more of them come first, in the title above all.
        """
        query = asked["gsrsearch"]
        any_word = " OR " in query
        wanted = split(query.replace(" OR ", " ") if any_word else query)
        found: list[tuple[tuple[int, int], WikiPage]] = []
        for page in self.pages.values():
            hits = wanted & split(f"{page.title} {page.intro} {page.rest}")
            if page.redirect is None and hits and (any_word or hits == wanted):
                found.append(((len(wanted & split(page.title)), len(hits)), page))
        found.sort(key=lambda row: row[0], reverse=True)
        return [page for _, page in found[: int(asked["gsrlimit"])]]

    def _describe(self, page: WikiPage) -> dict[str, Any]:
        url = f"{self.url}/wiki/{quote(page.title.replace(' ', '_'))}"
        row = {
            "pageid": self.ids[page.title],
            "ns": 0,
            "title": page.title,
            "contentmodel": "wikitext",
            "fullurl": url,
            "canonicalurl": url,
        }
        return row | ({"pageprops": {"disambiguation": ""}} if page.disambiguation else {})

    def _add_extracts(self, rows: list[dict[str, Any]], asked: Mapping[str, str]) -> int | None:
        """Add the introductions of one request, and return where the next one starts, or None."""
        good = [row for row in rows if "pageid" in row]
        start, count = int(asked.get("excontinue", 0)), int(asked["exlimit"])
        for row in good[start : start + count] if self.has_extracts else ():
            page = self.pages[row["title"]]
            row["extract"] = page.intro if "exintro" in asked else f"{page.intro}\n\n{page.rest}"
        return start + count if self.has_extracts and len(good) > start + count else None


def find_flaw(asked: Mapping[str, str]) -> tuple[str, str] | None:
    """What MediaWiki would refuse or ignore in a request, as message and code, or None."""
    if unknown := sorted(asked.keys() - _PARAMETERS):
        return f"Unrecognized parameter: {unknown[0]}.", "badparameter"
    fixed = {"action": "query", "format": "json", "formatversion": "2", "inprop": "url"}
    fixed |= {"prop": "extracts|info|pageprops", "ppprop": "disambiguation"}
    fixed |= dict.fromkeys(_BOOLEANS, "1")
    for name, value in fixed.items():
        if asked.get(name) != value and name != "exintro":
            return f"this server wants {name}={value}", "badvalue"
    if asked.get("exintro", "1") != "1":
        return "this server wants exintro=1 or none", "badvalue"
    if "exintro" not in asked and asked.get("exlimit") != "1":
        return "exlimit was too large for a whole article extracts request", "badvalue"
    if asked.get("exsectionformat", "plain") not in ("plain", "wiki", "raw"):
        return "Unrecognized value for parameter exsectionformat.", "badvalue"
    for name, (least, most) in _NUMBERS.items():
        if name in asked and not (asked[name].isdigit() and least <= int(asked[name]) <= most):
            return f"{name} must be between {least} and {most}", "badinteger"
    if ("excontinue" in asked) != ("continue" in asked):
        return "Invalid continue param.", "badcontinue"
    if ("titles" in asked) == (asked.get("generator") == "search"):
        return "either titles or generator=search", "invalidparammix"
    if "titles" in asked and len(asked["titles"].split("|")) > MOST_TITLES:
        return f"Too many values for titles; the limit is {MOST_TITLES}.", "toomanyvalues"
    if "titles" not in asked and not asked.get("gsrsearch"):
        return "The gsrsearch parameter must be set.", "missingparam"
    if len(asked.get("gsrsearch", "")) > MOST_QUERY_CHARS:
        return "Search request is longer than the maximum.", "cirrussearch-query-too-long"
    return None


def normalise(name: str) -> str:
    """A title as MediaWiki spells it: single spaces, and a capital at the start."""
    title = " ".join(name.replace("_", " ").split())
    return title[:1].upper() + title[1:]


def split(text: str) -> set[str]:
    """The words of a text in lower case."""
    return set(re.findall(r"\w+", text.casefold()))
