# SPDX-License-Identifier: MIT
# MooseFS, goal 2: master, two chunkservers and the client here. Sourced by run.sh, inside its
# namespaces. Chunkservers refuse a master at 127.x.
moosefs_missing() { command -v mfsmaster >/dev/null || echo "moosefs-master moosefs-chunkserver moosefs-client moosefs-cli"; }
moosefs_up() { # DIR: the mount is DIR/mnt
	local base=$1 i who="WORKING_USER = root
WORKING_GROUP = root"
	mkdir -p "$base"/{m,c1,c2,d1,d2,mnt}
	cp /var/lib/mfs/metadata.mfs.empty "$base/m/metadata.mfs"
	echo "10.77.0.0/24 / rw,alldirs,admin,maproot=0" >"$base/exports"
	echo "$who
DATA_PATH = $base/m
EXPORTS_FILENAME = $base/exports" >"$base/master.cfg"
	mfsmaster -c "$base/master.cfg" start
	for i in 1 2; do
		echo "$base/d$i" >"$base/hdd$i"
		echo "$who
DATA_PATH = $base/c$i
HDD_CONF_FILENAME = $base/hdd$i
MASTER_HOST = 10.77.0.1
BIND_HOST = 10.77.0.$((i + 1))
CSSERV_LISTEN_HOST = 10.77.0.$((i + 1))" >"$base/c$i.cfg"
		mfschunkserver -c "$base/c$i.cfg" start
	done
	sleep 3
	mfsmount "$base/mnt" -H 10.77.0.1 -o allow_other
	mfssetgoal -r 2 "$base/mnt"
}
moosefs_servers() { # of each the process that works, not those that only start or wait
	pgrep -o -x mfsmaster
	pgrep -x mfschunkserver | head -n 2
	pgrep -n -x mfsmount
}
moosefs_replica() { cat "$1/c2/.mfschunkserver.lock"; } # DIR
moosefs_ready() { true; }
