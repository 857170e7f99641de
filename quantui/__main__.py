"""``python -m quantui``."""

import sys

from quantui.cli import main

if __name__ == "__main__":
    sys.exit(main())
