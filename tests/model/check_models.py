#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Runs the Spin models, as TAP: the protocols as specified must hold in every interleaving, and
every mutant, which leaves out one thing a protocol asks for, must be caught by the claim named
here. A mutant that passes means that the model has lost its teeth, so it fails the test. KVD_DEEP=1
explores more."""

import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
DEEP = os.environ.get("KVD_DEEP") == "1"

# What a violated claim looks like in pan's output.
GARBAGE = r"assertion violated .*garbage"
INEXACT = r"assertion violated .*seen"
MISSED = r"assertion violated .*was_absent"
OLDER = r"assertion violated .*found>=floor"

# model, defines, claim that must be violated (None: none), name
RUNS = [
    ("reader.pml", "", None, "B: reader protocol with membarrier"),
    ("reader.pml", "FENCED", None, "B: reader protocol, fenced readers"),
    ("reader.pml", "REVOKE", None, "B: with revocation"),
    ("reader.pml", "FENCED REVOKE", None, "B: with revocation, fenced readers"),
    ("reader.pml", "MUTANT_EPOCH_NOT_ACQUIRED SECOND_MEMBARRIER", None,
     "B: a second membarrier would replace the acquire"),
    ("reader.pml", "MUTANT_NO_MEMBARRIER", GARBAGE, "no membarrier"),
    ("reader.pml", "FENCED MUTANT_NO_FENCE", GARBAGE, "fenced mode without the reader's fence"),
    ("reader.pml", "MUTANT_EPOCH_NOT_ACQUIRED", GARBAGE, "epoch load not acquire"),
    ("reader.pml", "MUTANT_LEAVE_RELAXED", GARBAGE, "leave not release"),
    ("reader.pml", "MUTANT_FREE_BEFORE_SCAN", GARBAGE, "freed before the scan"),
    ("reader.pml", "MUTANT_BUMP_BEFORE_UNLINK", GARBAGE, "epoch opened before the unlink"),
    ("reader.pml", "MUTANT_STAMP_OFF_BY_ONE", GARBAGE, "readers of the stamp's own epoch ignored"),
    ("reader.pml", "REVOKE MUTANT_CHECK_BEFORE_USE", GARBAGE, "validity checked before use"),
    ("reader.pml", "REVOKE MUTANT_NO_FENCE_BEFORE_CHECK", GARBAGE,
     "no acquire fence before the check"),
    ("reader.pml", "REVOKE MUTANT_FLAG_IN_WORD", GARBAGE,
     "revoked flag in the word the reader stores"),
    ("reader.pml", "REVOKE MUTANT_FLAG_STICKY", INEXACT, "boolean revoked flag, never cleared"),
    ("reader.pml", "REVOKE MUTANT_FLAG_PER_SCAN", INEXACT,
     "boolean revoked flag, cleared by the scan"),
    ("detach.pml", "", None, "B: detaching a page with membarrier"),
    ("detach.pml", "FENCED", None, "B: detaching a page, fenced readers"),
    ("detach.pml", "MUTANT_NO_MEMBARRIER", GARBAGE, "detach without membarrier"),
    ("detach.pml", "MUTANT_MARK_FIRST", GARBAGE, "page state looked at before the announcement"),
    ("detach.pml", "MUTANT_DROP_AT_ONCE", GARBAGE, "page forgotten with a section open"),
    ("table.pml", "OPERATIONS=%d" % (6 if DEEP else 5), None, "A: table growth against a search"),
    ("table.pml", "MUTANT_CLEAR_FIRST", MISSED,
     "moved entries cleared before the root is published"),
    ("table.pml", "MUTANT_ROOT_FIRST", MISSED, "root published before the chain is filled"),
    ("table.pml", "MUTANT_NO_CLEAR OPERATIONS=4 BUCKETS=20", OLDER, "moved entries not cleared"),
    ("table.pml", "MUTANT_BELIEVE_MISS", MISSED, "a miss without a second look at the root"),
    ("table.pml", "MUTANT_NO_TURNS", MISSED, "grow, shrink, grow without the turns counter"),
    ("table.pml", "MUTANT_MOVE_IN_CHAIN", MISSED, "entries moved within a chain without a turn"),
    ("table.pml", "MUTANT_MOVE_CLEAR_FIRST", MISSED, "the same, cleared before the turn"),
    ("table.pml", "MUTANT_REUSE_AT_ONCE", MISSED, "overflow bucket reused without a grace period"),
    ("table.pml", "MUTANT_INSERT_NEW", MISSED, "a replacement put into another place"),
    ("table.pml", "MUTANT_NOT_IN_PLACE", MISSED, "a replacement in two stores"),
    ("reseed.pml", "OPERATIONS=%d" % (11 if DEEP else 7), None,
     "A: another hash key against a search"),
    ("reseed.pml", "MUTANT_NO_MIRROR", OLDER, "changes made on the serving side alone"),
    ("reseed.pml", "MUTANT_PUBLISH_EARLY", MISSED, "half a side published"),
    ("reseed.pml", "MUTANT_BELIEVE_HASH", MISSED, "a miss believed by a hash of before"),
    ("reseed.pml", "MUTANT_ONE_KEY", MISSED + "|" + OLDER, "one hash key for both sides"),
    ("reseed.pml", "MUTANT_KEY_LATE", MISSED, "the hash key written after the root"),
    ("reseed.pml", "MUTANT_REUSE_AT_ONCE", MISSED, "a side filled again at once"),
    ("reseed.pml", "MUTANT_ACK_FIRST", OLDER, "acknowledged on one side, published without"),
]


def pan(model, defines, folder):
    """Output of the verifier generated from one model and its defines."""
    flags = ["-D" + define for define in defines.split()]
    subprocess.run(["spin", "-a", *flags, os.path.join(HERE, model)], cwd=folder, check=True,
                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    compiler = os.environ.get("CC", "cc").split()
    # Most runs take longer to compile than to run.
    level = "-O1" if "OPERATIONS" in defines else "-O0"
    subprocess.run([*compiler, level, "-w", "-DSAFETY", "-DCOLLAPSE", "-o", "pan", "pan.c"],
                   cwd=folder, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                   text=True)
    run = subprocess.run(["./pan", "-m100000"], cwd=folder, check=False, stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, text=True)
    return run.stdout


def verdict(output, claim):
    """None if the outcome is the expected one, else what is wrong."""
    errors = re.search(r"errors: (\d+)", output)
    if errors is None or "max search depth too small" in output or "out of memory" in output:
        return "the search did not complete"
    if claim is None:
        return None if errors.group(1) == "0" else "a claim is violated"
    if errors.group(1) == "0":
        return "the mutant was not caught"
    return None if re.search(claim, output) else "caught, but not by the claim expected"


def explore(run):
    """The verifier's output for a row of RUNS, and what is wrong with it."""
    model, defines, claim, _ = run
    with tempfile.TemporaryDirectory() as folder:
        try:
            output = pan(model, defines, folder)
            return output, verdict(output, claim)
        except subprocess.CalledProcessError as error:
            return error.stdout, "cannot build the verifier"


def main():
    if shutil.which("spin") is None:
        print("1..0 # SKIP spin is not installed (Debian package: spin)")
        return 0
    print("1..%d" % len(RUNS))
    failures = mutants = 0
    # The deep ones may need much memory: one at a time.
    pool = concurrent.futures.ThreadPoolExecutor(1 if DEEP else len(os.sched_getaffinity(0)))
    for number, (run, (output, problem)) in enumerate(zip(RUNS, pool.map(explore, RUNS)), 1):
        model, defines, claim, name = run
        states = re.search(r"(\d+) states, stored", output)
        title = name if claim is None else "mutant caught: " + name
        print("%s %d - %s (%s states)" % ("ok" if problem is None else "not ok", number, title,
                                          states.group(1) if states else "no"), flush=True)
        mutants += claim is not None and problem is None
        if problem is not None:
            failures += 1
            print("# %s %s: %s" % (model, defines, problem))
            print("".join("# %s\n" % line for line in output.splitlines()[:40]), end="")
    print("# counted mutants-spin %d" % mutants)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
