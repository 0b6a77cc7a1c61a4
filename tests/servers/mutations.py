"""Answers that went wrong in every way a service, a proxy or an attacker could think of.

From a good answer and a random generator to one odd answer, byte for byte; the same seed gives the
same ones. Nothing here knows a protocol: a mutation hits any place of any JSON document.
"""

from __future__ import annotations

import copy
import gzip
import json
import random
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any

from local_http import Raw

BOMB_BYTES = 512 * 2**20
"""What the gzip bomb unpacks to."""

_HIGH, _LOW, _PAIR = r'"\ud800"', r'"half \udc00 a pair"', r'"cut in a pair \ud83d"'
ODD = (
    *("null", "true", "false", "0", "1", "-1", "-0.0", "0.5", "9007199254740993", "-99999999999"),
    *("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1e308", "1e-400"),
    *("1" + "0" * 400, "-1" + "0" * 400, "1" + "0" * 5000),
    *("[]", "{}", "[null]", "[[]]", "[1, 2, 3]", '{"a": 1}', '""', '" "', '"123"', '"NaN"'),
    *(_HIGH, _LOW, _PAIR, r'"\u0000"', r'"\u001b]0;owned\u0007"', r'"\u202egnp.exe"', r'"\ufeff"'),
    *(r'"https://a.example/\ud800"', '"http://a b"', '"javascript:alert(1)"', '"//a.example"'),
    '"' + "x" * 200_000 + '"',
    '"' + "\\ud83d\\ude00" * 20_000 + '"',
    "[" * 20_000 + "]" * 20_000,
    '{"a":' * 20_000 + "1" + "}" * 20_000,
)
"""JSON values, and what only looks like them, that may stand anywhere."""

_HTML = b"<!doctype html><html><body><h1>502 Bad Gateway</h1></body></html>"
_MARK = "@@odd@@"


def mutate(answer: Any, random_: random.Random) -> tuple[str, int, Raw]:
    """One odd answer made of a good one: what was done, the status and the body."""
    name = random_.choice(tuple(_MUTATIONS))
    made = _MUTATIONS[name](answer, random_)
    status, raw = made if isinstance(made, tuple) else (200, made)
    return name, status, raw if isinstance(raw, Raw) else Raw(raw)


