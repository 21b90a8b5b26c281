# SPDX-License-Identifier: MIT
#
# Starts the suite's harness (the first argument, then its own) where the name localhost may mean
# nothing: a minimal machine has no /etc/hosts.
rename socket socket_of_tcl
proc socket {args} {
    socket_of_tcl {*}[lmap word $args {
        expr {$word eq "localhost" ? "127.0.0.1" : $word}
    }]
}
set argv0 [lindex $argv 0]
set argv [lrange $argv 1 end]
set argc [llength $argv]
source $argv0
