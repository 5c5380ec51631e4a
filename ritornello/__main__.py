"""``python -m ritornello`` is ``ritornello``."""

from __future__ import annotations

import sys

from ritornello.cli import main

sys.exit(main())
