#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Runs a test under valgrind: programs of ours only. Scripts and interpreters run as they are.
program=$1
case $(head -c 4 "$program" | tr -d '\0') in
$'\x7fELF') ;;
*) exec "$@" ;;
esac
case $program in
/usr/* | /bin/*) exec "$@" ;;
esac
# A forked child does not have the region, which is large and marked so; the search for leaks would
# probe it word by word, each a fault. And what a fork may have copied half-changed is never freed.
leaks=full
# Nor is an environment of LMDB that was lost.
case ${program##*/} in
test_fork | test_async_fork | test_readers | test_map_guard) leaks=no ;;
esac
export KVD_TEST_EMULATED=valgrind KVD_TEST_SLOW=10
exec valgrind --quiet --suppressions="$(dirname "$0")/valgrind.supp" \
    --error-exitcode=99 --leak-check="$leaks" --errors-for-leak-kinds=definite,indirect \
    --show-leak-kinds=definite,indirect --fair-sched=yes --num-callers=20 "$@"
