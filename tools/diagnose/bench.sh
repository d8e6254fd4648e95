#!/usr/bin/env bash
# shellcheck disable=SC2046,SC2086 # what measure prints is a list of words
# Measures holdfast-diagnose beside grep, zgrep and lnav, on the same files in the same run; `./x bench diagnose` calls it.
#
# usage: bench.sh TARGET_DIR [MIB]   files of MIB mebibytes (1024) are made below TARGET_DIR and removed again
#
# Up to 2048 MiB: one log, plain and as gz. Above: a bundle of five hosts with four rotated gz files each, which is never on the
# disk unpacked (10240 MiB take about 1 GiB).
#
# Each figure that has a goal is printed with it, and a missed goal ends the run with 1. What else runs on the machine only makes a
# figure worse, so one that misses is measured twice more and the best of the three counts. Lines are counted by processor
# seconds, which others' work changes least; what one waits for (the week) by the clock.
set -euo pipefail
target=$1 mib=${2:-1024}
readonly LARGEST_PLAIN=2048 LARGEST=20480 HOSTS=5 ROTATED=4
readonly GOAL_PLAIN=1000000 GOAL_GZ=600000 GOAL_ZGREP=2 GOAL_WEEK_S=10 GOAL_MIB=200
missed=0
[[ $mib =~ ^[0-9]{1,5}$ ]] && [ "$mib" -ge 16 ] && [ "$mib" -le $LARGEST ] ||
    { echo "bench diagnose: MIB is 16 to $LARGEST, not $mib" >&2; exit 2; }
tool=$target/release/holdfast-diagnose
cores=$(nproc)
# gz -1 makes a tenth to an eighth of these lines.
if [ "$mib" -gt $LARGEST_PLAIN ]; then needed=$((mib / 6)); else needed=$((mib * 5 / 4)); fi
free=$(df -Pm "$target" | awk 'NR == 2 { print $4 }')
[ "$free" -gt "$needed" ] || { echo "bench diagnose: $target has $free MiB free, $needed are needed" >&2; exit 1; }
dir=$(mktemp -d "$target/bench-diagnose.XXXXXX")
trap 'rm -rf "$dir"' EXIT

# Runs a command; prints its seconds, its processor seconds with those of its children, and its peak resident memory in MiB,
# sampled from the kernel's own high-water mark.
measure() {
    local shell child peak=0 now
    ( TIMEFORMAT='%R %U %S'; { time "$@" >"$dir/out" 2>"$dir/err"; } 2>"$dir/times" ) &
    shell=$!
    while kill -0 $shell 2>/dev/null; do
        child=$(pgrep -P $shell 2>/dev/null | head -n 1) || true
        now=$(awk '/^VmHWM/ { print $2 }' "/proc/${child:-none}/status" 2>/dev/null) || true
        [ -z "$now" ] || peak=$now
        sleep 0.02
    done
    wait $shell || [ $? = 1 ] # 1: nothing found, or nothing conclusive
    awk -v kb="$peak" '{ printf "%.3f %.3f %.0f\n", $1, $2 + $3, kb / 1024 }' "$dir/times"
}

# Measures up to three times, until a field (1: seconds, 2: processor seconds) is below a limit; prints the best.
tries() { # field, limit, command
    local field=$1 limit=$2 best="" now
    shift 2
    for _ in 1 2 3; do
        now=$(measure "$@")
        best=$(awk -v f="$field" -v a="$now" -v b="$best" 'BEGIN { split(a, x); split(b, y); print b == "" || x[f] < y[f] ? a : b }')
        awk -v f="$field" -v a="$best" -v limit="$limit" 'BEGIN { split(a, x); exit !(x[f] < limit) }' && break
    done
    echo "$best"
}
goal() { # what, figure, at-least or below, limit
    if awk -v v="$2" -v how="$3" -v limit="$4" 'BEGIN { exit !(how == "below" ? v < limit : v >= limit) }'; then
        echo "    goal: $1 $3 $4; measured $2: reached"
    else
        echo "    goal: $1 $3 $4; measured $2: MISSED"
        missed=1
    fi
}
field() { awk -v f="$1" -v a="$2" 'BEGIN { split(a, x); print x[f] }'; }
rate() { awk -v lines="$1" -v a="$2" 'BEGIN { split(a, x); printf "%.0f\n", lines / x[2] }'; }
of() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.2f\n", a / b }'; }

