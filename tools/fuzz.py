"""Looks for inputs that a reader stumbles over, led by what code they reach (atheris).

    pip install '.[fuzz]'
    python tools/fuzz.py ticket --cases=10000      # a reader of tests/readers.py
    python tools/fuzz.py all                       # each of them, in a process of its own

A finding is an error that the reader is not documented to raise, 20 s for one case, or 4 GB of memory. Its
bytes are left in the current folder: `python tools/fuzz.py ticket crash-...` runs that one case again.
"""

import argparse
import hashlib
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import traceback

ROOT = pathlib.Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
LONGEST = 2048  # bytes to choose by


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("reader")
    parser.add_argument("case", nargs="?", help="a file with the bytes of one case")
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    try:
        import atheris
    except ImportError:
        sys.exit(
            "This needs atheris, which there is for CPython 3.11 to 3.13 on Linux: pip install '.[fuzz]'"
        )
    with atheris.instrument_imports(include=["tf_lottery", "safetensors", "zipfile", "gzip", "json"]):
        import readers
    if asked.reader == "all":
        words = [f"--cases={asked.cases}", f"--seed={asked.seed}"]
        done = [subprocess.run([sys.executable, __file__, name, *words]) for name in readers.READERS]
        sys.exit(any(one.returncode for one in done))  # which is negative where a signal ended one
    if asked.reader not in readers.READERS:
        sys.exit(f"There is no reader {asked.reader!r}. There are: all, {', '.join(readers.READERS)}.")
    read, _ = readers.READERS[asked.reader]
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as begin:
        folder = pathlib.Path(folder)
        read(readers.Choices(b""), folder)  # what is imported and built once
        for number in range(64):
            rng = random.Random(asked.seed + number)
            pathlib.Path(begin, str(number)).write_bytes(rng.randbytes(rng.randint(32, 256)))
        limits = ["-timeout=20", "-rss_limit_mb=4096", f"-max_len={LONGEST}"]
        what = [asked.case] if asked.case else [f"-runs={asked.cases}", f"-seed={asked.seed}", begin]

        def look(data):
            try:
                read(readers.Choices(data), folder)
            except BaseException:
                traceback.print_exc()
                name = f"crash-{asked.reader}-{hashlib.sha256(data).hexdigest()[:8]}"
                pathlib.Path(name).write_bytes(data)
                print(f"Found: {name}", file=sys.stderr, flush=True)
                os._exit(77)  # libFuzzer's own way waits for TensorFlow's threads

        atheris.Setup([sys.argv[0], *limits, *what], look)
        print(f"{asked.reader}:", flush=True)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
