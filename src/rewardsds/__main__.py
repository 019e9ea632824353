"""`python -m rewardsds` is the `rewardsds` command."""

import sys

from rewardsds.cli import main

sys.exit(main())
