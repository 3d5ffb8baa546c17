"""The interactive documentation: one page of our own, which fetches nothing from anywhere but this server."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.resources import files

__all__ = ["CONTENT_SECURITY_POLICY", "PAGE"]

PAGE = files("tamiz.serving").joinpath("docs.html").read_text(encoding="utf-8")


def _hash_of(element: str) -> str:
    """Return the source expression that lets exactly this page's `element` run."""
    found = re.search(rf"<{element}>(.*?)</{element}>", PAGE, re.DOTALL)
    text = found.group(1) if found else ""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}'"


CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; script-src {_hash_of('script')}; style-src {_hash_of('style')}; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
