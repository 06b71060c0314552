"""Scripts that train, find and measure; run as `python training/NAME.py`."""

import importlib.util
import sys

if importlib.util.find_spec("accelerate") is None:
    print("error: the training scripts need: pip install -e '.[training]'", file=sys.stderr)
    raise SystemExit(2)
