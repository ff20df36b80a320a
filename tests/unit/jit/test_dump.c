// SPDX-License-Identifier: MIT
/*
 * What the translator says of its code: dumps, and symbols for perf.  A program is run, and the
 * files are read.
 */
#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/jit/jit.h"
#include "fixture.h"

CODE64(adds, "1: add rax, [rdi]\n movaps xmm1, xmm2\n dec ecx\n jnz 1b\n hlt");
#define ADDS_LEN 10 /* to the end of the JNZ */

static char folder[] = "/tmp/umbra-dump-XXXXXX", dump_path[64];

static void run_adds(struct machine *m, u64 at)
{
	m->x.cpu.gpr[UM_RDI] = DATA;
	m->x.cpu.gpr[UM_RCX] = 50;
	machine_code(m, at, adds, adds_end);
	run_to_hlt(m);
}

static char *read_file(const char *path, size_t *size)
{
	FILE *f = fopen(path, "r");
	char *text;
	long n;

	assert_non_null(f);
	assert_int_equal(fseek(f, 0, SEEK_END), 0);
	n = ftell(f);
	rewind(f);
	text = malloc((size_t)n + 1);
	assert_non_null(text);
	assert_int_equal(fread(text, 1, (size_t)n, f), n);
	text[n] = 0;
	*size = (size_t)n;
	fclose(f);
	return text;
}

static unsigned count(const char *text, const char *what)
{
	unsigned n = 0;

	while ((text = strstr(text, what))) {
		n++;
		text += strlen(what);
	}
	return n;
}

