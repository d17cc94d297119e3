# SPDX-License-Identifier: MIT
# CephFS, size 2: a monitor, a manager, a metadata server, two OSDs on files, and ceph-fuse. Sourced by
# run.sh, inside its namespaces.
cephfs_missing() { command -v ceph-mon >/dev/null || echo "ceph-mon ceph-osd ceph-mds ceph-mgr ceph-fuse ceph-common"; }
cephfs_config() { # DIR
	local base=$1 i
	echo "[global]
fsid = $(cat /proc/sys/kernel/random/uuid)
mon host = v1:127.0.0.1:6789
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = none
auth service required = none
auth client required = none
osd pool default size = 2
osd pool default min size = 1
osd crush chooseleaf type = 0
osd memory target = 1073741824
bluestore block size = 10737418240
log file = $base/run/\$name.log
admin socket = $base/run/\$name.asok
pid file = $base/run/\$name.pid
run dir = $base/run
auth allow insecure global id reclaim = true"
	for i in mon.a mgr.a mds.a osd.0 osd.1; do echo "[$i]
${i%.*} data = $base/$i"; done
}
# It speaks before it serves: asked until the answer has PATTERN.
cephfs_when() { # PATTERN COMMAND...
	local i pattern=$1
	shift
	for ((i = 0; i < 120; i++)); do
		if timeout 10 ceph -c "$c" "$@" 2>/dev/null | grep -q "$pattern"; then return; fi
		sleep 0.5
	done
	echo "cephfs: no '$pattern' in $*"
	return 1
}
cephfs_up() { # DIR: the mount is DIR/mnt
	local base=$1 c=$1/ceph.conf i uuid
	mkdir -p "$base"/{mon.a,mgr.a,mds.a,osd.0,osd.1,mnt,run}
	cephfs_config "$base" >"$c"
	ceph-authtool --create-keyring "$base/keyring" --gen-key -n mon. --cap mon 'allow *'
	monmaptool --create --addv a "[v1:127.0.0.1:6789]" --fsid "$(sed -n 's/^fsid = //p' "$c")" "$base/monmap"
	ceph-mon -c "$c" -i a --mkfs --monmap "$base/monmap" --keyring "$base/keyring"
	ceph-mon -c "$c" -i a
	cephfs_when "quorum 0 a" mon stat
	ceph-mgr -c "$c" -i a
	for i in 0 1; do
		uuid=$(cat /proc/sys/kernel/random/uuid)
		timeout 60 ceph -c "$c" osd new "$uuid" $i
		cephfs_when "$uuid" osd dump
		ceph-osd -c "$c" -i $i --mkfs --osd-uuid "$uuid"
		ceph-osd -c "$c" -i $i
	done
	timeout 60 ceph -c "$c" osd pool create meta 8
	timeout 60 ceph -c "$c" osd pool create data 8
	timeout 60 ceph -c "$c" fs new fs meta data
	ceph-mds -c "$c" -i a
	cephfs_when up:active mds stat
	timeout 60 ceph-fuse -c "$c" "$base/mnt"
}
cephfs_servers() { pgrep -x 'ceph-mon|ceph-mgr|ceph-osd|ceph-mds|ceph-fuse'; }
cephfs_replica() { cat "$1/run/osd.1.pid"; } # DIR
cephfs_ready() { true; }