# Lines a processor second say what a core does, whoever else uses the machine; lines a second say what one waits for.
row() { # name, lines, seconds, processor seconds, MiB
    awk -v name="$1" -v lines="$2" -v s="$3" -v cpu="$4" -v mem="$5" 'BEGIN {
        printf "%-36s %7.2f s %9.0f lines/s  %7.2f processor s %9.0f lines/processor s %5.0f MiB\n", name, s, lines / s, cpu, lines / cpu, mem }'
}

# Each line has a second of its own, so that none is spared the reading of its time.
# Writes `bytes` of a host's syslog into `files` rotated gz files below `folder`, or as one stream to standard output for 0 files;
# the number of lines goes to `counted`.
make_log() { # host, bytes, files, folder, counted
    awk -v host="$1" -v bytes="$2" -v files="$3" -v folder="$4" -v counted="$5" 'BEGIN {
        left = files
        split("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec", month)
        for (n = 0; made < bytes; n++) {
            day = int(n / 86400)
            s = sprintf("%s %2d %02d:%02d:%02d %s ", month[1 + int(day / 28) % 12], 1 + day % 28, n / 3600 % 24, n / 60 % 60, n % 60, host)
            k = n % 9
            if (n % 20011 == 7) s = s "iscsid: connect to 127.0.0.1:3260 failed (Connection refused)"
            else if (k == 0) s = s "CRON[" n % 32768 "]: (root) CMD (command -v debian-sa1 > /dev/null && debian-sa1 1 1)"
            else if (k < 3) s = s "sshd[" n % 32768 "]: Accepted publickey for monitor from 10.0.9." n % 250 " port " n % 60000 " ssh2"
            else if (k < 5) s = s "snmpd[650]: Connection from UDP: [10.0.9.5]:" n % 60000 "->[10.0.0.1]:161"
            else if (k < 7) s = s "kernel: [" n ".123456] device vnet" n % 40 " entered promiscuous mode"
            else s = s "libvirtd[801]: internal error: guest " n % 97 " answered after " n % 4000 " ms"
            if (!files) print s
            else {
                if (made >= (files - left) * bytes / files) {
                    if (packer) close(packer)
                    packer = "gzip -1 >" folder "/syslog." left-- ".gz"
                }
                print s | packer
            }
            made += length(s) + 1
        }
        if (packer) close(packer)
        print n > counted
    }'
}
say_size() { du -m --apparent-size -s "$1" | cut -f1; }
load() { cut -d' ' -f1 /proc/loadavg; }
pattern='Connection refused'

one_log() {
    local lines plain_one
    echo "Making a log of $mib MiB and its gz"
    make_log cvk1 $((mib << 20)) 0 "" "$dir/lines" >"$dir/syslog"
    gzip -1 -c "$dir/syslog" >"$dir/syslog.1.gz"
    lines=$(cat "$dir/lines")
    echo "$lines lines; plain $(say_size "$dir/syslog") MiB, gz $(say_size "$dir/syslog.1.gz") MiB; $cores cores; load $(load)"
    cat "$dir/syslog" "$dir/syslog.1.gz" >/dev/null # both in the page cache, so that the disk is not measured

    plain_one=$(tries 2 "$(of "$lines" $GOAL_PLAIN)" taskset -c 0 "$tool" "$dir/syslog" --brief)
    row "diagnose, plain, one core" "$lines" $plain_one
    goal "lines a processor second, plain" "$(rate "$lines" "$plain_one")" at-least $GOAL_PLAIN
    row "diagnose, plain, $cores cores" "$lines" $(measure "$tool" "$dir/syslog" --brief)
    row "grep -c, plain, one core" "$lines" $(measure taskset -c 0 grep -c "$pattern" "$dir/syslog")
    gz "$lines" "$dir/syslog.1.gz" "$dir/syslog.1.gz"
    if command -v lnav >/dev/null; then
        row "lnav -n (index, count), plain" "$lines" $(measure lnav -n -c ';SELECT count(*) FROM all_logs' "$dir/syslog")
    else
        echo "lnav is not installed: not measured"
    fi
    rm -f "$dir/syslog" "$dir/syslog.1.gz"
}