/* In a child, since the files are the process's. */
static void in_child(void (*run)(void))
{
	int status;
	pid_t child;

	fflush(NULL);
	child = fork();
	assert_true(child >= 0);
	if (!child) {
		run();
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

/* ---- dumps ---- */

static void run_two(void)
{
	struct machine *m = machine_new_engine(UM_ENGINE_JIT);

	run_adds(m, PAGE(1));
	run_adds(m, PAGE(2));
	machine_free(m);
}

static void test_dump(void **state)
{
	char what[64];
	size_t size;
	char *text;

	setenv("UMBRA_DUMP_CODE", dump_path, 1);
	in_child(run_two);
	text = read_file(dump_path, &size);
	for (unsigned n = 1; n <= 2; n++) {
		snprintf(what, sizeof(what), "block %llx, 64-bit, cpl 0, ", PAGE(n));
		assert_in_range(count(text, what), 1, 2);
	}
	/* of the passes: the instruction; how it is done; flags; the code */
	assert_non_null(strstr(text, "  add rax, [rdi]\n"));
	assert_non_null(strstr(text,
			       "copied: reads ax; writes ax; address di; writes cf pf af zf sf "
			       "of; memory 8 read;"));
	assert_non_null(strstr(text, "live: flags"));
	assert_non_null(strstr(text, " movaps xmm1, xmm2\n"));
	assert_non_null(strstr(text, "by the interpreter:"));
	assert_null(strstr(text, "(bad)"));
	free(text);
}

static void test_chosen(void **state)
{
	char range[64], what[64];
	size_t size;
	char *text;

	snprintf(range, sizeof(range), "%llx-%llx", PAGE(2) + ADDS_LEN - 1, PAGE(3));
	setenv("UMBRA_DUMP_CODE", dump_path, 1);
	setenv("UMBRA_DUMP_RANGE", range, 1);
	setenv("UMBRA_DUMP_PASSES", "guest,facts", 1);
	in_child(run_two);
	text = read_file(dump_path, &size);
	snprintf(what, sizeof(what), "block %llx, ", PAGE(2));
	assert_non_null(strstr(text, what));
	snprintf(what, sizeof(what), "block %llx, ", PAGE(1));
	assert_null(strstr(text, what));
	assert_non_null(strstr(text, "copied: "));
	assert_null(strstr(text, "live:"));
	assert_null(strstr(text, "by the interpreter:"));
	free(text);
}

/* ---- perf ---- */

#define ROUTINES 11 /* that have names */

static void check_map(void)
{
	struct machine *m = machine_new_engine(UM_ENGINE_JIT);
	char path[64], line[128], name[64], loop[64];
	unsigned lines = 0, found = 0;
	unsigned long at, size;
	FILE *f;

	run_adds(m, CODE);
	snprintf(path, sizeof(path), "/tmp/perf-%d.map", (int)getpid());
	snprintf(loop, sizeof(loop), "guest64.cpl0.%llx", CODE);
	f = fopen(path, "r");
	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		assert_int_equal(sscanf(line, "%lx %lx %63s", &at, &size, name), 3);
		assert_true(um_arena_has(at) && um_arena_has(at + size - 1) && size);
		found += !strcmp(name, loop);
		lines++;
	}
	fclose(f);
	unlink(path);
	assert_in_range(found, 1, 2);
	/* cold code, too; and routines */
	assert_int_equal(lines, 2 * m->counters.v[UM_CNT_jit_blocks] + ROUTINES);
	machine_free(m);
}

static void test_map(void **state)
{
	setenv("UMBRA_PERF", "map", 1);
	in_child(check_map);
}

static u32 get32(const char *p)
{
	u32 v;

	memcpy(&v, p, 4);
	return v;
}

static u64 get64(const char *p)
{
	u64 v;

	memcpy(&v, p, 8);
	return v;
}

static void check_jitdump(void)
{
	struct machine *m;
	char path[64], loop[64], *text, *p;
	unsigned records = 0, found = 0;
	u64 before = 0;
	size_t size;

	assert_int_equal(chdir(folder), 0);
	m = machine_new_engine(UM_ENGINE_JIT);
	run_adds(m, CODE);
	snprintf(path, sizeof(path), "jit-%d.dump", (int)getpid());
	snprintf(loop, sizeof(loop), "guest64.cpl0.%llx", CODE);
	text = read_file(path, &size);
	unlink(path);
	assert_true(size > 40);
	assert_int_equal(get32(text), 0x4a695444);
	assert_int_equal(get32(text + 8), 40);
	assert_int_equal(get32(text + 12), EM_X86_64);
	assert_int_equal(get32(text + 20), getpid());
	for (p = text + 40; p < text + size; p += get32(p + 4)) {
		const char *name = p + 56, *code = name + strlen(name) + 1;
		u64 at = get64(p + 32), len = get64(p + 40);

		assert_int_equal(get32(p), 0);
		assert_true(get64(p + 8) >= before);
		before = get64(p + 8);
		assert_true(um_arena_has(at) && um_arena_has(at + len - 1));
		assert_ptr_equal(code + len, p + get32(p + 4));
		assert_int_equal(get64(p + 48), records);
		/* Links are made later: all but jumps' targets is what is there now. */
		assert_memory_equal(code, (void *)at, 4);
		found += !strcmp(name, loop);
		records++;
	}
	assert_ptr_equal(p, text + size);
	assert_in_range(found, 1, 2);
	assert_int_equal(records, 2 * m->counters.v[UM_CNT_jit_blocks] + ROUTINES);
	free(text);
	machine_free(m);
}

static void test_jitdump(void **state)
{
	setenv("UMBRA_PERF", "jitdump", 1);
	in_child(check_jitdump);
}

/* ---- options ---- */

static void test_options(void **state)
{
	static const struct {
		enum um_jit_option n;
		const char *value;
		bool ok;
	} values[] = {
		{ UM_JIT_OPT_DUMP_CODE, "", false },
		{ UM_JIT_OPT_DUMP_CODE, "x", true },
		{ UM_JIT_OPT_DUMP_PASSES, "guest", true },
		{ UM_JIT_OPT_DUMP_PASSES, "guest,host,", true },
		{ UM_JIT_OPT_DUMP_PASSES, "gues", false },
		{ UM_JIT_OPT_DUMP_PASSES, "", false },
		{ UM_JIT_OPT_DUMP_RANGE, "1000", true },
		{ UM_JIT_OPT_DUMP_RANGE, "0x1000-0xffffffffffffffff", true },
		{ UM_JIT_OPT_DUMP_RANGE, "2000-1000", false },
		{ UM_JIT_OPT_DUMP_RANGE, "1000-", false },
		{ UM_JIT_OPT_DUMP_RANGE, "-1000", false },
		{ UM_JIT_OPT_DUMP_RANGE, "1000--2000", false },
		{ UM_JIT_OPT_DUMP_RANGE, "", false },
		{ UM_JIT_OPT_DUMP_RANGE, "10000000000000000", false },
		{ UM_JIT_OPT_CODE_CACHE, "1M", true },
		{ UM_JIT_OPT_CODE_CACHE, "512M", true },
		{ UM_JIT_OPT_CODE_CACHE, "1023K", false },
		{ UM_JIT_OPT_CODE_CACHE, "513M", false },
		{ UM_JIT_OPT_CODE_CACHE, "many", false },
		{ UM_JIT_OPT_THRESHOLD, "0", true },
		{ UM_JIT_OPT_THRESHOLD, "1000000", true },
		{ UM_JIT_OPT_THRESHOLD, "1000001", false },
		{ UM_JIT_OPT_THRESHOLD, "18446744073709551617", false },
		{ UM_JIT_OPT_THRESHOLD, "-1", false },
		{ UM_JIT_OPT_THRESHOLD, "", false },
		{ UM_JIT_OPT_PERF, "map", true },
		{ UM_JIT_OPT_PERF, "jitdump", true },
		{ UM_JIT_OPT_PERF, "dump", false },
	};
	struct um_jit_options o;

	for (unsigned n = 0; n < ARRAY_SIZE(values); n++) {
		um_jit_options_init(&o);
		if (!um_jit_option_set(&o, values[n].n, values[n].value) != values[n].ok)
			fail_msg("%s=%s", um_jit_option_env(values[n].n), values[n].value);
	}
	um_jit_options_init(&o);
	assert_int_equal(um_jit_option_set(&o, UM_JIT_OPT_DUMP_RANGE, "1f-0x2F"), 0);
	assert_int_equal(o.dump_first, 0x1f);
	assert_int_equal(o.dump_last, 0x2f);
}

static int setup(void **state)
{
	unsetenv("UMBRA_PERF");
	unsetenv("UMBRA_DUMP_CODE");
	unsetenv("UMBRA_DUMP_RANGE");
	unsetenv("UMBRA_DUMP_PASSES");
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_dump, setup),
		cmocka_unit_test_setup(test_chosen, setup),
		cmocka_unit_test_setup(test_map, setup),
		cmocka_unit_test_setup(test_jitdump, setup),
		cmocka_unit_test_setup(test_options, setup),
	};
	int failed;

	if (!mkdtemp(folder))
		return 1;
	snprintf(dump_path, sizeof(dump_path), "%s/dump", folder);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	unlink(dump_path);
	rmdir(folder);
	return failed;
}
