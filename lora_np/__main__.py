"""python -m lora_np"""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
