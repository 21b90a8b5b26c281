# SPDX-License-Identifier: MIT
#
# How many waits were longer than so long, both axes logarithmic, a line for each distribution in
# what kvbench churn wrote with --data:
#   gnuplot -e "data='churn.dat'; out='churn.svg'" bench/pauses.gnuplot
if (!exists("data")) data = 'pauses.dat'
if (!exists("out")) out = 'pauses.svg'
set terminal svg size 900,600
set output out
set logscale xy 10
set format y '10^{%L}'
set xlabel 'µs'
set ylabel 'share that took longer'
set key top right
set grid
stats data using 1 nooutput
# What took the longest of all has nothing beyond it: not on a logarithmic axis.
plot for [i = 0:STATS_blocks - 1] data index i using 1:($2 > 0 ? $2 : 1/0) \
	with steps lw 2 title columnheader(1)
