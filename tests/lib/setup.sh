# SPDX-License-Identifier: MIT
#
# What ./run and ./check have in common: a known environment, the packages of packages.txt, and
# build folders that repair themselves. Sourced by bash with $root set to the source tree.
# shellcheck shell=bash disable=SC2154

export LC_ALL=C.UTF-8
export PATH="/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin:$PATH"
export PYTHONDONTWRITEBYTECODE=1
unset CDPATH

say() {
    printf '%s\n' "$*"
}

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# kvd reopens its memory read-only through /proc/self/fd. A bare chroot has no /proc; then the
# command runs again in a mount namespace of its own, so that nothing stays mounted.
require_proc() {
    if [ -e /proc/self/fd ]; then
        return
    fi
    if [ "$(id -u)" != 0 ] || [ -n "${KVD_SETUP_MOUNTED:-}" ]; then
        die "/proc is not mounted here, and kvd needs it. As root: mount -t proc proc /proc"
    fi
    say "note: /proc is not mounted here; mounting it for this command only"
    # shellcheck disable=SC2016 # expanded by the inner shell
    KVD_SETUP_MOUNTED=1 exec unshare --mount --propagation unchanged /bin/bash -c '
        mount -t proc proc /proc || exit 1
        [ -d /sys/kernel ] || mount -t sysfs sysfs /sys || true
        [ -e /dev/pts/ptmx ] || mount -t devpts -o newinstance,ptmxmode=0666 devpts /dev/pts || true
        exec "$0" "$@"' "$root/${0##*/}" "$@"
    die "cannot make a mount namespace. As root: mount -t proc proc /proc"
}

# Names in the given sections of packages.txt.
packages_listed() {
    local wanted=" $* " line section=''
    while IFS= read -r line; do
        line=${line%%#*}
        line=${line%"${line##*[![:space:]]}"}
        case $line in
        '') ;;
        '['*']')
            section=${line#[}
            section=${section%]}
            ;;
        *) case $wanted in *" $section "*) say "$line" ;; esac ;;
        esac
    done <"$root/packages.txt"
}

packages_missing() {
    local name installed
    command -v dpkg-query >/dev/null || die "this is not Debian: install what packages.txt names" \
        "and build by hand, see README.md"
    installed=$'\n'$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' 2>/dev/null)$'\n'
    for name in $(packages_listed "$@"); do
        case $installed in
        *$'\n'"installed $name"$'\n'*) ;;
        *) say "$name" ;;
        esac
    done
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    else
        sudo -n "$@"
    fi
}

# A freshly installed server must not be started, now or at the next boot: a policy for the
# installation if there is none, and the service switched off if it was not there before.
policy_file=/usr/sbin/policy-rc.d
policy_mark='kvd-setup: removed when the installation is over'

policy_put() {
    if [ -e "$policy_file" ] && ! grep -qs "$policy_mark" "$policy_file"; then
        return
    fi
    printf '#!/bin/sh\n# %s\nexit 101\n' "$policy_mark" | as_root tee "$policy_file" >/dev/null &&
        as_root chmod 755 "$policy_file"
}

policy_remove() {
    if grep -qs "$policy_mark" "$policy_file"; then
        as_root rm -f "$policy_file"
    fi
}

packages_install() {
    local missing log
    missing=$(packages_missing "$@")
    if [ -z "$missing" ]; then
        return
    fi
    # shellcheck disable=SC2086 # a list of words
    set -- $missing
    if [ "$(id -u)" != 0 ] && ! sudo -n true 2>/dev/null; then
        die "packages are missing and this is not root. Run:" \
            "apt-get install --no-install-recommends $*"
    fi
    say "installing $# packages: $*"
    log=$(mktemp)
    trap 'policy_remove; rm -f "$log"' EXIT
    policy_put || die "cannot write $policy_file"
    export DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true
    local options=(-q -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 -o Dpkg::Use-Pty=0
        -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold)
    # A third-party source that is down must not stand in the way: install decides.
    as_root apt-get "${options[@]}" update >"$log" 2>&1 </dev/null || tail -n 5 "$log" >&2
    if ! as_root env DEBIAN_FRONTEND=noninteractive apt-get "${options[@]}" install \
        --no-install-recommends "$@" >>"$log" 2>&1 </dev/null; then
        tail -n 30 "$log" >&2
        die "apt-get could not install the packages (above: its last lines). Is the network there?"
    fi
    if [[ " $* " == *' redis-server '* ]] && [ -d /run/systemd/system ]; then
        as_root systemctl disable --quiet redis-server.service || true
    fi
    policy_remove
    rm -f "$log"
    trap - EXIT
}

# configure FOLDER OPTION...: a build folder with exactly these options. One made with others, or
# for a tree that has moved since, is made anew.
configure() {
    local folder=$1 stamp before
    shift
    stamp="$root|$*|${CC:-}"
    before=$(cat "$folder/.configured" 2>/dev/null)
    if [ -f "$folder/build.ninja" ] && [ "$before" = "$stamp" ]; then
        return
    fi
    if [ -d "$folder/meson-private" ]; then
        rm -rf "$folder/meson-private" "$folder/meson-info" "$folder/build.ninja" \
            "$folder/.ninja_log" "$folder/.ninja_deps"
    fi
    rm -f "$folder/.configured"
    mkdir -p "$folder" && meson setup "$folder" "$root" "$@" &&
        printf '%s\n' "$stamp" >"$folder/.configured"
}
