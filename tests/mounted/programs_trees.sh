#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# A C project on the mount, which is this one: git clone, fsck, branches and merges, make, and make again with nothing
# to do; then trees of it by tar, cp and rsync, with links, holes, attributes, ACLs and special files, equal to
# what they were made from. LONG=1: with optimisation, and all programs.
. "$(dirname "$0")/lib.sh"
need git git
need rsync rsync
need setfattr attr
need setfacl acl
long=${LONG:-}
export HOME=$dir GIT_CONFIG_NOSYSTEM=1
git config --global user.name test
git config --global user.email test@localhost
git config --global safe.directory '*'
git config --global init.defaultBranch main

mkfs.talosfs --size 3G "$image_a" >/dev/null
mount.talosfs "$image_a" "$A" -o allow_dev

# What to clone: this repository; from a source tree without one, a repository made of it.
origin() {
	if git -C "$top" rev-parse --verify -q HEAD >/dev/null 2>&1; then
		echo "$top"
		return
	fi
	mkdir "$dir/origin"
	tar -C "$top" --exclude './build*' -cf - . | tar -C "$dir/origin" -xf -
	(cd "$dir/origin" && git init -q && git add -A && git commit -q -m all) >&2
	echo "$dir/origin"
}

with_git() {
	local from
	from=$(origin)
	git clone -q --no-local "$from" "$A/clone"
	cd "$A/clone"
	git fsck --full --strict 2>"$dir/err" || fail "git fsck: $(cat "$dir/err")"
	same "$(git status --porcelain)" ''
	same "$(git rev-parse HEAD)" "$(git -C "$from" rev-parse HEAD)"
	git checkout -q -b side
	echo >>README.md
	git rm -q -r engine
	git commit -q -a -m side
	git checkout -q -
	echo >>LICENSE
	git commit -q -a -m here
	git merge -q -m merged side
	[ ! -e engine ] || fail "merged, and the folder is still there"
	git reset -q --hard HEAD~2
	git gc -q --prune=now
	git fsck --full >/dev/null 2>"$dir/err" || fail "git fsck after gc: $(cat "$dir/err")"
	cd /
}

with_make() {
	local tools=build/mkfs.talosfs flags=(CFLAGS=-O0 HARDEN=)
	[ -z "$long" ] || tools=all flags=()
	cd "$A/clone"
	make -j2 "${flags[@]}" $tools >"$dir/out" 2>&1 || fail "make: $(tail -n 20 "$dir/out")"
	make "${flags[@]}" $tools >"$dir/out" 2>&1
	if grep -q '  CC ' "$dir/out"; then fail "make: built again what was built: $(head -n 5 "$dir/out")"; fi
	same "$(build/mkfs.talosfs --version)" "$("$OUT/mkfs.talosfs" --version)"
	cd /
}

# What is in it is rarely in a tree of sources.
odd_things() {
	mkdir "$1"
	cd "$1"
	mkdir -p deep/er/and/deeper 'with space' "$(printf 'n\nl')" empty
	echo one >a
	ln a deep/b
	ln a 'with space/c'
	ln -s ../a deep/link
	ln -s nowhere dangling
	mkfifo pipe
	mknod null c 1 3
	truncate -s 1M sparse
	echo here | dd of=sparse bs=1 seek=500000 conv=notrunc status=none
	head -c 3000000 /dev/urandom >big
	setfattr -n user.color -v blue a
	setfattr -n user.long -v "$(head -c 3000 /dev/zero | tr '\0' x)" deep
	setfacl -m u:12345:r a
	setfacl -d -m g:23456:rx deep/er
	chmod 4711 big
	chmod 1777 empty
	chown 12345:23456 'with space/c' pipe
	touch -d '2001-02-03 04:05:06.789012345' big
	touch -d '1960-01-01 00:00:00.5' empty
	cd /
}

same_tree() {
	python3 "$here/tree.py" "$2" nodirsize noino >"$dir/list.2"
	diff "$dir/list.1" "$dir/list.2" >"$dir/differ" || fail "$1: the tree is another: $(head -n 5 "$dir/differ")"
}

with_copies() {
	local t
	tar -C "$A/clone" --exclude build -cf - . | tar -C "$A/tree" -xf -
	odd_things "$A/tree/odd"
	python3 "$here/tree.py" "$A/tree" nodirsize noino >"$dir/list.1"
	[ "$(wc -l <"$dir/list.1")" -gt 100 ] || fail "the tree has $(wc -l <"$dir/list.1") names"
	mkdir "$A/by-tar" "$dir/out-and-in"
	tar -C "$A/tree" --xattrs --xattrs-include='*' --acls -S -cf "$dir/t.tar" .
	tar -C "$A/by-tar" --xattrs --xattrs-include='*' --acls -S -p --warning=no-timestamp -xf "$dir/t.tar"
	same_tree tar "$A/by-tar"
	cp -a "$A/tree" "$A/by-cp"
	same_tree cp "$A/by-cp"
	rsync -aHAXS --numeric-ids --devices --specials "$A/tree/" "$A/by-rsync/"
	same_tree rsync "$A/by-rsync"
	t=$(rsync -aHAXS --numeric-ids --devices --specials --checksum --itemize-changes "$A/tree/" "$A/by-rsync/")
	same "$t" ''
	mv "$A/by-cp" "$A/moved"
	umount_wait "$A"
	mount.talosfs "$image_a" "$A" -o allow_dev
	for t in moved by-tar by-rsync; do
		same_tree "$t, mounted again" "$A/$t"
	done
	rm -rf "$A"/by-* "$A/moved"
	[ "$(ls "$A")" = "$(printf 'clone\ntree')" ] || fail "left: $(ls "$A")"
}

part git with_git
part make with_make
mkdir "$A/tree"
part 'tar, cp, rsync' with_copies
umount_wait "$A"
fsck.talosfs -n "$image_a" >"$dir/out" || fail "fsck: $(cat "$dir/out")"
