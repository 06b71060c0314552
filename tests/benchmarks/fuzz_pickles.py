"""Read random pickle programs: python tests/benchmarks/fuzz_pickles.py [how many, 2,000]."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from hypothesis import HealthCheck, given, settings

from hublatent.interop import untrusted
from tests.forking_reader import ForkingReader
from tests.pickle_programs import PROGRAMS, check


def main(n: int) -> None:
    """Read n programs; any that hangs, runs something or escapes as another error ends this."""
    reader = ForkingReader(untrusted.reader_command())
    untrusted._run = reader.run
    seen, longest = {True: 0, False: 0}, 0.0
    with tempfile.TemporaryDirectory() as folder:

        @settings(
            max_examples=n, deadline=None, database=None, suppress_health_check=list(HealthCheck)
        )
        @given(PROGRAMS)
        def run(program: bytes) -> None:
            nonlocal longest
            start = time.monotonic()
            seen[check(program, Path(folder) / "program.pkl")] += 1
            longest = max(longest, time.monotonic() - start)

        start = time.monotonic()
        run()
    reader.close()
    print(
        f"{sum(seen.values())} programs in {time.monotonic() - start:.0f} s: {seen[True]} read, "
        f"{seen[False]} refused; the longest took {longest:.2f} s"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
