"""``python -m clipvet`` is ``clipvet``."""

import sys

from clipvet.cli import main

sys.exit(main())
