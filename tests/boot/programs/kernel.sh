# SPDX-License-Identifier: MIT
# Code that the kernel writes: for BPF programs, at its static keys, for traced functions. Only in guests.
mount -t tracefs tracefs /sys/kernel/tracing
echo 1 > /proc/sys/net/core/bpf_jit_enable
gcc -O2 -o bpf "$1/bpf.c" && ./bpf 300
for i in 1 2 3; do
	echo function > /sys/kernel/tracing/current_tracer
	ls /proc/self >/dev/null
	grep -q -m 1 vfs_read /sys/kernel/tracing/trace && echo traced
	echo nop > /sys/kernel/tracing/current_tracer
done
for i in 1 2 3 4 5 6 7 8 9 10; do
	echo $((i % 2)) > /proc/sys/kernel/bpf_stats_enabled
	echo $((i % 2)) > /proc/sys/kernel/sched_schedstats
	./bpf 5
done | sort -u
