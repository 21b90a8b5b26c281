# SPDX-License-Identifier: MIT
#
# How ./check runs a group: as a job that can be stopped at once, with all that it has started, and
# counted honestly however it ends. Sourced by ./check, and by its test with groups of its own.
# shellcheck shell=bash disable=SC2154

# Everything temporary of all tests goes into one folder: easy to remove, to see what was left, and
# to know by: a process with that folder as its TMPDIR is ours.
groups_begin() {
    # Tenths of a second that a process which was killed may take to be gone: the kernel takes a
    # large one apart as it finds time.
    groups_patience=300
    temporary=$(mktemp -d "${TMPDIR:-/tmp}/kvd-check.XXXXXX") ||
        die "cannot make a temporary folder"
    trap 'rm -rf "$temporary" ${memory:+"$memory"}' EXIT
    trap 'groups_interrupted INT' INT
    trap 'groups_interrupted TERM' TERM
    trap 'groups_interrupted HUP' HUP
    chmod 755 "$temporary" # tests that drop to another uid have to get in
    mkdir -m 1777 "$temporary/tests" || die "cannot make $temporary/tests"
    export TMPDIR=$temporary/tests
    if memory=$(groups_memory); then
        export KVD_TEST_MEMORY_DIR=$memory
    fi
    state=$temporary/results
    group=
    job=
}

# Another folder, in memory: for tests that sync thousands of times and crash only themselves.
# Not where it has no room for them, as in a container.
groups_memory() {
    local free
    free=$(df --output=avail --block-size=1M /dev/shm 2>/dev/null | tail -n 1)
    [ "${free:-0}" -ge 1024 ] && mktemp -d /dev/shm/kvd-check.XXXXXX
}

results() {
    /usr/bin/python3 "$root/tests/lib/results.py" "$state" "$@"
}

# Ids of the processes that the tests have started and that still run.
groups_processes() {
    local file files
    mapfile -t files < <(env -u TMPDIR grep -lzsF "TMPDIR=$temporary/" /proc/[0-9]*/environ)
    for file in ${files[@]+"${files[@]}"}; do
        file=${file#/proc/}
        say "${file%/environ}"
    done
}

# Their command lines, from /proc: a minimal machine has no ps.
groups_names() {
    local pid
    groups_processes | while read -r pid; do
        tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | cut -c 1-80
    done | paste -sd ';'
}

# groups_wait TENTHS: until none of them runs, so long at the most.
groups_wait() {
    local tenths
    for ((tenths = 0; tenths < $1; tenths++)); do
        [ -n "$(groups_processes)" ] || return 0
        sleep 0.1
    done
    return 1
}

groups_kill() {
    local pids
    mapfile -t pids < <(groups_processes)
    [ ${#pids[@]} = 0 ] || kill -KILL "${pids[@]}" 2>/dev/null
}

# Meson is asked first: it ends its tests, each of which is a session of its own.
groups_interrupted() {
    trap '' INT TERM HUP
    if [ -n "$job" ]; then
        kill -TERM -- "-$job" 2>/dev/null
        groups_wait 20
        kill -KILL -- "-$job" 2>/dev/null
    fi
    until groups_wait 1; do
        groups_kill
    done
    results one "${group:-check}" 'ran to its end' fail "interrupted by SIG$1"
    results total
    exit 130
}

# run_job COMMAND...: in a process group of its own, which an interrupt can end while we wait.
run_job() {
    local status
    set -m
    (
        set +m
        "$@"
    ) &
    job=$!
    set +m
    wait "$job"
    status=$?
    job=
    return "$status"
}

run_group() {
    say "== $1"
    run_as_group "$1" "group_$1"
}

# run_as_group GROUP COMMAND...: environment that the command exports is its own; results go
# through the state file.
run_as_group() {
    local started=$EPOCHREALTIME elapsed_ms left status
    group=$1
    shift
    run_job "$@"
    status=$?
    elapsed_ms=$(((${EPOCHREALTIME/./} - ${started/./}) / 1000))
    if ! groups_wait "$groups_patience"; then
        left=$(groups_names)
        results one "$group" 'leaves nothing running' fail "$left"
        groups_kill
    fi
    # The sanitizer's own file, of a process that was killed as it started.
    find "${TMPDIR:?}" -maxdepth 1 -type f -name 'tsan.rodata.*' -delete
    left=$(find "$TMPDIR" ${memory:+"$memory"} -mindepth 1 -maxdepth 1 -printf '%f ' |
        head -c 200)
    if [ -n "$left" ]; then
        results one "$group" 'leaves nothing behind' fail "$left"
        find "${TMPDIR:?}" ${memory:+"$memory"} -mindepth 1 -delete
    fi
    results group "$group" "$((elapsed_ms / 1000)).$((elapsed_ms % 1000 / 100))" "$status"
}
