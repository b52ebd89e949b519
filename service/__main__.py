"""The command `rdrec-serve`, and no more: each process that it starts imports this module again.

An engine process has no use for the web server, whose import takes longer than all that it needs itself.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Console script."""
    from service.server import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
