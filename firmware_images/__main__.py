"""python3 -m firmware_images, for where the console script is not installed."""

import sys

from firmware_images.cli import main

sys.exit(main())
