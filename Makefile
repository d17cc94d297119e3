# talosfs: one Makefile, no recursion, no configure step.
#   make                 build everything into build/
#   make check           all tests that end within ten minutes
#   make SAN=address,undefined check-unit    any target, in a build folder of its own
-include config.mk
PREFIX ?= /usr/local
MANDIR ?= $(PREFIX)/share/man
DESTDIR ?=
CFLAGS ?= -O2 -g
PKG_CONFIG ?= pkg-config
VERSION = $(shell sed -n 's/^.define TALOSFS_VERSION "\(.*\)"/\1/p' mount-tools/options.h)
SAN ?=
comma := ,
OUT := build$(if $(SAN),-$(subst $(comma),-,$(SAN)))

PKGS := fuse3 liburing libibverbs librdmacm libxxhash jansson blkid libssl libcrypto libarchive
PKG_CFLAGS := $(shell $(PKG_CONFIG) --cflags $(PKGS))
PKG_LIBS := $(shell $(PKG_CONFIG) --libs $(PKGS)) -lpthread
TEST_LIBS := $(shell $(PKG_CONFIG) --libs cmocka)

HARDEN := -D_FORTIFY_SOURCE=2 -fstack-protector-strong -fPIE
ALL_CFLAGS = -std=gnu11 -Wall -Wextra -Wshadow -Wvla -Wstrict-prototypes -Wmissing-prototypes \
	-Wpointer-arith -Wwrite-strings -Werror -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -MMD -MP \
	$(INC) $(PKG_CFLAGS) $(CFLAGS) \
	$(if $(SAN),-fsanitize=$(SAN) -fno-sanitize-recover=all -fno-omit-frame-pointer -DTALOS_DEBUG_LOCKS,$(HARDEN))
ALL_LDFLAGS = $(LDFLAGS) $(if $(SAN),-fsanitize=$(SAN),-pie -Wl$(comma)-z$(comma)relro$(comma)-z$(comma)now)

# Which folder may include what. An include against the order does not compile.
$(OUT)/engine/base/%.o:  INC = -Iengine/include -Iengine/base
$(OUT)/engine/store/%.o: INC = -Iengine/include -Iengine/base -Iengine/store
$(OUT)/engine/index/%.o: INC = -Iengine/include -Iengine/base -Iengine/store -Iengine/index
$(OUT)/engine/core/%.o:  INC = -Iengine/include -Iengine/base -Iengine/store -Iengine/index -Iengine/core
$(OUT)/engine/check/%.o: INC = -Iengine/include -Iengine/base -Iengine/store -Iengine/index -Iengine/core -Iengine/check
$(OUT)/fs/%.o:           INC = -Iengine/include -Ifs/include -Ifs
$(OUT)/repl/%.o:         INC = -Iengine/include -Irepl/include -Irepl
$(OUT)/mount-tools/%.o:  INC = -Iengine/include -Ifs/include -Irepl/include -Imount-tools
$(OUT)/tests/%.o:        INC = -Iengine/include -Iengine/base -Iengine/store -Iengine/index -Iengine/core -Iengine/check \
	-Ifs/include -Ifs -Irepl/include -Irepl -Imount-tools -Itests/lib

