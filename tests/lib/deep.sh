# SPDX-License-Identifier: MIT
#
# The long runs behind ./check --deep: each may take up to an hour a part, prints its seed and
# commit, and leaves its counts in build/deep for the summary. Sourced by ./check, whose functions
# it uses. shellcheck shell=bash disable=SC2154

# A deep run is a function deep_NAME PART PARTS. Here all of them: in how many parts one goes as a
# whole, and how many minutes the whole takes on two processors that do nothing else.
deep_plan=(model:1:2 systemd:1:4 arm64:1:5 stops:1:5 storms:1:5 mutants:1:5 step:1:10
    crashstates:1:10 faults:1:12 histories:1:15 kills:2:40 oracle:1:31 soak:1:31 torture:1:35
    readers:2:35 simulate:2:50 fuzz:2:70)
deep_names=("${deep_plan[@]%%:*}")
deep_file=$root/build/deep/results.jsonl

# fuzz_program PROGRAM EXECUTIONS SEED: first its corpus, then new input. A time of its own ends
# what hangs; too few executions are seen by their count.
fuzz_program() {
    local program=$1 executions=$2 seed=$3 name=${1##*/} finds="$root/build/fuzz/finds" corpus log
    local status
    corpus="$TMPDIR/$name"
    log="$temporary/$name.log"
    mkdir -p "$corpus"
    if [ -d "$root/tests/fuzz/corpus/${name#fuzz_}" ]; then
        cp -r "$root/tests/fuzz/corpus/${name#fuzz_}/." "$corpus"
    fi
    steady "$program" -seed="$seed" -runs="$executions" -max_total_time=3500 -timeout=10 \
        -rss_limit_mb=4096 -print_final_stats=1 -artifact_prefix="$finds/$name-" "$corpus" \
        >"$log" 2>&1
    status=$?
    if [ "$status" = 0 ]; then
        results one "$group" "$name, $executions executions, seed $seed" ok
        results count "$group" "fuzz-executions/${name#fuzz_}" \
            "$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")"
    else
        grep -vE '^#[0-9]+' "$log" | tail -n 40 | sed 's/^/    /'
        results one "$group" "$name, $executions executions, seed $seed" fail \
            "exit status $status, input in $finds"
    fi
    rm -rf "$corpus"
}

# fuzz_programs EXECUTIONS [PART]: every fuzz target of build/fuzz, one on each processor. Finds go
# to build/fuzz/finds.
fuzz_programs() {
    local executions=$1 seed=$((${KVD_TEST_SEED:-1} % 1000000000 + ${2:-1})) index=0 program
    local processors
    processors=$(nproc)
    mkdir -p "$root/build/fuzz/finds"
    for program in "$root"/build/fuzz/tests/fuzz/fuzz_*; do
        if [ ! -f "$program" ] || [ ! -x "$program" ]; then
            continue
        fi
        index=$((index + 1))
        while [ "$(jobs -rp | wc -l)" -ge "$processors" ]; do
            wait -n # how it went is counted by itself
        done
        fuzz_program "$program" "$executions" "$seed" &
    done
    wait
    if [ "$index" = 0 ]; then
        results one "$group" 'has targets' fail 'none were built'
    fi
}

# Every part fuzzes every target, with a seed of its own.
deep_fuzz() {
    fuzz_build && fuzz_programs $((${KVD_DEEP_EXECUTIONS:-30000000} / $2 + 1)) "$1"
}

# More operations a model; the result is the same for any seed.
deep_model() {
    build "$root/build" || return
    export KVD_DEEP=1
    suite "$root/build" model --timeout-multiplier 0
}

# Six torture programs read KVD_TEST_SECONDS; parts differ by their seed.
deep_torture() {
    build "$root/build" || return
    export KVD_TEST_SEED=$((KVD_TEST_SEED + $1 - 1))
    export KVD_TEST_SECONDS=${KVD_DEEP_SECONDS:-300}
    suite "$root/build" torture --timeout-multiplier 0
}

