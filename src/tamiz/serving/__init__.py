"""Serving over HTTP: one application, many doors.

`create_app` (in `app`) puts together what the other modules hold: `live` the models, `doors` the protocols, `auth` and
`keys` who may call, `limits` what a call may cost, `observe` logs and metrics, `problems` errors.
"""

from __future__ import annotations

from tamiz.extras import require

for library in ("fastapi", "httptools", "prometheus_client", "uvicorn"):  # MLflow brings some of them, not all
    require(library, extra="serve")
