#!/usr/bin/python3
# SPDX-License-Identifier: MIT
#
# node-redis, unchanged, on kvd's socket and on Redis's: client_node.js is the conversation.
# KVD_NODE_MODULES names a folder with another version than Debian's (RESP3 from 5 on).
import json
import os
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, '..', 'lib'))
from kvdtest import Tap, _die_with_parent  # noqa: E402
from transcript import OVER, main  # noqa: E402

MODULES = os.environ.get('KVD_NODE_MODULES', '/usr/share/nodejs')
LIMIT_S = 120


def version(node):
    """Of node-redis, None without it."""
    run = subprocess.run([node, '-p', 'require("redis/package.json").version'],
                         env={**os.environ, 'NODE_PATH': MODULES}, capture_output=True, text=True,
                         check=False)
    return run.stdout.strip() if run.returncode == 0 else None


def conversation(node, script, *arguments):
    def talk(path):
        run = subprocess.run([node, os.path.join(HERE, script), path, *arguments],
                             env={**os.environ, 'NODE_PATH': MODULES}, capture_output=True,
                             text=True, timeout=LIMIT_S, preexec_fn=_die_with_parent, check=False)
        entries = [tuple(json.loads(line)) for line in run.stdout.splitlines()]
        if run.returncode or not entries or entries[-1] != OVER:
            entries.append(('ended', f'exit status {run.returncode}: {run.stderr[-1000:]}'))
        return entries
    return talk


def run(tap, both):
    node = shutil.which('node')
    found = node and version(node)
    if not found:
        tap.skip('node-redis', f'node or its module redis is not installed in {MODULES}')
        return
    tap.diag(f'node-redis {found}')
    both.converse(tap, 'node-redis RESP2', conversation(node, 'client_node.js', '2'))
    if int(found.split('.')[0]) >= 5:
        both.converse(tap, 'node-redis RESP3', conversation(node, 'client_node.js', '3'))
    else:
        tap.skip('node-redis RESP3', f'node-redis {found} speaks RESP2 only')


if __name__ == '__main__':
    main(run)