# Half an hour of everything at once, in all parts.
deep_soak() {
    build "$root/build" || return
    export KVD_TEST_SEED=$((KVD_TEST_SEED + $1 - 1))
    export KVD_TEST_SOAK_SECONDS=$((1800 / $2 + 1))
    suite "$root/build" torture --timeout-multiplier 0 soak
}

# kvd killed at every instruction: half a million boundaries that changed the region, in all parts.
deep_step() {
    build "$root/build" || return
    export KVD_TEST_SEED=$((KVD_TEST_SEED + $1 - 1))
    export KVD_STEP_BOUNDARIES=$((500000 / $2 / 2 + 1))
    suite "$root/build" unit --timeout-multiplier 0 'step_adoption 1' 'step_adoption 2'
}

# kvd killed with its region kept, 1000 times in a row under four readers and two writers, under
# every policy, as soon as it serves and 5 ms apart: each part does some of these eight campaigns.
deep_kills() {
    local names number=0 chosen=()
    build "$root/build" || return
    mapfile -t names < <(test_names "$root/build" deep '')
    while [ "$number" -lt "${#names[@]}" ]; do
        if [ $((number % $2 + 1)) = "$1" ]; then
            chosen+=("${names[$number]}")
        fi
        number=$((number + 1))
    done
    if [ ${#chosen[@]} -gt 0 ]; then
        export KVD_TEST_KILLS=${KVD_TEST_KILLS:-1000}
        suite "$root/build" deep --timeout-multiplier 0 "${chosen[@]}"
    fi
}

# Of all parts: 20 000 readers killed inside a section, 10^10 reads that look for poison.
deep_readers() {
    build "$root/build" || return
    export KVD_TEST_SEED=$((KVD_TEST_SEED + $1 - 1))
    export KVD_TEST_KILLS=$((20000 / 2 / $2 + 1)) KVD_TEST_READS=$((5000000000 / $2 + 1))
    suite "$root/build" torture --timeout-multiplier 0 'readers killed, light' \
        'readers killed, fenced'
}

# 1000 readers stopped inside a section until it was revoked, in all parts.
deep_stops() {
    build "$root/build" || return
    export KVD_TEST_SEED=$((KVD_TEST_SEED + $1 - 1))
    export KVD_TEST_STOPS=$((1000 / 2 / $2 + 1))
    suite "$root/build" torture --timeout-multiplier 0 'readers stopped, light' \
        'readers stopped, fenced'
}

# 100 000 processes that come and go in every way, and each request cut at every byte 20 times.
deep_storms() {
    build "$root/build" || return
    export KVD_TEST_SEED=$((KVD_TEST_SEED + $1 - 1))
    export KVD_TEST_STORM=$((100000 / $2 + 1)) KVD_TEST_ROUNDS=$((20 / $2 + 1))
    suite "$root/build" torture --timeout-multiplier 0 'processes come and go' \
        'writers killed at every byte'
}

# 2000 histories in all parts, each one of its own.
deep_histories() {
    build "$root/build" || return
    export KVD_TEST_HISTORIES=$(((2000 + $2 - 1) / $2))
    export KVD_TEST_HISTORY_FIRST=$((($1 - 1) * KVD_TEST_HISTORIES))
    suite "$root/build" system --timeout-multiplier 0 histories
}

# Crashes of the device: 50 000 states of the store's folder, in all parts.
deep_crashstates() {
    build "$root/build" || return
    export KVD_TEST_SEED=$((KVD_TEST_SEED + ($1 - 1) * 100000))
    export KVD_CRASH_STATES=$((50000 / $2 + 1))
    suite "$root/build" unit --timeout-multiplier 0 crash_states
}

# 50 000 simulated seeds in all parts, each part's its own.
deep_simulate() {
    build "$root/build" || return
    export KVD_SIM_SEEDS=$((50000 / $2 + 1))
    export KVD_TEST_SEED=$((KVD_TEST_SEED * 100000 + $1 * KVD_SIM_SEEDS))
    suite "$root/build" simulation --timeout-multiplier 0
}

# Every call of kvd's that may fail, one after the other, failing; parts of them each.
deep_faults() {
    build "$root/build" || return
    export KVD_FAULTS_EACH=all KVD_FAULTS_PART=$1/$2
    suite "$root/build" torture --timeout-multiplier 0 faults faults_client \
        faults_kvctl
}

# Every known mistake, not only those that are noticed quickly.
deep_mutants() {
    build "$root/build" || return
    export KVD_MUTANTS=all KVD_MUTANTS_PART=$1/$2
    suite "$root/build" mutants --timeout-multiplier 0
}

# The oracle reads KVD_ORACLE_PART: sequences of its own for each part.
deep_oracle() {
    build "$root/build" || return
    export KVD_ORACLE_PART=$1/$2 KVD_ORACLE_SECONDS=${KVD_DEEP_SECONDS:-1800}
    suite "$root/build" system --timeout-multiplier 0 oracle
}

# kvd as a service of a booted systemd. The tree that is booted stays in build/.
deep_systemd() {
    build "$root/build" || return
    tap systemd /usr/bin/python3 "$root/tests/systemd/boot.py" "$root/build/systemd-tree" \
        "$root/build"
}

# Foreign headers and libraries for arm64, unpacked, not installed: apt with a state of its own.
arm64_sysroot() {
    local sysroot=$1 apt="$temporary/apt"
    if [ -f "$sysroot/.complete" ]; then
        return 0
    fi
    mkdir -p "$apt/state/lists/partial" "$apt/cache/archives/partial" "$sysroot"
    : >"$apt/status"
    local options=(-q -o APT::Architecture=arm64 -o APT::Architectures::=arm64
        -o Dir::State="$apt/state" -o Dir::State::status="$apt/status" -o Dir::Cache="$apt/cache"
        -o Acquire::Retries=3 -o APT::Sandbox::User=root)
    apt-get "${options[@]}" update || return
    (cd "$apt" && apt-get "${options[@]}" download liblmdb-dev liblmdb0 \
        libcjson-dev libcjson1 libbsd-dev libbsd0 libmd-dev libmd0 libxxhash-dev libxxhash0 \
        libinih-dev libinih1) || return
    for package in "$apt"/*.deb; do
        dpkg-deb -x "$package" "$sysroot" || return
    done
    # A linker script with an absolute path, which would name this machine's library.
    ln -sf libbsd.so.0 "$sysroot/usr/lib/aarch64-linux-gnu/libbsd.so" || return
    touch "$sysroot/.complete"
}

# No sys_root: pkg-config would put it before every path unquoted, and a space would split it.
arm64_cross_file() {
    local sysroot=$1 libraries="$1/usr/lib/aarch64-linux-gnu"
    cat <<CROSS
[binaries]
c = 'aarch64-linux-gnu-gcc'
ar = 'aarch64-linux-gnu-ar'
strip = 'aarch64-linux-gnu-strip'
pkgconfig = 'pkg-config'
exe_wrapper = ['qemu-aarch64', '-L', '/usr/aarch64-linux-gnu', '-E', 'LD_LIBRARY_PATH=$libraries']
[built-in options]
c_args = ['-isystem', '$sysroot/usr/include', '-isystem', '$sysroot/usr/include/aarch64-linux-gnu']
c_link_args = ['-L$libraries', '-Wl,-rpath-link,$libraries']
[properties]
pkg_config_libdir = '$libraries/pkgconfig'
[host_machine]
system = 'linux'
cpu_family = 'aarch64'
cpu = 'aarch64'
endian = 'little'
CROSS
}

# The contract, the client and the tools on the other memory model and the other crc32c: unit tests,
# cross-built.
deep_arm64() {
    local sysroot="$root/build/arm64-sysroot" names
    if ! arm64_sysroot "$sysroot" >"$temporary/sysroot.log" 2>&1; then
        tail -n 5 "$temporary/sysroot.log"
        results one "$group" 'arm64 packages' fail 'could not be fetched'
        return
    fi
    arm64_cross_file "$sysroot" >"$temporary/arm64.cross"
    if ! cmp -s "$temporary/arm64.cross" "$root/build/arm64.cross"; then
        rm -f "$root/build/arm64/.configured" # made with the one before
        cp "$temporary/arm64.cross" "$root/build/arm64.cross" || return
    fi
    build "$root/build/arm64" --cross-file "$root/build/arm64.cross" || return
    # Programs only, of what clients run: scripts, and kvd looking at its store, start others
    # without the emulator.
    mapfile -t names < <(test_names "$root/build/arm64" unit 'tests/(shm|libclient|tools)/')
    export KVD_TEST_EMULATED=1 KVD_TEST_SLOW=6
    suite "$root/build/arm64" unit --timeout-multiplier 10 "${names[@]}"
}

deep_commit() {
    local commit
    commit=$(git -C "$root" rev-parse --short=12 HEAD 2>/dev/null || say unknown)
    if [ -n "$(git -C "$root" status --porcelain 2>/dev/null)" ]; then
        commit="$commit+changes"
    fi
    say "$commit"
}

# deep_part NAME PART PARTS COMMIT: one part, and its record.
deep_part() {
    local started=$SECONDS now
    say "== deep $1, part $2 of $3, seed $KVD_TEST_SEED, commit $4"
    run_as_group "$1-$2" "deep_$1" "$2" "$3"
    now=$(deep_commit)
    [ "$now" = "$4" ] || die "the tree has become commit $now meanwhile: this part shows nothing"
    deep_records record "$1" "$2/$3" "$KVD_TEST_SEED" "$4" "$((SECONDS - started))" \
        "$(results report "$1-$2")" || die "cannot write to $deep_file"
}

deep_records() {
    local verb=$1
    shift
    /usr/bin/python3 "$root/tests/lib/summary.py" "$verb" "$deep_file" "$@"
}

# deep_run NAME I/N: that part of one run or, without a name, of each. Without a part, all parts
# of the plan that have not passed with this very commit; so what was interrupted is gone on with.
deep_run() {
    local commit name row parts part minutes todo=() left=0
    commit=$(deep_commit)
    export KVD_TEST_SEED=${KVD_TEST_SEED:-$(($(od -An -N4 -tu4 /dev/urandom)))}
    if [ -z "$1$2" ] && [[ $commit = unknown || $commit = *+* ]]; then
        die "the tree is not that of a commit, so hours of tests would show nothing"
    fi
    mkdir -p "${deep_file%/*}" || die "cannot make ${deep_file%/*}"
    for row in "${deep_plan[@]}"; do
        IFS=: read -r name parts minutes <<<"$row"
        [ "${1:-$name}" = "$name" ] || continue
        if [ -n "$2" ]; then
            deep_part "$name" "${2%/*}" "${2#*/}" "$commit"
            continue
        fi
        for ((part = 1; part <= parts; part++)); do
            if deep_records passed "$name" "$part/$parts" "$commit"; then
                results one "$name-$part" 'has passed before' ok
            else
                todo+=("$name $part $parts $((minutes * 60 / parts))")
                left=$((left + minutes * 60 / parts))
            fi
        done
    done
    for row in ${todo[@]+"${todo[@]}"}; do
        say "deep runs: about $((left / 3600)) h $((left / 60 % 60)) min to go, on 2 processors"
        read -r name part parts minutes <<<"$row"
        deep_part "$name" "$part" "$parts" "$commit"
        left=$((left - minutes))
    done
    if [ -z "$1$2" ]; then
        if deep_summary; then
            results one summary 'the long runs of one commit reach every goal' ok
        else
            results one summary 'the long runs of one commit reach every goal' fail 'see above'
        fi
    fi
}

# The last result of every part of every deep run of this commit, added up.
deep_summary() {
    deep_records show "$(deep_commit)" "${deep_names[@]}"
}