def _dump(value: Any) -> bytes:
    return json.dumps(value).encode()


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON document, as the keys that lead there; the document itself first."""
    inner: list[tuple[Any, Any]] = []
    if isinstance(value, dict | list):
        inner = list(value.items() if isinstance(value, dict) else enumerate(value))
    return [path, *(place for key, item in inner for place in _places(item, (*path, key)))]


def _parent(answer: Any, place: tuple[Any, ...]) -> Any:
    for key in place[:-1]:
        answer = answer[key]
    return answer


def _replace(answer: Any, random_: random.Random) -> bytes:
    """Put an odd value in place of any other."""
    answer, place = copy.deepcopy(answer), random_.choice(_places(answer))
    odd = random_.choice(ODD)
    if not place:
        return odd.encode()
    _parent(answer, place)[place[-1]] = _MARK
    return _dump(answer).replace(f'"{_MARK}"'.encode(), odd.encode(), 1)


def _replace_text(answer: Any, random_: random.Random) -> bytes:
    """Put odd characters into the middle of a text."""
    answer = copy.deepcopy(answer)
    texts = [p for p in _places(answer) if p and isinstance(_parent(answer, p)[p[-1]], str)]
    place = random_.choice(texts)
    text = _parent(answer, place)[place[-1]]
    at = random_.randrange(len(text) + 1)
    odd = random_.choice(
        ("\ud800", "\udfff", "\x00", "\x1b[2J", "\u202e", "\u200b", "\n\n", "</r>")
    )
    _parent(answer, place)[place[-1]] = text[:at] + odd + text[at:]
    return _dump(answer)


def _remove(answer: Any, random_: random.Random) -> bytes:
    answer = copy.deepcopy(answer)
    place = random_.choice([p for p in _places(answer) if p])
    del _parent(answer, place)[place[-1]]
    return _dump(answer)


def _add(answer: Any, random_: random.Random) -> bytes:
    """Add a field that nobody knows, or that stands there already, to any object."""
    body = _dump(answer)
    braces = [i for i, byte in enumerate(body) if byte == ord("{")]
    at = random_.choice(braces) + 1
    name = random_.choice(("score", "title", "url", "content", "choices", "results", "what"))
    return body[:at] + f'"{name}": {random_.choice(ODD)}, '.encode() + body[at:]


def _repeat(answer: Any, random_: random.Random) -> bytes:
    """Give thousands where a few were asked for."""
    answer = copy.deepcopy(answer)
    lists = [p for p in _places(answer) if p and isinstance(_parent(answer, p)[p[-1]], list)]
    if lists:
        place = random_.choice(lists)
        _parent(answer, place)[place[-1]] *= random_.choice((2, 50, 2000))
    return _dump(answer)


def _cut(answer: Any, random_: random.Random) -> bytes:
    body = _dump(answer)
    return body[: random_.randrange(len(body))]


def _flip(answer: Any, random_: random.Random) -> bytes:
    """Change a few bytes to any others, which need not be UTF-8."""
    body = bytearray(_dump(answer))
    for _ in range(random_.randint(1, 8)):
        body[random_.randrange(len(body))] = random_.randrange(256)
    return bytes(body)


def _insert(answer: Any, random_: random.Random) -> bytes:
    body = _dump(answer)
    at = random_.randrange(len(body) + 1)
    # The last but one is U+D800 as UTF-8 would write it.
    odd = random_.choice((b"\x00", b"\xff\xfe", b"\xed\xa0\x80", b"\xf0\x9f\x98"))
    return body[:at] + odd + body[at:]


def _recode(answer: Any, random_: random.Random) -> bytes:
    body = json.dumps(answer)
    codecs = ("utf-16", "utf-16-le", "utf-32", "utf-8-sig", "utf-7")
    return body.encode(random_.choice(codecs))


def _wrap(answer: Any, random_: random.Random) -> bytes:
    body = _dump(answer)
    wraps = (b"[%s]", b'{"data": %s}', b"%s%s" % (body, b"%s"), b"%s trailing", b"data: %s\n\n")
    return random_.choice(wraps).replace(b"%s", body, 1)


def _replace_whole(answer: Any, random_: random.Random) -> Raw | bytes:
    kinds = {"Content-Type": random_.choice(("text/html", "text/plain; charset=utf-7", "a/b"))}
    return Raw(random_.choice((b"", b" ", b"\n", b"null", _HTML, b"OK")), kinds)


def _compress(answer: Any, random_: random.Random) -> Raw:
    """Send packed bytes, which a client that asked for plain ones need not take."""
    encoding = random_.choice(("gzip", "deflate", "br", "zstd", "gzip, gzip", "x"))
    return Raw(gzip.compress(_dump(answer)), {"Content-Encoding": encoding})


def _bomb(answer: Any, random_: random.Random) -> Raw:
    return Raw(_packed_bomb(), {"Content-Encoding": "gzip"})


@cache
def _packed_bomb() -> bytes:
    """Half a gigabyte of blanks in half a megabyte."""
    blanks, packed = b" " * 2**20, []
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    for _ in range(BOMB_BYTES // 2**20):
        packed.append(packer.compress(blanks))
    return b"".join([*packed, packer.flush()])


def _pad(answer: Any, random_: random.Random) -> bytes:
    """Send far more than any answer needs."""
    return _dump(answer)[:-1] + b" " * (9 * 2**20) + b"}"


def _change_status(answer: Any, random_: random.Random) -> tuple[int, Raw]:
    """Refuse, in words and with headers that make no sense."""
    status = random_.choice((201, 204, 206, 302, 400, 404, 418, 422, 429, 500, 503, 599))
    body = random_.choice((_dump({"error": answer}), _replace(answer, random_), _HTML, b""))
    waits = ("0", "-5", "nan", "1e400", "99999999", "Fri, 31 Feb 0000 99:99:99", "\x00", "soon")
    headers = {"Retry-After": random_.choice(waits), "Location": "http://127.0.0.1:9/elsewhere"}
    return status, Raw(body if status != 204 else b"", headers)


_MUTATIONS: dict[str, Callable[[Any, random.Random], Any]] = {
    "an odd value": _replace,
    "another odd value": _replace,
    "a third odd value": _replace,
    "an odd text": _replace_text,
    "a field missing": _remove,
    "a field more": _add,
    "many more": _repeat,
    "cut": _cut,
    "bytes changed": _flip,
    "bytes more": _insert,
    "another encoding": _recode,
    "wrapped": _wrap,
    "something else": _replace_whole,
    "compressed": _compress,
    "a bomb": _bomb,
    "padded": _pad,
    "another status": _change_status,
}
