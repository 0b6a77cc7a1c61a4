"""Rules of robots.txt, by the examples of RFC 9309 and cases that it decides."""

from __future__ import annotations

import time

import pytest

from rsearch_cli.search.robots import may_read

EXAMPLE = """
User-Agent: *
Disallow: *.gif$
Disallow: /example/
Allow: /publications/

User-Agent: foobot
Disallow:/
Allow:/example/page.html
Allow:/example/allowed.gif

User-Agent: barbot
User-Agent: bazbot
Disallow: /example/page.html

User-Agent: quxbot
"""


def as_agent(agent: str) -> str:
    """The example of RFC 9309, section 5.1, for a site that calls rsearch by one of its names."""
    return EXAMPLE.replace(agent, "rsearch") if agent != "*" else EXAMPLE


@pytest.mark.parametrize(
    ("agent", "path", "allowed"),
    [
        ("*", "/a.gif", False),
        ("*", "/a.gif?x", True),
        ("*", "/example/page.html", False),
        ("*", "/publications/a", True),
        ("*", "/elsewhere", True),
        ("foobot", "/example/page.html", True),
        ("foobot", "/example/allowed.gif", True),
        ("foobot", "/publications/a", False),
        ("barbot", "/example/page.html", False),
        ("bazbot", "/example/page.html", False),
        ("bazbot", "/example/", True),
        ("quxbot", "/example/", True),
    ],
)
def test_the_example_of_the_rfc(agent: str, path: str, allowed: bool) -> None:
    assert may_read(as_agent(agent), path) is allowed


def rules(*lines: str) -> str:
    return "\n".join(["User-agent: rsearch", *lines])


@pytest.mark.parametrize(
    ("robots", "path", "allowed"),
    [
        ("", "/a", True),
        ("<html>Not here</html>", "/a", True),
        ("Disallow: /", "/a", True),
        (rules("Disallow:"), "/a", True),
        (rules("Disallow: /"), "/a", False),
        (rules("Disallow: /a", "Allow: /a"), "/a", True),
        (rules("Allow: /a", "Disallow: /a/b"), "/a/b", False),
        (rules("Disallow: /a # all of it"), "/abc", False),
        (rules("Disallow: /a$"), "/a", False),
        (rules("Disallow: /a$"), "/ab", True),
        (rules("Disallow: /a*z$"), "/abcz", False),
        (rules("Disallow: /a*z$"), "/abczd", True),
        (rules("Disallow: /ab*ba$"), "/aba", True),
        (rules("Disallow: /*?"), "/a?b", False),
        (rules("Disallow: /*?"), "/a", True),
        (rules("Disallow: /é"), "/%c3%a9t", False),
        (rules("Disallow: /%C3%A9"), "/ét", False),
        (rules("Disallow: /%7Ejoe"), "/~joe/x", False),
        (rules("Disallow: /a%2fb"), "/a/b", True),
        (rules("Disallow: /A"), "/a", True),
        ("user-AGENT: RSearch/2.0\nDISALLOW: /", "/a", False),
        ("User-agent: rsearch-other\nDisallow: /", "/a", True),
        ("User-agent: *\nDisallow: /\n\nUser-agent: rsearch\nAllow: /a", "/b", True),
        (rules("Disallow: /a", "", "User-agent: x", "Disallow: /b") + "\n" + rules("Disallow: /c"),
         "/c", False),
        (rules("Crawl-delay: 5", "Sitemap: https://a.example/", "Disallow: /a"), "/a", False),
        ("User-agent: rsearch\r\nDisallow: /a\r\n", "/a", False),
    ],
)  # fmt: skip
def test_rules(robots: str, path: str, allowed: bool) -> None:
    assert may_read(robots, path) is allowed


def test_many_stars_take_no_time() -> None:
    started = time.perf_counter()
    assert may_read(rules("Disallow: /" + "*a" * 200 + "b"), "/" + "a" * 2000)
    assert time.perf_counter() - started < 1.0
