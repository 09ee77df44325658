"""`python -m rankdistill` is `rankdistill`."""

import sys

from .cli import main

sys.exit(main())
