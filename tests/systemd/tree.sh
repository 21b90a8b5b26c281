#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Makes a small Debian with systemd in a folder, once, for boot.py: debootstrap of the release that
# this machine runs, from where its own apt gets packages. What is there already is kept.
# Usage: tree.sh FOLDER; says why it cannot on the standard error.
set -u -o pipefail

tree=$1
# What systemd boots with, and what kvd and kvctl are linked against.
packages=systemd,systemd-sysv,dbus,liblmdb0,libbsd0,libinih1,libcjson1

fail() {
    printf '%s\n' "$*" >&2
    exit 1
}

[ -f "$tree/.complete" ] && exit 0
# shellcheck source=/dev/null
release=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")
[ -n "$release" ] || fail "this machine's release has no name in /etc/os-release"
# shellcheck disable=SC2016 # apt's own variables
mirror=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME) $(COMPONENT)' \
    'Created-By: Packages' | awk -v release="$release" \
    '$2 == release && $3 == "main" { print $1; exit }')
[ -n "$mirror" ] || fail "apt has no packages of $release here"
rm -rf --one-file-system "${tree:?}"
mkdir -p "$tree" || fail "cannot make $tree"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! debootstrap --variant=minbase --include="$packages" "$release" "$tree" "$mirror" \
    >"$log" 2>&1; then
    tail -n 5 "$log" >&2
    rm -rf --one-file-system "${tree:?}"
    fail 'debootstrap failed'
fi
rm -rf "$tree/var/cache/apt/archives" "$tree/var/lib/apt/lists"
touch "$tree/.complete"