ENGINE_SRC := $(wildcard engine/*/*.c)
FS_SRC := $(wildcard fs/*.c)
REPL_SRC := $(wildcard repl/*.c)
# Each program is one file of its name; the rest of mount-tools is shared.
TOOL_MAINS := mkfs_talosfs mount_talosfs fsck_talosfs dump_talosfs talosfs
TOOL_SRC := $(filter-out $(TOOL_MAINS:%=mount-tools/%.c),$(wildcard mount-tools/*.c))
TESTLIB_SRC := $(wildcard tests/lib/*.c)
TEST_SRC := $(wildcard tests/unit/test_*.c tests/fault/test_*.c tests/crash/test_*.c tests/sim/test_*.c)
BENCH_SRC := $(wildcard tests/bench/*.c)
OBJ = $(patsubst %.c,$(OUT)/%.o,$(1))

LIBS := $(OUT)/libtalos_engine.a
LIBS_ALL := $(OUT)/libtalos_tool.a $(OUT)/libtalos_fs.a $(OUT)/libtalos_repl.a $(OUT)/libtalos_engine.a
TESTLIB := $(OUT)/libtalos_test.a
TOOLS := $(OUT)/mkfs.talosfs $(OUT)/mount.talosfs $(OUT)/fsck.talosfs $(OUT)/dump.talosfs $(OUT)/talosfs
TESTS := $(patsubst tests/%.c,$(OUT)/tests/%,$(TEST_SRC))
BENCHES := $(patsubst tests/%.c,$(OUT)/tests/%,$(BENCH_SRC))

all: $(TOOLS)

$(OUT)/%.o: %.c $(OUT)/flags
	@mkdir -p $(@D)
	@echo "  CC  $@"
	@$(CC) $(ALL_CFLAGS) -c -o $@ $<

# Rewritten only when the compiler or the flags change.
FLAGS_TEXT = $(CC) $(CFLAGS) $(SAN) $(PKG_CFLAGS) $(LDFLAGS)
$(OUT)/flags: FORCE
	@mkdir -p $(@D)
	@echo '$(FLAGS_TEXT)' | cmp -s - $@ || echo '$(FLAGS_TEXT)' > $@

$(OUT)/libtalos_engine.a: $(call OBJ,$(ENGINE_SRC))
$(OUT)/libtalos_fs.a: $(call OBJ,$(FS_SRC))
$(OUT)/libtalos_repl.a: $(call OBJ,$(REPL_SRC))
$(OUT)/libtalos_tool.a: $(call OBJ,$(TOOL_SRC))
$(OUT)/libtalos_test.a: $(call OBJ,$(TESTLIB_SRC))
$(OUT)/%.a:
	@rm -f $@
	@$(AR) rcs $@ $^

$(OUT)/mkfs.talosfs: $(OUT)/mount-tools/mkfs_talosfs.o $(LIBS_ALL)
$(OUT)/mount.talosfs: $(OUT)/mount-tools/mount_talosfs.o $(LIBS_ALL)
$(OUT)/fsck.talosfs: $(OUT)/mount-tools/fsck_talosfs.o $(LIBS_ALL)
$(OUT)/dump.talosfs: $(OUT)/mount-tools/dump_talosfs.o $(LIBS_ALL)
$(OUT)/talosfs: $(OUT)/mount-tools/talosfs.o $(LIBS_ALL)
$(TOOLS):
	@$(CC) $(ALL_LDFLAGS) -o $@ $^ $(PKG_LIBS)

$(OUT)/tests/bench/%: $(OUT)/tests/bench/%.o $(TESTLIB) $(LIBS_ALL)
	@$(CC) $(ALL_LDFLAGS) -o $@ $^ $(PKG_LIBS)
$(OUT)/tests/%: $(OUT)/tests/%.o $(TESTLIB) $(LIBS_ALL)
	@$(CC) $(ALL_LDFLAGS) -o $@ $^ $(TEST_LIBS) $(PKG_LIBS)

# The engine beside its peers, each of them if it is installed. tests/bench/kvbench/README.md
have_lib = $(shell echo 'int main(void) { return 0; }' | $(CC) -include $(1) -x c - -l$(2) -o /dev/null 2>/dev/null && echo yes)
KVB_PEERS = $(if $(call have_lib,rocksdb/c.h,rocksdb),rocksdb) $(if $(call have_lib,leveldb/c.h,leveldb),leveldb) \
	$(if $(call have_lib,lmdb.h,lmdb),lmdb)
KVB_DIR := tests/bench/kvbench
KVB_OWN := $(filter-out $(KVB_DIR)/kv_rocksdb.c $(KVB_DIR)/kv_leveldb.c $(KVB_DIR)/kv_lmdb.c,$(wildcard $(KVB_DIR)/*.c))
$(OUT)/kvbench: peers = $(strip $(KVB_PEERS))
$(OUT)/kvbench: $(KVB_OWN) $(wildcard $(KVB_DIR)/*) $(LIBS) $(OUT)/flags
	@for p in rocksdb leveldb lmdb; do case " $(peers) " in *" $$p "*) ;; *) echo "kvbench: without $$p: not installed";; esac; done
	@echo "  CC  $@"
	@$(CC) $(filter-out -MMD -MP,$(ALL_CFLAGS)) -Iengine/include -I$(KVB_DIR) $(ALL_LDFLAGS) -o $@ $(KVB_OWN) \
		$(foreach p,$(peers),-DWITH_$(shell echo $(p) | tr a-z A-Z) $(KVB_DIR)/kv_$(p).c) \
		$(LIBS) $(peers:%=-l%) $(shell $(PKG_CONFIG) --libs liburing libxxhash) -lpthread -lm

# Primary and backups, with kvbench's workloads. tests/bench/repl/README.md
REPLB_SRC := $(wildcard tests/bench/repl/*.c) $(addprefix $(KVB_DIR)/,histogram.c kv_talos.c memcg.c phase.c usage.c workload.c)
$(OUT)/tests/bench/repl/%.o $(OUT)/$(KVB_DIR)/%.o: INC = -I$(KVB_DIR) -Itests/bench/repl \
	-Iengine/include -Iengine/base -Iengine/store -Iengine/index -Irepl/include -Irepl
$(OUT)/replbench: $(call OBJ,$(REPLB_SRC)) $(LIBS_ALL)
	@$(CC) $(ALL_LDFLAGS) -o $@ $^ $(PKG_LIBS) -lm

# Operations on mounts, and the filesystem that only answers. tests/bench/fsbench/run.sh
FSB_DIR := tests/bench/fsbench
FSB_SRC := $(addprefix $(FSB_DIR)/,fsbench.c ops.c report.c target.c) $(KVB_DIR)/histogram.c
NULLFS_SRC := $(addprefix $(FSB_DIR)/,nullfs.c null_tree.c)
$(OUT)/fsbench: $(FSB_SRC)
$(OUT)/nullfs: $(NULLFS_SRC)
$(OUT)/fsbench $(OUT)/nullfs: $(wildcard $(FSB_DIR)/*.h) $(KVB_DIR)/histogram.h $(OUT)/flags
	@echo "  CC  $@"
	@$(CC) $(filter-out -MMD -MP,$(ALL_CFLAGS)) -I$(FSB_DIR) -I$(KVB_DIR) $(ALL_LDFLAGS) -o $@ $(filter %.c,$^) $(PKG_LIBS)

MOUNTED_TOOLS := $(addprefix $(OUT)/tests/mounted/,fsync_writer superblock_edit abuse_peer backup_cache big_directory)
$(OUT)/tests/mounted/%: $(OUT)/tests/mounted/%.o $(LIBS_ALL)
	@$(CC) $(ALL_LDFLAGS) -o $@ $^ $(PKG_LIBS)

# --- checks ---------------------------------------------------------------------------

check: check-includes check-headers check-install check-man check-unit check-san check-mounted

# Runs every cmocka program, two at a time; stops at the first that fails.
check-unit: $(TESTS)
	@OUT=$(OUT) SHOW='^\[  PASSED  |^SEED=|crash points' tests/run-all $(TESTS)

# The same under the sanitizers, each in a build folder of its own.
check-san:
	@$(MAKE) --no-print-directory SAN=address,undefined check-unit
	@$(MAKE) --no-print-directory SAN=thread check-unit

# Needs root and /dev/fuse; a test that cannot run says why. Two at a time. LONG=1: the long forms, an hour.
MOUNTED := $(filter-out tests/mounted/lib.sh,$(wildcard tests/mounted/*.sh))
check-mounted: $(TOOLS) $(MOUNTED_TOOLS)
	@OUT=$(abspath $(OUT)) $(if $(LONG),LONG=1 TEST_SECONDS=7200) tests/run-all $(MOUNTED)

# Third-party suites that are no Debian packages, built outside of the tree: tests/suites/README.md
check-suites: $(TOOLS)
	@OUT=$(abspath $(OUT)) tests/suites/run-all

# Replication again with a secret: authenticated, under TLS.
check-tls: $(TOOLS) $(MOUNTED_TOOLS)
	@for t in e2e_replication promote_rounds fencing blocked; do echo "== $$t, with a secret"; \
		TALOS_TEST_SECRET=1 OUT=$(abspath $(OUT)) timeout 300 tests/mounted/$$t.sh </dev/null || exit 1; done

# The same over RDMA verbs, where they can be had; LONG=1 for the long forms.
check-rdma: $(TESTS) $(TOOLS) $(MOUNTED_TOOLS)
	@tests/rdma/check.sh

check-includes:
	@tests/check-includes.sh

# Each public header compiles alone.
check-headers:
	@for h in engine/include/talos/*.h fs/include/talos/*.h repl/include/talos/*.h; do \
		$(CC) -std=gnu11 -Wall -Wextra -Werror -fsyntax-only -Iengine/include -Ifs/include -x c $$h || exit 1; done
	@echo "headers: each compiles alone"

check-man:
	@mandoc -Tlint -Wwarning man/*.[1-8]
	@tests/check-man.sh $(OUT)
check-man: $(TOOLS)

# libFuzzer targets, FUZZ_SECONDS each.
FUZZ_SECONDS ?= 20
FUZZERS := $(patsubst tests/fuzz/%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
check-fuzz fuzz:
	@command -v clang >/dev/null || { echo "SKIP: fuzzing needs clang"; exit 0; }; \
	mkdir -p $(OUT)/fuzz; for f in $(FUZZERS); do \
		clang -std=gnu11 -g -O1 -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all \
			-Iengine/include -Iengine/base -Iengine/store -Iengine/index -Iengine/core -Iengine/check -Ifs/include -Ifs -Irepl/include -Irepl -Itests/lib $(PKG_CFLAGS) \
			-o $(OUT)/fuzz/$$f tests/fuzz/$$f.c $(ENGINE_SRC) $(FS_SRC) $(REPL_SRC) $(PKG_LIBS) && \
		mkdir -p $(OUT)/fuzz/corpus.$$f && \
		$(OUT)/fuzz/$$f -max_total_time=$(FUZZ_SECONDS) -print_final_stats=0 -verbosity=0 $(OUT)/fuzz/corpus.$$f $$(ls -d tests/fuzz/corpus/$$f 2>/dev/null) || exit 1; \
		echo "$$f: $(FUZZ_SECONDS) s, nothing found"; done

# Long forms. The crash tests run for SOAK_SECONDS, some thousand points a second, with a new seed each time.
SOAK_SECONDS ?= 1800
soak-crash: $(TESTS)
	@tests/crash/soak.sh $(OUT) $(SOAK_SECONDS)
soak: soak-crash $(TOOLS) $(MOUNTED_TOOLS)
	OUT=$(abspath $(OUT)) ROUNDS=200 tests/mounted/crash_rounds.sh
	OUT=$(abspath $(OUT)) ROUNDS=200 tests/mounted/promote_rounds.sh

C_FILES = $(shell git ls-files '*.c')
format-check:
	@clang-format --dry-run -Werror $(C_FILES) && echo "format: as .clang-format says"
format:
	clang-format -i $(C_FILES)

# Both: QUICK=1: under three minutes; JSON=1: objects instead of tables; DIR: on the device to measure.
bench-fs: $(TOOLS) $(OUT)/fsbench $(OUT)/nullfs
	@QUICK=$(QUICK) JSON=$(JSON) DIR=$(DIR) tests/bench/fsbench/run.sh $(OUT)

bench-kv: $(OUT)/kvbench
	@QUICK=$(QUICK) JSON=$(JSON) DIR=$(DIR) tests/bench/kvbench/run.sh $(OUT)/kvbench

# Mounts with one backup beside the replicated filesystems that are installed. tests/bench/peers/run.sh
$(OUT)/stall: tests/bench/peers/stall.c $(OUT)/flags
	@echo "  CC  $@"
	@$(CC) $(filter-out -MMD -MP,$(ALL_CFLAGS)) $(ALL_LDFLAGS) -o $@ $<
bench-peers: $(TOOLS) $(OUT)/fsbench $(OUT)/stall
	@QUICK=$(QUICK) JSON=$(JSON) DIR=$(DIR) tests/bench/peers/run.sh $(OUT)

# Does a program build against what install installs, with the engine's library alone?
check-install: all $(LIBS)
	@tests/check-install.sh "$(MAKE)" "$(CC)"

# What a transport costs.
bench-transport: $(OUT)/tests/bench/transport_bench
	$< && $< --tls

# What replication costs and saves, by the way it is done: the paper's table, and plots (SVG, by gnuplot).
# QUICK=1: under three minutes; JSON=1: objects instead of tables; PLOTS=DIR: where plots go.
bench-repl: $(OUT)/replbench $(TOOLS)
	@QUICK=$(QUICK) JSON=$(JSON) DIR=$(DIR) PLOTS=$(PLOTS) tests/bench/repl/run.sh $(OUT)

demo: $(TOOLS)
	@OUT=$(abspath $(OUT)) ./demo.sh

# --- install -----------------------------------------------------------------------------

# mount(8) and fsck(8) look for their helpers in /sbin, whatever PREFIX is.
install: all $(LIBS)
	install -d $(DESTDIR)$(PREFIX)/sbin $(DESTDIR)$(PREFIX)/bin $(DESTDIR)/sbin
	for t in mkfs mount fsck dump; do install -m 755 $(OUT)/$$t.talosfs $(DESTDIR)$(PREFIX)/sbin || exit 1; done
	install -m 755 $(OUT)/talosfs $(DESTDIR)$(PREFIX)/bin
	ln -sf $(PREFIX)/sbin/mount.talosfs $(DESTDIR)/sbin/mount.talosfs
	ln -sf $(PREFIX)/sbin/mkfs.talosfs $(DESTDIR)/sbin/mkfs.talosfs
	ln -sf $(PREFIX)/sbin/fsck.talosfs $(DESTDIR)/sbin/fsck.talosfs
	install -d $(DESTDIR)$(PREFIX)/lib $(DESTDIR)$(PREFIX)/include/talos
	install -m 644 $(OUT)/libtalos_engine.a $(DESTDIR)$(PREFIX)/lib
	install -m 644 engine/include/talos/*.h $(DESTDIR)$(PREFIX)/include/talos
	install -d $(DESTDIR)$(PREFIX)/lib/pkgconfig
	sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@VERSION@|$(VERSION)|' engine/talos_engine.pc.in > $(DESTDIR)$(PREFIX)/lib/pkgconfig/talos_engine.pc
	chmod 644 $(DESTDIR)$(PREFIX)/lib/pkgconfig/talos_engine.pc
	for s in 5 7 8; do install -d $(DESTDIR)$(MANDIR)/man$$s && install -m 644 man/*.$$s $(DESTDIR)$(MANDIR)/man$$s; done

uninstall:
	for t in mkfs mount fsck dump; do rm -f $(DESTDIR)$(PREFIX)/sbin/$$t.talosfs $(DESTDIR)/sbin/$$t.talosfs; done
	rm -f $(DESTDIR)$(PREFIX)/bin/talosfs
	rm -f $(DESTDIR)$(PREFIX)/lib/libtalos_engine.a
	rm -f $(DESTDIR)$(PREFIX)/lib/pkgconfig/talos_engine.pc
	rm -rf $(DESTDIR)$(PREFIX)/include/talos
	for p in man/*.[578]; do rm -f $(DESTDIR)$(MANDIR)/man$${p##*.}/$${p##*/}; done

clean:
	rm -rf build build-*

FORCE:
.PHONY: all check check-unit check-san check-mounted check-suites check-tls check-rdma check-includes check-headers check-man check-fuzz fuzz soak soak-crash \
	format format-check bench-fs bench-kv bench-transport bench-repl bench-peers check-install demo install uninstall clean FORCE
.SECONDARY:
-include $(shell find $(OUT) -name '*.d' 2>/dev/null)
