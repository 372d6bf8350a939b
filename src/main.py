"""`python src/main.py task=csi model=conformer`: compose a configuration and run its job."""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    from tonnetz.cli import main

    main()
