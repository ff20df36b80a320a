// SPDX-License-Identifier: MIT
/*
 * Debian's C compiler at work: a made-up program goes through cc1 (its path is in the environment, as CC1), in the current
 * folder. The checksum is of the assembly text.
 */
#include "work.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FUNCTIONS = 30 };
#define SOURCE	 "compiled.c"
#define ASSEMBLY "compiled.s"

static void write_function(FILE *f, int n, uint32_t *s)
{
	static const char *const ops[] = { "+", "-", "*", "^", "&", "|" };

	fprintf(f, "static unsigned f%d(unsigned *v, unsigned n)\n{\n\tunsigned x = n, y = %u;\n",
		n, lcg(s) >> 20);
	fprintf(f, "\tfor (unsigned i = 0; i < n; i++) {\n\t\tswitch ((x ^ v[i]) %% 7) {\n");
	for (int c = 0; c < 6; c++) {
		fprintf(f, "\t\tcase %d:\n\t\t\tx = (y %s v[i]) %s %uu;\n", c,
			ops[(lcg(s) >> 16) % 6], ops[(lcg(s) >> 16) % 6], lcg(s) >> 16);
		if (lcg(s) >> 31)
			fprintf(f, "\t\t\tif (x > y)\n\t\t\t\ty = v[i] %s x;\n",
				ops[(lcg(s) >> 16) % 6]);
		fprintf(f, "\t\t\tbreak;\n");
	}
	fprintf(f, "\t\tdefault:\n\t\t\tv[i] %s= x %s y;\n\t\t}\n\t}\n", ops[(lcg(s) >> 16) % 6],
		ops[(lcg(s) >> 16) % 6]);
	if (n)
		fprintf(f, "\tx += f%d(v, n / 2);\n", n - 1);
	fprintf(f, "\treturn x + y;\n}\n");
}

static int write_source(void)
{
	FILE *f = fopen(SOURCE, "w");
	uint32_t s = 17;

	if (!f)
		return 0;
	for (int n = 0; n < FUNCTIONS; n++)
		write_function(f, n, &s);
	fprintf(f, "unsigned start(unsigned *v, unsigned n)\n{\n\treturn f%d(v, n);\n}\n",
		FUNCTIONS - 1);
	return fclose(f) == 0;
}

uint64_t gcc(void)
{
	const char *cc1 = getenv("CC1");
	static char text[1 << 20];
	uint64_t h = 0;
	size_t n = 0;
	int status = 1;
	pid_t child;
	FILE *f;

	if (!cc1 || !write_source())
		return 0;
	unlink(ASSEMBLY);
	child = fork();
	if (child == 0) {
		/* How often it collects garbage would depend on the machine's memory. */
		execl(cc1, "cc1", "-quiet", "-fpreprocessed", "-O2", "--param",
		      "ggc-min-expand=100", "--param", "ggc-min-heapsize=131072", "-o", ASSEMBLY,
		      SOURCE, (char *)NULL);
		_exit(1);
	}
	waitpid(child, &status, 0);
	f = fopen(ASSEMBLY, "r");
	if (f) {
		n = fread(text, 1, sizeof(text), f);
		h = digest(n, text, n);
		fclose(f);
	}
	unlink(SOURCE);
	unlink(ASSEMBLY);
	return status == 0 && n ? h : 0;
}
