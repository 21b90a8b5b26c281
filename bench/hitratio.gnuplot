# SPDX-License-Identifier: MIT
#
# Hit ratio by cache size, a picture for each trace, from what kvbench hitratio --data wrote:
#   gnuplot -e "data='rows.dat'; out='hitratio.svg'" bench/hitratio.gnuplot
if (!exists("data")) data = 'hitratio.dat'
if (!exists("out")) out = 'hitratio.svg'
set terminal svg size 1200,1600
set output out
set datafile missing '-'
stats data using 3 nooutput
set multiplot layout int((STATS_blocks + 1) / 2), 2
set logscale x 2
set xlabel 'MiB'
set ylabel 'gets that hit, %'
set key bottom right
names = "kvd S3-FIFO SIEVE LRU redis-lru redis-lfu memcached"
do for [i = 0:STATS_blocks - 1] {
	stats data index i using (name = strcol(1), $3) nooutput
	set title name
	plot for [j = 1:7] data index i using 2:(column(j + 2)) \
		with linespoints lw (j == 1 ? 3 : 1) title word(names, j)
}
unset multiplot
