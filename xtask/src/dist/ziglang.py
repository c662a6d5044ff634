"""Stands in front of zig where the agent is linked.

Zig passes on to its linker, LLD, only those options that it knows itself, and the ones that make the file smaller are not
among them. But it says how it calls LLD, which it carries along. So that call is made once more, with more. Whatever is no
link goes to zig as it came.
"""

import importlib.machinery
import os
import subprocess
import sys

here = os.path.dirname(os.path.abspath(__file__))
# Relative relocations in a packed form, which musl's start code reads; functions that came out the same only once (functions
# alone: where data is, is compared); and no tables for unwinding, which zig's musl brings and nobody reads.
MORE = ["--pack-dyn-relocs=relr", "--icf=all", "--no-eh-frame-hdr", "-T", os.path.join(here, "discard.ld")]

ours = os.path.realpath(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
others = [folder for folder in sys.path if os.path.realpath(folder) != ours]
found = importlib.machinery.PathFinder.find_spec("ziglang", others)
if found is None or found.origin is None:
    sys.exit("zig is not where Python looks for it")
zig = os.path.join(os.path.dirname(found.origin), "zig")
asked = sys.argv[1:]

if asked[:1] != ["cc"]:
    os.execv(zig, [zig, *asked])

done = subprocess.run(
    [zig, *asked], env={**os.environ, "ZIG_VERBOSE_LINK": "1"}, stderr=subprocess.PIPE, text=True, check=False
)
calls = []
for line in done.stderr.splitlines(keepends=True):
    if line.startswith("ld.lld "):
        calls.append(line.split())
    elif not line.startswith("ar "):
        sys.stderr.write(line)
if done.returncode != 0:
    sys.exit(done.returncode)
# Start files are linked among themselves first (-r); the last call is the program's. Names with blanks can't be told apart in
# that line; the task that called this refuses folders that have some.
programs = [call for call in calls if "-r" not in call]
if programs:
    os.execv(zig, [zig, *programs[-1], *MORE])
