"""``python -m sb3_dqs.zoo <script> ...``"""

import sys

from sb3_dqs.zoo.forward import main

if __name__ == "__main__":
    sys.exit(main())
