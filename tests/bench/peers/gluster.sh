# SPDX-License-Identifier: MIT
# GlusterFS, replica 2: both bricks and the client here. Sourced by run.sh, inside its namespaces.
# glusterd refuses brick addresses of 127.x, and keeps its state in fixed folders: there it has own ones.
gluster_missing() { command -v glusterd >/dev/null || echo "glusterfs-server glusterfs-client"; }
gluster_up() { # DIR: the mount is DIR/mnt
	local base=$1 i
	mkdir -p "$base"/{b1,b2,mnt,lib,log,run}
	mkdir -p /var/lib/glusterd /var/log/glusterfs /run/gluster
	mount --bind "$base/lib" /var/lib/glusterd
	mount --bind "$base/log" /var/log/glusterfs
	mount --bind "$base/run" /run/gluster
	rm -f /run/glusterd.socket
	glusterd -L WARNING -l "$base/log/glusterd.log" -p "$base/glusterd.pid"
	for ((i = 0; i < 60; i++)); do
		if gluster volume list >/dev/null 2>&1; then break; fi
		sleep 0.5
	done
	gluster --mode=script volume create pair replica 2 "peer-a:$base/b1/r" "peer-a:$base/b2/r" force
	gluster --mode=script volume start pair
	mount -t glusterfs peer-a:/pair "$base/mnt"
}
# Bricks and client; the others have nothing to do meanwhile.
gluster_servers() { pgrep -x glusterfsd && pgrep -f '^[^ ]*glusterfs .*process-name fuse'; }
gluster_replica() { cat "$1"/run/vols/pair/*b2-r.pid; } # DIR
gluster_ready() { [ "$(gluster --mode=script volume heal pair info 2>/dev/null | grep -c '^Number of entries: 0')" = 2 ]; }
