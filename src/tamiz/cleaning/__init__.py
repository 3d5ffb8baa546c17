"""Clean texts with pure, idempotent steps; the same ones on the data, in every model and on every engine.

Steps on characters: `mojibake` (text decoded with the wrong encoding), `html` (markup and entities), `nfkc`, `control`
(control, format and zero-width characters), `urls`, `emails`, `numbers`, `redactions` (the CFPB's `XXXX`, `{$9.00}`),
`special` (all but letters, digits, masks and apostrophes inside words), `case` and `whitespace`. Steps on words:
`stop_words` and `stem`, each with a language.
"""

from __future__ import annotations

from tamiz.cleaning.alignment import Aligned
from tamiz.cleaning.cleaner import DEFAULT_STEPS, Cleaner, StepSpec, check_steps

__all__ = ["DEFAULT_STEPS", "Aligned", "Cleaner", "StepSpec", "check_steps"]
