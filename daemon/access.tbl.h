// SPDX-License-Identifier: MIT
//
// The rights, once, in the order of their bits: the option that lists who has it, and its field in
// struct config. No guard: it is expanded several times. Expand with X(right, option, field).
X(ATTACH, "allow-attach", allow_attach)
X(WRITE, "allow-write", allow_write)
X(ADMIN, "allow-admin", allow_admin)
X(EXEMPT, "quota-exempt", quota_exempt)
