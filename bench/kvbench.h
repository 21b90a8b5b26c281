// SPDX-License-Identifier: MIT
//
// The benchmarks, each as a program within the program. argv[0] is the benchmark's name; they
// return an exit status: 0, or 2 for wrong arguments.
#pragma once

int get_vs_lmdb_main(int argc, char **argv);
int set_group_main(int argc, char **argv);
int set_vs_peers_main(int argc, char **argv);
int publish_main(int argc, char **argv);
int cold_main(int argc, char **argv);
int expire_main(int argc, char **argv);
int overhead_main(int argc, char **argv);
int density_main(int argc, char **argv);
int churn_main(int argc, char **argv);
int grow_main(int argc, char **argv);
int idle_cpu_main(int argc, char **argv);
int restart_main(int argc, char **argv);
int pages_main(int argc, char **argv);
int hitratio_main(int argc, char **argv);