# A bundle of gz on one core and on all, beside zgrep on its files.
gz() { # lines, bundle, files
    local lines=$1 bundle=$2 one all zgrep_one limit
    shift 2
    zgrep_one=$(measure taskset -c 0 zgrep -c "$pattern" "$@")
    row "zgrep -c, gz, one core" "$lines" $zgrep_one
    limit=$(awk -v a="$(of "$lines" $GOAL_GZ)" -v z="$(field 2 "$zgrep_one")" -v n=$GOAL_ZGREP 'BEGIN { print a < n * z ? a : n * z }')
    one=$(tries 2 "$limit" taskset -c 0 "$tool" "$bundle" --brief)
    row "diagnose, gz, one core" "$lines" $one
    goal "lines a processor second, gz" "$(rate "$lines" "$one")" at-least $GOAL_GZ
    goal "processor time of diagnose, of that of zgrep -c," "$(of "$(field 2 "$one")" "$(field 2 "$zgrep_one")")" below $GOAL_ZGREP
    all=$(measure "$tool" "$bundle" --brief)
    row "diagnose, gz, $cores cores" "$lines" $all
    sed -n 's/^read: /diagnose read /p' "$dir/out"
    goal "MiB resident, one core" "$(field 3 "$one")" below $GOAL_MIB
    goal "MiB resident, $cores cores" "$(field 3 "$all")" below $GOAL_MIB
}

large_bundle() {
    local lines host folder status
    echo "Making a bundle of $HOSTS hosts, $ROTATED rotated gz each, $mib MiB unpacked"
    for host in $(seq $HOSTS); do
        folder=$dir/bundle/cvk$host/var/log
        mkdir -p "$folder"
        make_log "cvk$host" $(((mib << 20) / HOSTS)) $ROTATED "$folder" "$dir/lines.$host" &
        while [ "$(jobs -pr | wc -l)" -ge "$cores" ]; do wait -n; done
    done
    while :; do
        status=0
        wait -n || status=$?
        [ $status != 127 ] || break # no child is left
        [ $status = 0 ] || { echo "bench diagnose: a log could not be made" >&2; exit 1; }
    done
    lines=$(cat "$dir"/lines.* | awk '{ sum += $1 } END { printf "%d", sum }')
    find "$dir/bundle" -type f -exec cat {} + >/dev/null
    echo "$lines lines; gz $(say_size "$dir/bundle") MiB; $cores cores; load $(load)"
    gz "$lines" "$dir/bundle" "$dir"/bundle/*/var/log/*.gz
    rm -rf "$dir/bundle"
}

five_hosts_and_a_week() {
    local seed=1 week zipped took
    echo "Making five hosts and a week"
    while :; do
        rm -rf "$dir/week"
        "$tool" synth incident --seed $seed -o "$dir/week" >/dev/null
        [ "$(find "$dir/week" -mindepth 1 -maxdepth 1 -type d | wc -l)" -lt 5 ] || break
        seed=$((seed + 1))
    done
    rm -rf "$dir/week"
    "$tool" synth incident --seed $seed --hours 168 --every 3 -o "$dir/week" >/dev/null
    week=$(find "$dir/week" -type f -not -name '*.gz' -exec cat {} + | wc -l)
    zipped=$(find "$dir/week" -name '*.gz' -exec zcat {} + | wc -l)
    find "$dir/week" -type f -exec cat {} + >/dev/null
    took=$(tries 1 $GOAL_WEEK_S "$tool" "$dir/week" --brief)
    row "diagnose, five hosts and a week, $cores cores" $((week + zipped)) $took
    goal "seconds for five hosts and a week" "$(field 1 "$took")" below $GOAL_WEEK_S
}

if [ "$mib" -gt $LARGEST_PLAIN ]; then
    large_bundle
else
    one_log
    five_hosts_and_a_week
fi
[ $missed = 0 ] || { echo "bench diagnose: a goal is missed" >&2; exit 1; }
