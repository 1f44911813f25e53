"""``python -m sb3_dqs <script> ...``"""

import sys

from sb3_dqs.command_line import main

if __name__ == "__main__":
    sys.exit(main())
