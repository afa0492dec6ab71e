"""`python -m service`: the same command as `countersign`."""

import sys

from service.cli import main

sys.exit(main())
