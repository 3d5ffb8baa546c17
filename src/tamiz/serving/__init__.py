"""Serving over HTTP: one application, many doors.

`create_app` (in `app`) puts together what the other modules hold: `live` the models, `doors` the protocols, `auth` and
`keys` who may call, `limits` what a call may cost, `observe` logs and metrics, `problems` errors.
"""

from __future__ import annotations

from tamiz.extras import require

require("fastapi", extra="serve")
require("prometheus_client", extra="serve")
