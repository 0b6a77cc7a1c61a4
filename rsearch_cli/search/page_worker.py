"""The text of web pages, extracted in a process of its own that can be killed.

Parsers of HTML can be made to run for minutes by a page of a few hundred kilobytes, and a thread
cannot be stopped. `page_text` starts this file as a program: a line of JSON and the bytes of a page
come in, the length of its text in 8 bytes and the text go out.
"""

import codecs
import contextlib
import json
import logging
import math
import os
import re
import sys

TEXT_CHARS = 100_000
"""Longest text of a page, in characters, as in `cache_entries`."""

MEMORY_BYTES = 2 * 2**30

# Codecs for text on the web. Python has others, which decompress, or take time that is quadratic.
_ENCODING = re.compile(
    r"utf-?8|utf-?16(le|be)?|us-ascii|(iso-?8859|latin|windows|cp|koi8|mac)[-_]?\w{1,8}"
    r"|shift[-_]?jis|sjis|euc-?(jp|kr)|iso-2022-jp|gbk|gb-?2312|gb18030|big5(-hkscs)?|tis-620",
    re.ASCII | re.IGNORECASE,
)
_META = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([\w-]{1,40})""", re.IGNORECASE)
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_GUESSED_BYTES = 20_000
# But for white space, and the escapes of ISO-2022-JP.
_CONTROLS = bytes({*range(32)} - {*b"\t\n\f\r\x1b"})


def decode(body: bytes, charset: str = "") -> str:
    """Decode a page: as its byte order mark, UTF-8, its header or its own markup says, or guess.

    What contains many control characters is no text, and becomes "".

    Args:
        body: Its bytes, which may end within a character.
        charset: Encoding that its header names, or "".
    """
    for mark, encoding in _MARKS:
        if body.startswith(mark):
            return body.decode(encoding, "replace")
    sample = body[:_GUESSED_BYTES]
    if len(sample) - len(sample.translate(None, _CONTROLS)) > len(sample) // 20:
        return ""  # not a text, whatever its type says
    with contextlib.suppress(UnicodeDecodeError):
        # Text in another encoding is hardly ever valid UTF-8, but for ISO-2022-JP; labels are often
        # wrong.
        if b"\x1b$" not in sample:
            return codecs.getincrementaldecoder("utf-8")().decode(body)
    named = _META.search(body[:4096])
    for label in (charset, named[1].decode("ascii") if named else ""):
        if _ENCODING.fullmatch(label):
            # Browsers, too, read Latin-1 as its superset.
            label = "cp1252" if label.lower() in ("iso-8859-1", "latin1", "us-ascii") else label
            with contextlib.suppress(LookupError):
                return body.decode(label, "replace")
    return body.decode(_guess(sample), "replace")


def _guess(body: bytes) -> str:
    from charset_normalizer import from_bytes

    best = from_bytes(body).best()
    return best.encoding if best else "cp1252"


def extract_text(body: bytes, *, is_html: bool, charset: str = "") -> str:
    """Return the text of a page, one paragraph a line; "" if it has none."""
    text = decode(body, charset)
    if is_html:
        from trafilatura import extract

        # Line breaks of the source would look like those between paragraphs.
        text = extract(re.sub(r"[\r\n\t]+", " ", text), include_comments=False) or ""
    else:
        text = re.sub(r"(?<!\n)\r?\n(?!\r?\n)", " ", text[: 2 * TEXT_CHARS])
    lines = (" ".join(line.split()) for line in text.splitlines())
    return "\n".join(line for line in lines if line)[:TEXT_CHARS]


def _limit_memory() -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):  # Windows; a lower limit is set
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


def _limit_time(seconds: float) -> None:
    """Let the system end this process after so many further seconds of processor time."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        _, most = resource.getrlimit(resource.RLIMIT_CPU)
        limit = math.ceil(used.ru_utime + used.ru_stime + seconds)
        resource.setrlimit(resource.RLIMIT_CPU, (limit, most))


def main() -> None:
    """Serve pages until the input ends."""
    _limit_memory()
    logging.disable(logging.CRITICAL)
    # What a library prints must not get between the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    while line := sys.stdin.buffer.readline():
        job = json.loads(line)
        body = sys.stdin.buffer.read(job.pop("bytes"))
        _limit_time(job.pop("seconds"))
        try:
            text = extract_text(body, **job)
        except ImportError:
            raise  # no page could be read
        except Exception:
            text = ""
        answer = text.encode("utf-8", "replace")
        answers.write(len(answer).to_bytes(8, "big") + answer)
        answers.flush()


if __name__ == "__main__":
    main()
