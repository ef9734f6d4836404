"""``python -m pixsieve`` is the command ``pixsieve``."""

import sys

from pixsieve.cli import main

sys.exit(main())
