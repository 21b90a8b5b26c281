# SPDX-License-Identifier: MIT
#
# How much of what is counted (`# counted NAME N` in a test's output) a whole ./check has to have
# seen, and all parts of the deep runs together. The one place for these numbers: ./check fails
# below them, and the summary of the deep runs says what is missing.
"""goals.py fuzzed: names of the fuzz targets."""
import sys

# name: (a whole ./check, the deep runs of one commit)
GOALS = {
    'daemon-kills': (50, 5_000),
    'reader-kills': (200, 20_000),
    'stops': (20, 1_000),
    'step-boundaries': (20_000, 500_000),
    'crash-states': (500, 50_000),
    'seeds-simulated': (500, 50_000),
    'faults-injected': (300, 1_500),
    'histories': (30, 2_000),
    'fresh-scans': (5, 100),
    'soak-seconds': (1, 1_800),
    'poison-reads': (30_000_000, 10_000_000_000),
    'mutants-spin': (24, 24),
    'mutants-code': (10, 30),
}
FUZZED = ('block', 'load', 'pages', 'region', 'resp')
FUZZ_EXECUTIONS = (50_000, 30_000_000)

GOALS.update({f'fuzz-executions/{target}': FUZZ_EXECUTIONS for target in FUZZED})

# Of the branches in a folder, the percentage that ./check --coverage has to have seen taken.
COVERAGE = {'daemon/': 85, 'libclient/': 100, "shm's read path": 100}

CHECK = {name: goal[0] for name, goal in GOALS.items()}
DEEP = {name: goal[1] for name, goal in GOALS.items()}

if __name__ == '__main__':
    if sys.argv[1:] != ['fuzzed']:
        sys.exit(__doc__)
    print(*FUZZED)
