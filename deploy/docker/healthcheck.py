"""Exit 0 while the service in this container is alive: what HEALTHCHECK runs, where no curl is installed.

Reads port and TLS as the service does, without loading it: RDREC_* variables over the settings file.
"""

import os
import ssl
import sys
import tomllib
import urllib.error
import urllib.request
from pathlib import Path

file = os.environ.get("RDREC_SETTINGS_FILE")
settings = tomllib.loads(Path(file).read_text(encoding="utf-8")) if file else {}
port = str(os.environ.get("RDREC_PORT") or settings.get("port", 8000))
if not port.isdigit():  # a Kubernetes service link, which the service ignores as well
    port = "8000"
certificate = os.environ.get("RDREC_TLS_CERTIFICATE") or settings.get("tls_certificate")
scheme = "https" if certificate else "http"
# this container's own service, by an address that no certificate names
anybody = ssl._create_unverified_context() if certificate else None
try:
    with urllib.request.urlopen(f"{scheme}://127.0.0.1:{port}/health/live", timeout=2, context=anybody):
        sys.exit(0)
except (urllib.error.URLError, OSError) as error:
    sys.exit(f"not alive: {error}")
