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
SAN ?=
comma := ,
OUT := build$(if $(SAN),-$(subst $(comma),-,$(SAN)))

PKGS := fuse3 liburing libxxhash jansson blkid
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
$(OUT)/fs/%.o:           INC = -Iengine/include -Ifs/include -Ifs
$(OUT)/repl/%.o:         INC = -Iengine/include -Irepl/include -Irepl
$(OUT)/mount-tools/%.o:  INC = -Iengine/include -Ifs/include -Irepl/include -Imount-tools
$(OUT)/tests/%.o:        INC = -Iengine/include -Iengine/base -Iengine/store -Iengine/index -Iengine/core \
	-Ifs/include -Ifs -Irepl/include -Irepl -Imount-tools -Itests/lib

ENGINE_SRC := $(wildcard engine/*/*.c)
FS_SRC := $(wildcard fs/*.c)
REPL_SRC := $(wildcard repl/*.c)
# Each program is one file of its name; the rest of mount-tools is shared.
TOOL_MAINS := mkfs_talosfs mount_talosfs talosfs
TOOL_SRC := $(filter-out $(TOOL_MAINS:%=mount-tools/%.c),$(wildcard mount-tools/*.c))
TESTLIB_SRC := $(wildcard tests/lib/*.c)
TEST_SRC := $(wildcard tests/unit/test_*.c tests/fault/test_*.c tests/crash/test_*.c tests/sim/test_*.c)
BENCH_SRC := $(wildcard tests/bench/*.c)
OBJ = $(patsubst %.c,$(OUT)/%.o,$(1))

LIBS := $(OUT)/libtalos_engine.a
LIBS_ALL := $(OUT)/libtalos_tool.a $(OUT)/libtalos_fs.a $(OUT)/libtalos_repl.a $(OUT)/libtalos_engine.a
TESTLIB := $(OUT)/libtalos_test.a
TOOLS := $(OUT)/mkfs.talosfs $(OUT)/mount.talosfs $(OUT)/talosfs
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
$(OUT)/talosfs: $(OUT)/mount-tools/talosfs.o $(LIBS_ALL)
$(TOOLS):
	@$(CC) $(ALL_LDFLAGS) -o $@ $^ $(PKG_LIBS)

$(OUT)/tests/bench/%: $(OUT)/tests/bench/%.o $(TESTLIB) $(LIBS_ALL)
	@$(CC) $(ALL_LDFLAGS) -o $@ $^ $(PKG_LIBS)
$(OUT)/tests/%: $(OUT)/tests/%.o $(TESTLIB) $(LIBS_ALL)
	@$(CC) $(ALL_LDFLAGS) -o $@ $^ $(TEST_LIBS) $(PKG_LIBS)

clean:
	rm -rf build build-*

FORCE:
.PHONY: all clean FORCE
.SECONDARY:
-include $(shell find $(OUT) -name '*.d' 2>/dev/null)
